"""Archives tenants that were deleted with deletionPolicy Archive, and reports the state of the archive to provisioning.

A process archives one tenant at a time, so it holds one part in memory. A large tenant gives the others their turns.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import NoReturn, Protocol

from decklog.domain.archive.manifest import ArchiveError, ToArchive
from decklog.domain.errors import DecklogError
from decklog.services.archive.archiver import FAILURES, WAITING
from decklog.services.following.lines import Ended
from decklog.services.outage import Outage
from decklog.workers.periodic import Pace, Turn, repeat

TENANTS_MAX = 100
"""Tenants of one round at most, those that were deleted first."""
CHECK_SECONDS = 60.0
"""Between two checks of an archive that nothing is written to."""
PACE = Pace(timedelta(seconds=5), retry=timedelta(seconds=5), retry_max=timedelta(seconds=60))
"""Between two rounds with nothing to do, and after failures."""


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


def _unreachable(error: BaseException) -> bool:
    return isinstance(error, ArchiveError) and error.reason == "Unreachable"


class Rounds:
    """Round after round. Provisioning is given the state of the archive again before it takes it to be out of date."""

    def __init__(self, archiver: Archiving) -> None:
        self._archiver = archiver
        self._locked = False
        self._checked_at = float("-inf")
        self._outage = Outage("archive", "the archive cannot be used")

    async def turn(self) -> Turn:
        """Give each tenant that is due one turn, whatever becomes of the others, unless the archive cannot be reached.

        Raises `storage-unavailable`.
        """
        due = await self._archiver.due(limit=TENANTS_MAX)
        WAITING.set(len(due))
        further, failed, fault = False, False, None
        for each in due:
            try:
                further |= await self._archiver.advance(each) in (Ended.DONE, Ended.WAITING)
            except (DecklogError, TimeoutError) as error:
                FAILURES.inc()
                failed, fault = True, error if isinstance(error, ArchiveError) else fault
                self._outage.failed(error, tenant=each.tenant.name)
                if _unreachable(error) and not await self._answers():
                    break  # the next tenant would wait for the same silence
            else:
                self._outage.well()
        await self._report(fault)
        return Turn.MORE if further else Turn.FAILED if failed else Turn.DONE

    async def _answers(self) -> bool:
        """Return whether the archive answers at all, after it could not be reached for one tenant."""
        try:
            await self._archiver.check()
        except ArchiveError as error:
            return not _unreachable(error)
        return True

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
                self._outage.failed(error, place=self._archiver.place)
                fault = error
        self._checked_at = now if fault is None else float("-inf")
        await self._archiver.tell(locked=self._locked, failed=fault)
