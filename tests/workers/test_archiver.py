"""The rounds of a worker that archives: what they tell of the archive, and that one tenant's trouble is not another's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from decklog.domain.archive.manifest import ArchiveError, ToArchive
from decklog.domain.errors import Code, DecklogError
from decklog.services.following.follow import Ended
from decklog.workers.duties import archiver
from decklog.workers.duties.archiver import _Rounds
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


async def test_a_round_gives_each_tenant_a_turn_whatever_becomes_of_the_others() -> None:
    scripted = Scripted(
        one=[DENIED, Ended.DONE], two=[Ended.WAITING, Ended.DONE], three=[TimeoutError(), Ended.HELD], four=[Ended.DONE]
    )
    rounds = _Rounds(scripted)
    assert await rounds.round() == (True, True)
    assert scripted.told == [(False, "AccessDenied")]
    assert set(scripted.left) == {"one", "two", "three"}
    assert await rounds.round() == (True, False)
    assert scripted.told[1:] == [(True, "")]
    assert set(scripted.left) == {"three"}


async def test_an_archive_that_nothing_is_written_to_is_looked_at_now_and_then_and_a_bad_one_each_time() -> None:
    scripted = Scripted()
    rounds = _Rounds(scripted)
    for _ in range(3):
        assert await rounds.round() == (False, False)
    assert (scripted.checks, scripted.told) == (1, [(True, "")])
    broken = Scripted()
    broken.locked = DENIED
    rounds = _Rounds(broken)
    for _ in range(3):
        await rounds.round()
    assert (broken.checks, broken.told) == (3, [(False, "AccessDenied")] * 3)


@pytest.mark.parametrize(
    ("turns", "waits"),
    [
        ([Ended.WAITING, Ended.WAITING, Ended.DONE], [0, 0, 0, 5]),
        ([DENIED, DENIED, Ended.DONE], [5, 10, 0, 5]),
        ([Ended.HELD, DecklogError(Code.INTERNAL, "A gap.")], [5, 5]),
    ],
)
async def test_what_failed_is_tried_again_ever_later_and_what_goes_on_goes_on_at_once(
    turns: list[Ended | Exception], waits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    class EnoughError(Exception):
        pass

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == len(waits):
            raise EnoughError

    uniform: Callable[[float, float], float] = lambda low, high: 1.0  # noqa: E731
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(random, "uniform", uniform)
    with pytest.raises(EnoughError):
        await archiver.keep_archiving(Scripted(acme=turns))
    assert slept == waits
