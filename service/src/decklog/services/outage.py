"""The state of a backend as one part of a process sees it: logged when it changes, and not with each failed call."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Gauge

from decklog.domain.errors import DecklogError

REMINDER: Final = timedelta(minutes=1)
"""Between two lines of one kind of failure."""
KINDS_MAX: Final = 20
"""Kinds of failures whose last lines are remembered."""

FAILING = Gauge("decklog_backend_failing", "Parts of the process whose calls to a backend fail at present, by backend.", ["of"])


def kind_of(error: BaseException) -> str:
    """Return what kind of failure an error is: its code and the type of its cause, or its own type. It is never empty."""
    if not isinstance(error, DecklogError):
        return type(error).__name__
    cause = error.__cause__
    return error.code.value if cause is None else f"{error.code.value} ({type(cause).__name__})"


def reason_of(error: BaseException) -> str:
    """Return what is logged as the reason of an error: the sentence of one of ours, and the type of any other."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (isinstance(error, DecklogError) and str(error)[:300]) or type(error).__name__


class Outage:
    """Logs an outage when it begins, when it takes another form, and when it ends: each kind of line once per `REMINDER`.

    Args:
        of: The backend, as the label of the metric.
        event: What is logged while calls fail.
        clock: Returns seconds that never jump.
    """

    def __init__(self, of: str, event: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._log = structlog.get_logger("decklog.outage").bind(of=of)
        self._gauge = FAILING.labels(of)
        self._began = 0.0
        self._told: dict[str, float] = {}
        """When each kind of failure was logged last."""
        self._announced = False
        self.failures = 0
        """Failures since the outage began; 0 while all is well."""

    def failed(self, error: BaseException, **facts: str) -> None:
        """Note a failed call. `facts` are logged with the failures that are logged."""
        now, kind = self._clock(), kind_of(error)
        if not self.failures:
            self._began = now
            self._gauge.inc()
        self.failures += 1
        if now - self._told.get(kind, float("-inf")) < REMINDER.total_seconds():
            return
        if len(self._told) >= KINDS_MAX:
            self._told.clear()
        self._told[kind] = now
        self._announced = True
        defect = error if not isinstance(error, (DecklogError, OSError)) else None
        self._log.warning(self._event, kind=kind, reason=reason_of(error), failures=self.failures, exc_info=defect, **facts)

    def well(self) -> None:
        """Note that calls succeed again. The end of an outage is logged where its beginning was."""
        if not self.failures:
            return
        if self._announced:
            seconds = round(self._clock() - self._began, 1)
            self._log.info("the backend answers again", failures=self.failures, seconds=seconds)
        self._announced, self.failures = False, 0
        self._gauge.dec()
