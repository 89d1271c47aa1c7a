"""What Shared tenants have together is looked at for many visits at once, and never told from before it was asked for."""

from __future__ import annotations

import asyncio

import pytest

from decklog.services.provisioning import _Joined


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
    joined = _Joined(shelf.observe)
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
    joined = _Joined(shelf.observe)
    asking = [asyncio.create_task(joined(name)) for name in ("a", "b")]
    await begun()
    assert shelf.looks == ["a", "b"]
    shelf.let_go.set()
    assert await asyncio.gather(*asking) == ["old", "old"]


async def test_a_look_that_fails_is_told_to_all_who_shared_it_and_the_next_one_looks_again() -> None:
    shelf = Shelf()
    shelf.let_go.set()
    shelf.there = "broken"
    joined = _Joined(shelf.observe)
    failed = await asyncio.gather(joined("shared"), joined("shared"), return_exceptions=True)
    assert [type(each) for each in failed] == [OSError, OSError]
    shelf.there = "mended"
    assert await joined("shared") == "mended"


async def test_one_who_gives_up_takes_the_look_from_nobody() -> None:
    shelf = Shelf()
    joined = _Joined(shelf.observe)
    asking = [asyncio.create_task(joined("shared")) for _ in range(2)]
    await begun()
    asking[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    shelf.let_go.set()
    assert await asking[1] == "old"
