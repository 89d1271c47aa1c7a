"""Batches of records of several logs, the moves of cursors that follow on them, and their metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from decklog.domain.consumers import LogRecords
from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.record import StoredRecord
from decklog.services.following.effects import BatchTrace
from decklog.services.following.lines import Line

_Made = TypeVar("_Made")

LAG = Histogram(
    "decklog_consumer_lag_seconds",
    "Seconds from the receipt of a record until it is done, for the oldest record of each move of a cursor.",
    ["consumer"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1_800, 7_200),
)
RECORDS = Counter("decklog_consumer_records_total", "Records done.", ["consumer"])
BATCHES = Counter("decklog_consumer_batches_total", "Batches whose effect succeeded.", ["consumer"])
BATCH_LOGS = Counter(
    "decklog_consumer_batch_logs_total", "Logs with records in these batches, once for each batch.", ["consumer"]
)
PROGRESS = Gauge(
    "decklog_consumer_progress_timestamp_seconds", "Time of the last move of a cursor, in seconds since 1970.", ["consumer"]
)


class Share(NamedTuple):
    """The part of one log in a batch: its numbers from `first` to before `onward`."""

    line: Line
    records: list[StoredRecord]
    first: int
    onward: int


class Move(NamedTuple):
    """A move of the cursor of a log. `oldest` is the receipt of the first record of it."""

    line: Line
    to: int
    oldest: datetime | None


class Batch:
    """A batch that is applied. Its trace ends when the cursors have passed it, or one of its logs has failed."""

    def __init__(self, parts: list[Share]) -> None:
        self.parts = parts
        self.task: asyncio.Task[None] | None = None
        """The task that applies it, once it has begun."""
        self.trace: BatchTrace | None = None

    @property
    def live(self) -> bool:
        """True if any of its logs is still being advanced."""
        return any(part.line.live for part in self.parts)

    @property
    def given(self) -> list[LogRecords]:
        """The records for the effect."""
        return [LogRecords(part.line.tenant, part.line.log, part.records) for part in self.parts if part.records]

    @property
    def wary(self) -> bool:
        """True if it is a trial of a log that has failed."""
        return any(part.line.wary for part in self.parts)

    def applied(self) -> None:
        """Note that it is applied."""
        for part in self.parts:
            # Batches after a failed one of its log are applied again after that.
            if part.line.live and part.line.applied == part.first:
                part.line.has_applied(part.records, part.onward)

    def passed(self) -> bool:
        """Return whether nothing of it is open any more, and end the trace then."""
        if any(part.line.live and part.line.settled < part.onward for part in self.parts):
            return False
        if self.trace is not None:
            whole = all(part.line.settled >= part.onward for part in self.parts)
            (self.trace.done if whole else self.trace.broken_off)()
        return True


def halves(lines: Sequence[Line]) -> list[list[Line]]:
    """Return two parts of about the same size, those that are not empty."""
    middle = (len(lines) + 1) // 2
    return [list(half) for half in (lines[:middle], lines[middle:]) if half]


async def attempted(work: Awaitable[_Made]) -> _Made | Exception:
    """Return what the work returns, or the exception that it raises: an effect may raise anything."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - only the logs of this work fail
        return error


def error_of(task: asyncio.Task[Any]) -> Exception | None:
    """Return the error of a task that has ended; also of one that was cancelled, because it has done nothing then."""
    if task.cancelled():
        return DecklogError(Code.INTERNAL, "The work on a batch was cancelled.")
    error = task.exception()
    if error is None or isinstance(error, Exception):
        return error
    raise error


def observe(consumer: str, move: Move) -> None:
    """Count a move of a cursor."""
    RECORDS.labels(consumer).inc(move.to - move.line.settled)
    if move.oldest is not None:
        LAG.labels(consumer).observe(max(0.0, (datetime.now(UTC) - move.oldest).total_seconds()))
