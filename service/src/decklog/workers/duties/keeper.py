"""Makes partitions before they are needed. Whatever else partitions need (sealing, dropping) is not done here."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from prometheus_client import Counter, Gauge

from decklog.domain.errors import DecklogError

EVERY = timedelta(hours=1)
"""Partitions are made days ahead, so that many failures in a row do no harm."""
AGAIN_AFTER = timedelta(minutes=1)
"""After a failure."""

FAILURES = Counter("decklog_keeper_failures_total", "Times that partitions could not be made ahead.")
UNTIL = Gauge(
    "decklog_keeper_partitions_until_timestamp_seconds",
    "Until when partitions were there for each tenant at that time, in seconds since 1970; NaN where none are needed.",
)
UNTIL.set(float("nan"))
MADE = Gauge("decklog_keeper_progress_timestamp_seconds", "When partitions were last made ahead, in seconds since 1970.")

_log = structlog.get_logger("decklog.worker")


class Keeper(Protocol):
    """Creates partitions. What it does beyond the service's own rights are narrow functions of the database."""

    async def make_partitions_ahead(self) -> datetime | None:
        """Create the partitions that records will soon be written to.

        Return the time until which every tenant has partitions; None where no tenant needs any.
        Raises `storage-unavailable`.
        """
        ...


async def keep_partitions(keeper: Keeper) -> None:
    """At once and then every hour; until cancelled. Several workers may do it: making what is there does nothing."""
    while True:
        wait = EVERY
        try:
            until = await keeper.make_partitions_ahead()
        except DecklogError as error:
            FAILURES.inc()
            _log.warning("partitions could not be made ahead", reason=str(error))
            wait = AGAIN_AFTER
        else:
            UNTIL.set(float("nan") if until is None else until.timestamp())
            MADE.set_to_current_time()
        await asyncio.sleep(wait.total_seconds() * random.uniform(0.9, 1.1))  # noqa: S311
