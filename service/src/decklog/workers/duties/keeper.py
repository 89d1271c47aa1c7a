"""Creates partitions before records need them. Sealing and dropping partitions is not done here."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NoReturn, Protocol

from prometheus_client import Counter, Gauge

from decklog.workers.periodic import Pace, Turn, repeat

EVERY = timedelta(hours=1)
"""Partitions are created days ahead, so many failures in a row do no harm."""
AGAIN_AFTER = timedelta(minutes=1)
"""Pause after a failure, before jitter."""

FAILURES = Counter("decklog_keeper_failures_total", "Failed attempts to create future partitions.")
UNTIL = Gauge(
    "decklog_keeper_partitions_until_timestamp_seconds",
    "Time until which every tenant has partitions, in seconds since 1970; NaN where no tenant needs any.",
)
UNTIL.set(float("nan"))
MADE = Gauge(
    "decklog_keeper_progress_timestamp_seconds", "Time of the last successful creation of partitions, in seconds since 1970."
)


class Keeper(Protocol):
    """Creates partitions. What it does beyond the service's own rights are narrow functions of the database."""

    async def make_partitions_ahead(self) -> datetime | None:
        """Create the partitions that records will soon be written to.

        Return the time until which every tenant has partitions; None where no tenant needs any.
        Raises `storage-unavailable`.
        """
        ...


async def keep_partitions(keeper: Keeper) -> NoReturn:
    """Create future partitions at once and then every hour, until cancelled.

    Several workers may do it: creating a partition that exists does nothing.
    """

    async def turn() -> Turn:
        until = await keeper.make_partitions_ahead()
        UNTIL.set(float("nan") if until is None else until.timestamp())
        MADE.set_to_current_time()
        return Turn.DONE

    pace = Pace.every(EVERY, retry=AGAIN_AFTER)
    await repeat(turn, pace, failures=FAILURES, failed="future partitions could not be created")
