"""When a client tries again, and how long it waits."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from decklog.domain.errors import Code, DecklogError

LATER = frozenset(
    {
        Code.RATE_LIMITED,
        Code.OVERLOADED,
        Code.OUTCOME_UNKNOWN,
        Code.STORAGE_UNAVAILABLE,
        Code.REGISTRY_STALE,
        Code.ISSUER_UNAVAILABLE,
        Code.CLOCK_BEHIND,
        Code.REQUEST_TIMEOUT,
        Code.SEARCH_UNAVAILABLE,
        Code.ACCESS_LOG_UNAVAILABLE,
    }
)
"""Errors after which the same request may succeed."""
AFTER_MAX = 60.0
"""Seconds that a server may ask a client to wait; a longer wait is cut to it."""
_FIRST, _LONGEST = 0.5, 30.0


class Patience:
    """Waits between attempts: twice as long each time, with jitter, up to 30 seconds; as long as the server asks, where it does.

    Args:
        waiting: Is called with the reason before each wait.
        attempts: Attempts in a row that may fail, None without an end.
    """

    def __init__(self, waiting: Callable[[str], None], *, attempts: int | None = None) -> None:
        self._waiting = waiting
        self._attempts = attempts
        self.failed = 0
        """Attempts that failed since the last success."""

    def succeeded(self) -> None:
        """Begin anew: the last attempt came forward."""
        self.failed = 0

    async def wait(self, error: DecklogError, *, also: frozenset[Code] = frozenset()) -> None:
        """Wait for the next attempt. Raises the error where it does not pass by itself, and after the last attempt.

        `also` holds further codes that pass.
        """
        self.failed += 1
        if error.code not in LATER | also or (self._attempts is not None and self.failed >= self._attempts):
            raise error
        self._waiting(error.detail)
        span = min(_FIRST * 2 ** min(self.failed - 1, 10), _LONGEST) * (0.5 + secrets.randbelow(501) / 1_000)
        await asyncio.sleep(span if error.retry_after is None else min(max(error.retry_after, span), AFTER_MAX))
