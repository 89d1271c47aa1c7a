"""Finds what no message told: compares all heads with a consumer's cursors, again and again.

This alone makes the consumers complete; queues only make them quick.
"""

from __future__ import annotations

import asyncio
import random

import structlog
from prometheus_client import Counter, Gauge

from decklog.domain.errors import DecklogError
from decklog.domain.store import Cursors
from decklog.workers.dispatch import Dispatcher

LOGS_MAX = 1_000
"""Logs that one sweep can find, those furthest behind first."""

BEHIND = Gauge("decklog_consumer_behind_logs", "Logs that were behind and not being worked on, at the last sweep.", ["consumer"])
BEHIND_RECORDS = Gauge("decklog_consumer_behind_records", "Records not done in those logs, at the last sweep.", ["consumer"])
SWEEP_FAILURES = Counter("decklog_worker_sweep_failures_total", "Sweeps that failed.", ["consumer"])

_log = structlog.get_logger("decklog.worker")


async def sweep(cursors: Cursors, dispatcher: Dispatcher) -> int:
    """Wake every log that is behind, and return how many were. Raises `storage-unavailable`."""
    behind = await cursors.behind(dispatcher.consumer, limit=LOGS_MAX)
    BEHIND.labels(dispatcher.consumer).set(len(behind))
    BEHIND_RECORDS.labels(dispatcher.consumer).set(sum(log.head_seq - log.next_seq for log in behind))
    for log in behind:
        dispatcher.wake(log.tenant_id, log.log)
    return len(behind)


async def keep_sweeping(cursors: Cursors, dispatcher: Dispatcher, *, seconds: float) -> None:
    """A sweep about every `seconds`, jittered so that workers do not march in step; until cancelled."""
    while True:
        try:
            await sweep(cursors, dispatcher)
        except DecklogError as error:
            SWEEP_FAILURES.labels(dispatcher.consumer).inc()
            _log.warning("a sweep failed", consumer=dispatcher.consumer, reason=str(error))
        await asyncio.sleep(seconds * random.uniform(0.75, 1.25))  # noqa: S311
