"""The rounds of a worker that archives: what they tell of the archive, and that one tenant's trouble is not another's."""

from __future__ import annotations

import pytest

from decklog.domain.archive.manifest import ArchiveError, ToArchive
from decklog.domain.errors import Code, DecklogError
from decklog.services.following.lines import Ended
from decklog.workers.duties.archiver import Rounds
from decklog.workers.periodic import Turn
from tests.support.memory import make_tenant


class Scripted:
    """An archiver whose turns end as they are told to."""

    place = "s3://evidence"

    def __init__(self, **turns: list[Ended | Exception]) -> None:
        self.turns = {name: iter(ends) for name, ends in turns.items()}
        self.left = dict(turns)
        self.locked: bool | ArchiveError = True
        self.checks = 0
        self.told: list[tuple[bool, str]] = []

    async def due(self, *, limit: int) -> list[ToArchive]:
        return [ToArchive(make_tenant(name), None) for name in self.left]

    async def advance(self, due: ToArchive) -> Ended:
        ended = next(self.turns[due.tenant.name])
        if isinstance(ended, Exception):
            raise ended
        if ended is Ended.DONE:
            del self.left[due.tenant.name]
        return ended

    async def check(self) -> bool:
        self.checks += 1
        if isinstance(self.locked, ArchiveError):
            raise self.locked
        return self.locked

    async def tell(self, *, locked: bool = False, failed: ArchiveError | None = None) -> None:
        self.told.append((locked, failed.reason if failed else ""))


DENIED = ArchiveError("AccessDenied", "Not allowed.", Code.FORBIDDEN)


async def test_archiver_round_gives_each_tenant_a_turn_when_others_fail() -> None:
    scripted = Scripted(
        one=[DENIED, Ended.DONE], two=[Ended.WAITING, Ended.DONE], three=[TimeoutError(), Ended.HELD], four=[Ended.DONE]
    )
    rounds = Rounds(scripted)
    assert await rounds.turn() is Turn.MORE
    assert scripted.told == [(False, "AccessDenied")]
    assert set(scripted.left) == {"one", "two", "three"}
    assert await rounds.turn() is Turn.MORE
    assert scripted.told[1:] == [(True, "")]
    assert set(scripted.left) == {"three"}


async def test_archiver_round_ends_when_the_archive_cannot_be_reached_at_all() -> None:
    silent = ArchiveError("Unreachable", "No answer.")
    scripted = Scripted(one=[silent, silent], two=[Ended.DONE])
    scripted.locked = silent
    assert await Rounds(scripted).turn() is Turn.FAILED
    assert set(scripted.left) == {"one", "two"}
    scripted.locked = True  # the fault is of one tenant
    await Rounds(scripted).turn()
    assert set(scripted.left) == {"one"}


async def test_archiver_checks_an_idle_archive_rarely_and_a_failing_one_each_round() -> None:
    scripted = Scripted()
    rounds = Rounds(scripted)
    for _ in range(3):
        assert await rounds.turn() is Turn.DONE
    assert (scripted.checks, scripted.told) == (1, [(True, "")])
    broken = Scripted()
    broken.locked = DENIED
    rounds = Rounds(broken)
    for _ in range(3):
        await rounds.turn()
    assert (broken.checks, broken.told) == (3, [(False, "AccessDenied")] * 3)


@pytest.mark.parametrize(
    ("ends", "left"),
    [
        ([Ended.WAITING], Turn.MORE),
        ([DENIED], Turn.FAILED),
        ([Ended.HELD], Turn.DONE),
        ([DecklogError(Code.INTERNAL, "A gap.")], Turn.FAILED),
    ],
)
async def test_archiver_round_asks_for_another_only_when_a_tenant_got_further(ends: list[Ended | Exception], left: Turn) -> None:
    assert await Rounds(Scripted(acme=ends)).turn() is left
