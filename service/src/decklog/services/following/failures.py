"""Failures of the logs that one consumer follows: which of them wait before they are tried again, and for how long.

A log that failed by itself is tried again by itself. Logs that failed together, because something failed that all of them need, are
tried together again as soon as any log succeeds.
"""

from __future__ import annotations

from collections.abc import Callable

from decklog.domain.consumers import LogKey
from decklog.domain.pauses import backoff, jittered

BACKOFF_SECONDS = (0.5, 2.0)
"""First and longest pause after failures of one log, before jitter: near the lag that a log has when all is well."""
DOWN_LOGS = 3
"""Logs that fail without a success between them, after which the failing logs are tried one at a time."""
BACKING_OFF_MAX = 100_000
"""Logs whose failures are kept in memory."""


class Failures:
    """The logs of one consumer that failed and have not succeeded since. Times are by `clock`, in seconds."""

    def __init__(self, clock: Callable[[], float], pauses: tuple[float, float] = BACKOFF_SECONDS) -> None:
        self._clock = clock
        self._first, self._longest = pauses
        self._counts: dict[LogKey, int] = {}
        """Failures of each log that failed by itself."""
        self._not_before: dict[LogKey, float] = {}
        self._together: set[LogKey] = set()
        """Logs that failed together with others."""
        self._failing: set[LogKey] = set()
        """Logs that failed after the last success of any log."""
        self._trying = False
        self._try_at = 0.0

    def count(self, key: LogKey) -> int:
        """Return how often a log has failed by itself since it succeeded."""
        return self._counts.get(key, 0)

    def waits(self, key: LogKey) -> bool:
        """Return whether a log is not to be tried yet."""
        if self._clock() < self._not_before.get(key, 0.0):
            return True
        # A backend that all logs need is down. One that failed is tried for all of them.
        return self._is_down(key) and (self._trying or self._clock() < self._try_at)

    def tries(self, key: LogKey) -> bool:
        """Note that a log is tried; return whether it is tried for all that fail. `tried` must follow then."""
        if not self._is_down(key):
            return False
        self._trying = True
        return True

    def tried(self) -> None:
        """Note the end of a trial for all that fail."""
        self._trying = False

    def failed(self, key: LogKey, *, alone: bool) -> None:
        """Note a failure of a log; `alone`: by itself."""
        if len(self._not_before) >= BACKING_OFF_MAX:
            for each in (self._counts, self._not_before, self._together, self._failing):
                each.clear()
        if alone:
            self._counts[key] = self.count(key) + 1
        else:
            self._together.add(key)
        wait = jittered(backoff(max(1, self.count(key)), first=self._first, longest=self._longest), 0.5)
        self._not_before[key] = self._try_at = self._clock() + wait
        self._failing.add(key)

    def succeeded(self, key: LogKey) -> None:
        """Note a success of a log."""
        for each in (key, *self._together):
            self._not_before.pop(each, None)
        self._counts.pop(key, None)
        self._together.clear()
        self._failing.clear()

    def _is_down(self, key: LogKey) -> bool:
        return key in self._failing and len(self._failing) >= DOWN_LOGS
