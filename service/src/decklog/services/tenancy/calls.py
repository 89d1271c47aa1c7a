"""Calls to a tenant's backends: each is bounded in time, counted, and fails as a `Trouble` instead of an exception."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.status import Part
from decklog.domain.tenancy.trouble import Trouble
from decklog.services.tenancy.metrics import calling
from decklog.services.tenancy.observations import OBSERVE_SECONDS_MAX

APPLY_SECONDS_MAX = 120.0
"""Seconds that the actions for one backend may take."""

_FRAMES_MAX = 6
"""Frames of an unexpected error's path that the log shows."""
_REASONS = {
    Code.STORAGE_UNAVAILABLE: "Unreachable",
    Code.SEARCH_UNAVAILABLE: "Unreachable",
    Code.CONFLICT: "Conflict",
    Code.MISCONFIGURED: "Misconfigured",
    Code.INVALID_TENANT: "InvalidSpec",
    Code.FORBIDDEN: "Forbidden",
    Code.NOT_FOUND: "NotFound",
}

_log = structlog.get_logger("decklog.provisioning")
_Result = TypeVar("_Result")


async def attempt(
    call: Coroutine[Any, Any, _Result],
    part: Part,
    operation: str = "observe",
    *,
    seconds: float | None = OBSERVE_SECONDS_MAX,
) -> _Result | Trouble:
    """Return the result of a call to a backend, or why there is none. `seconds` None: the call is not bounded here."""
    with calling(part, operation) as counted:
        try:
            async with asyncio.timeout(seconds):
                return await call
        except Exception as error:  # noqa: BLE001 - no error of one backend may hold up the others
            counted.trouble = trouble(error)
            return counted.trouble


async def attempt_all(
    attempts: Mapping[Part, Callable[[], Coroutine[Any, Any, None]]], operation: str = "apply"
) -> dict[Part, Trouble]:
    """Make all calls concurrently. Returns why calls failed, by part."""
    tried = (attempt(action(), part, operation, seconds=APPLY_SECONDS_MAX) for part, action in attempts.items())
    failed = zip(attempts, await asyncio.gather(*tried), strict=True)
    return {part: trouble for part, trouble in failed if trouble is not None}


def trouble(error: Exception) -> Trouble:
    """Return what went wrong, in words that every reader of the tenant's status may see."""
    if isinstance(error, DecklogError):
        return Trouble(error.extra.get("reason") or _REASONS.get(error.code, "Failed"), error.detail)
    if isinstance(error, TimeoutError):
        return Trouble("Timeout", "No answer in time. It is tried again.")
    # The error's text may hold a secret, so neither the condition nor the log repeats it.
    path = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    _log.error("provisioning failed", error=type(error).__name__, path=path[-_FRAMES_MAX:])
    return Trouble("Failed", f"An unexpected error occurred ({type(error).__name__}); the log has the cause.")
