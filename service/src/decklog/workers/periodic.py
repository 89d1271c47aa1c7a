"""The one loop of periodic duties: a turn, a jittered pause, and back-off while turns fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import Enum
from typing import NamedTuple, NoReturn

from prometheus_client import Counter

from decklog.domain.errors import DecklogError
from decklog.domain.pauses import backoff, jittered
from decklog.services.outage import Outage

JITTER = 0.25
"""Largest share of a pause by which it differs at random, so that workers do not act at the same moment."""


class Turn(Enum):
    """What a turn leaves behind."""

    DONE = "done"
    """Nothing to do until the next interval."""
    MORE = "more"
    """More work is ready: the next turn begins at once."""
    FAILED = "failed"
    """Something failed, which the turn has logged and counted itself."""


class Pace(NamedTuple):
    """The pauses of a duty, before jitter. `retry` and `retry_max` are the first and the longest pause after failures in a row."""

    interval: timedelta
    retry: timedelta
    retry_max: timedelta

    @classmethod
    def every(cls, interval: timedelta, *, retry: timedelta | None = None) -> Pace:
        """The same pause after each turn, or `retry` after each that failed."""
        return cls(interval, retry or interval, retry or interval)

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failed turns in a row; 0 failures means after a turn that succeeded."""
        if not failures:
            return self.interval.total_seconds()
        return backoff(failures, first=self.retry.total_seconds(), longest=self.retry_max.total_seconds())


async def repeat(turn: Callable[[], Awaitable[Turn]], pace: Pace, *, failures: Counter, failed: str, **facts: str) -> NoReturn:
    """Take a turn at once and then at this pace, until cancelled.

    A turn that raises `DecklogError` is counted in `failures`, logged as an outage `failed` with `facts`, and tried again.
    Every other error ends the loop, because it must not happen.
    """
    in_a_row, outage = 0, Outage("duty", failed)
    while True:
        try:
            left = await turn()
            outage.well()
        except DecklogError as error:
            failures.inc()
            outage.failed(error, **facts)
            left = Turn.FAILED
        in_a_row = in_a_row + 1 if left is Turn.FAILED else 0
        await asyncio.sleep(0.0 if left is Turn.MORE else jittered(pace.pause(in_a_row), JITTER))
