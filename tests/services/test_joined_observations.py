"""What Shared tenants have together is looked at for many visits at once, and never told from before it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from decklog.services.tenancy.observations import Gathered, Joined


class Shelf:
    """What is looked at: each look takes until it is let go, and gives what stood there when it began."""

    def __init__(self) -> None:
        self.there = "old"
        self.looks: list[str] = []
        self.let_go = asyncio.Event()

    async def observe(self, name: str) -> str:
        self.looks.append(name)
        seen = self.there
        await self.let_go.wait()
        if seen == "broken":
            raise OSError(seen)
        return seen


async def begun() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_many_who_ask_while_one_looks_are_answered_by_one_more_look_at_what_is_there_then() -> None:
    shelf = Shelf()
    joined = Joined(shelf.observe)
    first = asyncio.create_task(joined("shared"))
    await begun()
    shelf.there = "new"
    others = [asyncio.create_task(joined("shared")) for _ in range(20)]
    await begun()
    shelf.let_go.set()
    assert await first == "old"
    assert await asyncio.gather(*others) == ["new"] * 20
    assert shelf.looks == ["shared", "shared"]


async def test_different_names_do_not_wait_for_each_other() -> None:
    shelf = Shelf()
    joined = Joined(shelf.observe)
    asking = [asyncio.create_task(joined(name)) for name in ("a", "b")]
    await begun()
    assert shelf.looks == ["a", "b"]
    shelf.let_go.set()
    assert await asyncio.gather(*asking) == ["old", "old"]


async def test_a_look_that_fails_is_told_to_all_who_shared_it_and_the_next_one_looks_again() -> None:
    shelf = Shelf()
    shelf.let_go.set()
    shelf.there = "broken"
    joined = Joined(shelf.observe)
    failed = await asyncio.gather(joined("shared"), joined("shared"), return_exceptions=True)
    assert [type(each) for each in failed] == [OSError, OSError]
    shelf.there = "mended"
    assert await joined("shared") == "mended"


async def test_one_who_gives_up_takes_the_look_from_nobody() -> None:
    shelf = Shelf()
    joined = Joined(shelf.observe)
    asking = [asyncio.create_task(joined("shared")) for _ in range(2)]
    await begun()
    asking[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    shelf.let_go.set()
    assert await asking[1] == "old"


async def test_who_asks_a_moment_after_a_look_waits_for_others_who_ask_too() -> None:
    shelf = Shelf()
    shelf.let_go.set()
    joined = Joined(shelf.observe)
    await joined("shared")
    shelf.there = "new"
    early = asyncio.create_task(joined("shared"))
    await begun()
    assert shelf.looks == ["shared"]
    assert await joined("shared") == await early == "new"
    assert shelf.looks == ["shared"] * 2
    assert await joined("shared") == "new"
    assert shelf.looks == ["shared"] * 3


async def test_all_who_ask_while_a_question_is_under_way_are_in_the_next_one_and_each_gets_his_own_answer() -> None:
    questions: list[list[int]] = []
    let_go = asyncio.Event()

    async def double(asked: Sequence[int]) -> list[int]:
        questions.append(list(asked))
        await let_go.wait()
        return [2 * each for each in asked]

    gathered = Gathered(double)
    first = asyncio.create_task(gathered(1))
    await begun()
    others = [asyncio.create_task(gathered(each)) for each in (2, 3, 4)]
    await begun()
    others[1].cancel()
    let_go.set()
    assert (await first) == 2
    assert list(await asyncio.gather(others[0], others[2])) == [4, 8]
    assert questions == [[1], [2, 3, 4]]


async def test_a_question_that_fails_is_told_to_all_of_its_group_and_the_next_one_is_asked() -> None:
    broken = True

    async def same(asked: Sequence[int]) -> Sequence[int]:
        if broken:
            raise OSError("broken")
        return asked

    gathered = Gathered(same)
    failed = await asyncio.gather(gathered(1), gathered(2), return_exceptions=True)
    assert [type(each) for each in failed] == [OSError, OSError]
    broken = False
    assert await gathered(3) == 3
