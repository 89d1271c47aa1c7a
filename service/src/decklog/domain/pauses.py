"""Pauses between attempts: exponential back-off, and jitter so that processes do not act at the same moment."""

from __future__ import annotations

import random


def between(shortest: float, longest: float) -> float:
    """Return a random number of seconds, evenly distributed from `shortest` to `longest`."""
    return random.uniform(shortest, longest)  # noqa: S311 - spreads load; nothing secret depends on it


def jittered(seconds: float, share: float) -> float:
    """Return `seconds`, changed at random by at most this share of it (0.25: from 75 % to 125 %)."""
    return seconds * between(1 - share, 1 + share)


def backoff(failures: int, *, first: float, longest: float) -> float:
    """Return the seconds to wait after so many failures in a row (1 or more): `first`, doubled with each further failure.

    The result is at most `longest` and has no jitter.
    """
    return min(longest, first * 2.0 ** min(failures - 1, 30))
