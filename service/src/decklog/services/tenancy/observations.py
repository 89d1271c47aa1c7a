"""Observations that many visits share: a thousand visits must not ask a backend a thousand times."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from decklog.services.coalescing import Coalescing, shared

OBSERVE_SECONDS_MAX = 30.0
"""Time that one backend has to answer. Nothing is applied to the others before it has answered, or before this."""
PAUSE_SECONDS = 0.2
"""From the beginning of one observation of a thing to that of the next, so that more visits share it."""
GATHERED_MAX = 128
"""Things that one question asks for."""

_Asked = TypeVar("_Asked")
_Result = TypeVar("_Result")


def joined(observe: Callable[[str], Coroutine[Any, Any, _Result]]) -> Coalescing[str, _Result]:
    """Return an observation of one thing by its name, shared by all who ask for that name at the time."""
    return Coalescing(shared(observe), key=str, gap=lambda _: PAUSE_SECONDS, seconds_max=OBSERVE_SECONDS_MAX)


def gathered(
    observe: Callable[[Sequence[_Asked]], Coroutine[Any, Any, Sequence[_Result]]],
) -> Coalescing[_Asked, _Result]:
    """Return an observation of one thing, made together with all others that are asked for at the time.

    `observe` returns one answer for each thing, in their order.
    """
    return Coalescing(observe, group_max=GATHERED_MAX, seconds_max=OBSERVE_SECONDS_MAX)
