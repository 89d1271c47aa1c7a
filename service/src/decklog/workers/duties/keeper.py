"""Creates partitions before records need them, and drops those beyond retention. The database decides which may go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NoReturn, Protocol

import structlog
from prometheus_client import Counter, Gauge

from decklog.domain.errors import DecklogError
from decklog.domain.log import rfc3339
from decklog.domain.records.ageing import Aged
from decklog.workers.periodic import Pace, Turn, repeat

EVERY = timedelta(hours=1)
"""Partitions are created days ahead, so many failures in a row do no harm."""
AGAIN_AFTER = timedelta(minutes=1)
"""Pause after a failure, before jitter."""

DROPS_MAX = 100
"""Partitions of a schema that one turn drops; the next turn goes on at once."""

FAILURES = Counter("decklog_keeper_failures_total", "Failed attempts to create future partitions or to drop old ones.")
UNTIL = Gauge(
    "decklog_keeper_partitions_until_timestamp_seconds",
    "Time until which every tenant has partitions, in seconds since 1970; NaN where no tenant needs any.",
)
UNTIL.set(float("nan"))
MADE = Gauge(
    "decklog_keeper_progress_timestamp_seconds", "Time of the last successful creation of partitions, in seconds since 1970."
)
DROPPED = Counter("decklog_keeper_partitions_dropped_total", "Partitions that were dropped beyond retention.")
FREED = Counter("decklog_keeper_freed_bytes_total", "Bytes of the partitions that were dropped, with their indexes.")
DUE = Gauge(
    "decklog_keeper_partitions_due",
    "Partitions beyond retention that stay: for the rest of their day (`waiting`), under a legal hold (`held`), until an archive is complete "
    "(`archiving`).",
    ["why"],
)

_log = structlog.get_logger("decklog.worker")


class Keeper(Protocol):
    """Creates and drops partitions. Narrow functions of the database do what the worker's role may not."""

    async def make_partitions_ahead(self) -> datetime | None:
        """Create the partitions that records will soon be written to.

        Return the time until which every tenant has partitions; None where no tenant needs any.
        Raises `storage-unavailable`.
        """
        ...

    async def schemas(self) -> Sequence[str]:
        """Return the schemas with records. Raises `storage-unavailable`."""
        ...

    async def drop_due(self, schema: str) -> Aged:
        """Drop the oldest partition of a schema that may go, if there is one. Raises `storage-unavailable`."""
        ...


async def keep_partitions(keeper: Keeper) -> NoReturn:
    """Create future partitions and drop those beyond retention, at once and then every hour, until cancelled.

    Several workers may do it: creating a partition that exists does nothing, and one of them drops a schema's partitions at a time.
    """

    async def turn() -> Turn:
        until = await keeper.make_partitions_ahead()
        UNTIL.set(float("nan") if until is None else until.timestamp())
        MADE.set_to_current_time()
        return await drop_partitions(keeper)

    pace = Pace.every(EVERY, retry=AGAIN_AFTER)
    await repeat(turn, pace, failures=FAILURES, failed="partitions could not be created or dropped")


async def drop_partitions(keeper: Keeper) -> Turn:
    """Drop partitions beyond retention in every schema, oldest first. A schema that fails is left for the next turn, and the others go on."""
    found = Turn.DONE
    stay: list[Aged] = []
    for schema in await keeper.schemas():
        try:
            stay.append(await _drop_in(keeper, schema))
        except DecklogError as error:
            FAILURES.inc()
            _log.warning("partitions beyond retention could not be dropped", schema=schema, reason=str(error))
            found = Turn.FAILED
    for why in ("waiting", "held", "archiving"):
        DUE.labels(why).set(sum(getattr(each, why) for each in stay))
    more = any(each.since is not None for each in stay)
    return Turn.MORE if more and found is Turn.DONE else found


async def _drop_in(keeper: Keeper, schema: str) -> Aged:
    """Drop at most `DROPS_MAX` partitions of a schema; return the last step."""
    for _ in range(DROPS_MAX):
        aged = await keeper.drop_due(schema)
        if aged.since is None or aged.until is None:
            break
        DROPPED.inc()
        FREED.inc(aged.bytes)
        _log.info("partition dropped", schema=schema, since=rfc3339(aged.since), until=rfc3339(aged.until), bytes=aged.bytes)
    return aged
