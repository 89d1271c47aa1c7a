"""Wakes the logs that no message named: compares all heads with a consumer's cursors, again and again.

The sweep alone makes consumers complete. Queues only make them quick.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NoReturn

from prometheus_client import Counter, Gauge

from decklog.domain.consumers import Cursors
from decklog.workers.dispatch import Dispatcher
from decklog.workers.periodic import Pace, Turn, repeat

LOGS_MAX = 1_000
"""Logs that one sweep wakes at most, those furthest behind first."""

BEHIND = Gauge("decklog_consumer_behind_logs", "Logs that were behind and not being worked on, at the last sweep.", ["consumer"])
BEHIND_RECORDS = Gauge("decklog_consumer_behind_records", "Records not done in those logs, at the last sweep.", ["consumer"])
SWEEP_FAILURES = Counter("decklog_worker_sweep_failures_total", "Sweeps that failed.", ["consumer"])


async def keep_sweeping(cursors: Cursors, dispatcher: Dispatcher, *, seconds: float) -> NoReturn:
    """Sweep at once and then about every `seconds`, until cancelled."""

    async def turn() -> Turn:
        await sweep(cursors, dispatcher)
        return Turn.DONE

    consumer = dispatcher.consumer
    pace = Pace.every(timedelta(seconds=seconds))
    await repeat(turn, pace, failures=SWEEP_FAILURES.labels(consumer), failed="a sweep failed", consumer=consumer)


async def sweep(cursors: Cursors, dispatcher: Dispatcher) -> None:
    """Wake every log that is behind. Raises `storage-unavailable`."""
    behind = await cursors.behind(dispatcher.consumer, limit=LOGS_MAX)
    BEHIND.labels(dispatcher.consumer).set(len(behind))
    BEHIND_RECORDS.labels(dispatcher.consumer).set(sum(log.head_seq - log.next_seq for log in behind))
    for log in behind:
        dispatcher.wake(log.tenant_id, log.log)
