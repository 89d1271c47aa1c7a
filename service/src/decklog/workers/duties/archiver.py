"""Archives tenants that were deleted with deletionPolicy Archive, one turn at a time, and tells how the archive is.

One tenant of a process at a time, so memory is that of one part; a large one lets the others have their turns.
"""

from __future__ import annotations

import asyncio
import random
from typing import Protocol

import structlog

from decklog.domain.archive.manifest import ArchiveError, ToArchive
from decklog.domain.errors import DecklogError
from decklog.services.archive.archiver import FAILURES, WAITING
from decklog.services.following.follow import Ended

TENANTS_MAX = 100
"""That one round looks at, those that were deleted first."""
CHECK_SECONDS = 60.0
"""Between two looks at an archive that nothing is written to."""
LOOK_SECONDS = 5.0
"""Between two rounds with nothing to do."""
AGAIN_SECONDS_MAX = 60.0
"""Longest wait after failures, before jitter."""

_log = structlog.get_logger("decklog.worker")


class Archiving(Protocol):
    """What is used of `services.archiving.Archiver`."""

    @property
    def place(self) -> str: ...

    async def due(self, *, limit: int) -> list[ToArchive]: ...

    async def advance(self, due: ToArchive) -> Ended: ...

    async def check(self) -> bool: ...

    async def tell(self, *, locked: bool = False, failed: ArchiveError | None = None) -> None: ...


class _Rounds:
    """Round after round. What is told to provisioning is told again before it is taken to be out of date."""

    def __init__(self, archiver: Archiving) -> None:
        self._archiver = archiver
        self._locked = False
        self._checked_at = float("-inf")

    async def round(self) -> tuple[bool, bool]:
        """One turn for each tenant that is due; whether any got further, and whether anything failed. Raises what the
        database raises where it cannot be asked at all."""
        due = await self._archiver.due(limit=TENANTS_MAX)
        WAITING.set(len(due))
        further, failed, fault = False, False, None
        for each in due:
            try:
                further |= await self._archiver.advance(each) in (Ended.DONE, Ended.WAITING)
            except (DecklogError, TimeoutError) as error:
                FAILURES.inc()
                failed, fault = True, error if isinstance(error, ArchiveError) else fault
                why = str(error) or "It took too long."
                _log.warning("a tenant could not be archived", tenant=each.tenant.name, reason=why)
        await self._tell(fault)
        return further, failed

    async def _tell(self, fault: ArchiveError | None) -> None:
        now = asyncio.get_running_loop().time()
        if fault is None and now - self._checked_at < CHECK_SECONDS:
            return
        if fault is None:
            try:
                self._locked = await self._archiver.check()
            except ArchiveError as error:
                FAILURES.inc()
                _log.warning("the archive cannot be used", place=self._archiver.place, reason=str(error))
                fault = error
        self._checked_at = now if fault is None else float("-inf")
        await self._archiver.tell(locked=self._locked, failed=fault)


async def keep_archiving(archiver: Archiving) -> None:
    """Round after round, until cancelled. Several workers may do it: a tenant is one worker's at a time."""
    rounds, failures = _Rounds(archiver), 0
    while True:
        further, failed = False, False
        try:
            further, failed = await rounds.round()
        except DecklogError as error:
            FAILURES.inc()
            _log.warning("archiving has to wait", reason=str(error))
            failed = True
        failures = failures + 1 if failed and not further else 0
        wait = min(AGAIN_SECONDS_MAX, LOOK_SECONDS * 2.0 ** min(failures - 1, 10)) if failures else LOOK_SECONDS
        await asyncio.sleep(0.0 if further else wait * random.uniform(0.75, 1.25))  # noqa: S311
