"""Archives tenants that were deleted with deletionPolicy Archive, and reports the state of the archive to provisioning.

A process archives one tenant at a time, so it holds one part in memory. A large tenant gives the others their turns.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import NoReturn, Protocol

import structlog

from decklog.domain.archive.manifest import ArchiveError, ToArchive
from decklog.domain.errors import DecklogError
from decklog.services.archive.archiver import FAILURES, WAITING
from decklog.services.following.follow import Ended
from decklog.workers.periodic import Pace, Turn, repeat

TENANTS_MAX = 100
"""Tenants of one round at most, those that were deleted first."""
CHECK_SECONDS = 60.0
"""Between two checks of an archive that nothing is written to."""
PACE = Pace(timedelta(seconds=5), retry=timedelta(seconds=5), retry_max=timedelta(seconds=60))
"""Between two rounds with nothing to do, and after failures."""

_log = structlog.get_logger("decklog.worker")


class Archiving(Protocol):
    """The part of `decklog.services.archive.archiver.Archiver` that this duty uses."""

    @property
    def place(self) -> str:
        """Where the archive is, as an address or a path."""
        ...

    async def due(self, *, limit: int) -> list[ToArchive]:
        """See `Archiver.due`."""
        ...

    async def advance(self, due: ToArchive) -> Ended:
        """See `Archiver.advance`."""
        ...

    async def check(self) -> bool:
        """See `Archiver.check`."""
        ...

    async def tell(self, *, locked: bool = False, failed: ArchiveError | None = None) -> None:
        """See `Archiver.tell`."""
        ...


async def keep_archiving(archiver: Archiving) -> NoReturn:
    """Archive what is due, round after round, until cancelled. Several workers may do it: leases keep them apart."""
    await repeat(Rounds(archiver).turn, PACE, failures=FAILURES, failed="no tenant could be archived")


class Rounds:
    """Round after round. Provisioning is given the state of the archive again before it takes it to be out of date."""

    def __init__(self, archiver: Archiving) -> None:
        self._archiver = archiver
        self._locked = False
        self._checked_at = float("-inf")

    async def turn(self) -> Turn:
        """Give each tenant that is due one turn, whatever becomes of the others. Raises `storage-unavailable`."""
        due = await self._archiver.due(limit=TENANTS_MAX)
        WAITING.set(len(due))
        further, failed, fault = False, False, None
        for each in due:
            try:
                further |= await self._archiver.advance(each) in (Ended.DONE, Ended.WAITING)
            except (DecklogError, TimeoutError) as error:
                FAILURES.inc()
                failed, fault = True, error if isinstance(error, ArchiveError) else fault
                why = str(error) or "The turn timed out."
                _log.warning("a tenant could not be archived", tenant=each.tenant.name, reason=why)
        await self._report(fault)
        return Turn.MORE if further else Turn.FAILED if failed else Turn.DONE

    async def _report(self, fault: ArchiveError | None) -> None:
        """Report a fault at once, and the result of a check when one is due."""
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
