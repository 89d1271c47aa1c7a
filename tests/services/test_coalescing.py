"""Request coalescing: how many calls are made, for whom, and what each caller gets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from decklog.services.coalescing import Coalescing, shared

GAP_SECONDS = 0.05


class Backend:
    """What is called: each call lasts until `gate` is set, and answers with the state of the moment when it began."""

    def __init__(self) -> None:
        self.state = "old"
        self.calls: list[str] = []
        self.began: list[float] = []
        self.gate = asyncio.Event()

    async def observe(self, name: str) -> str:
        self.calls.append(name)
        self.began.append(asyncio.get_running_loop().time())
        seen = self.state
        await self.gate.wait()
        if seen == "broken":
            raise OSError(seen)
        return seen

    def by_name(self, *, gap: float = 0.0, seconds_max: float | None = None) -> Coalescing[str, str]:
        return Coalescing(shared(self.observe), key=str, gap=lambda _: gap, seconds_max=seconds_max)


async def settled() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_callers_during_a_call_share_the_next_call_and_get_its_result() -> None:
    backend = Backend()
    observed = backend.by_name()
    first = asyncio.create_task(observed("shared"))
    await settled()
    backend.state = "new"
    others = [asyncio.create_task(observed("shared")) for _ in range(20)]
    await settled()
    backend.gate.set()
    assert await first == "old"
    assert await asyncio.gather(*others) == ["new"] * 20
    assert backend.calls == ["shared", "shared"]


async def test_callers_of_different_keys_do_not_wait_for_each_other() -> None:
    backend = Backend()
    observed = backend.by_name()
    asking = [asyncio.create_task(observed(name)) for name in ("a", "b")]
    await settled()
    assert backend.calls == ["a", "b"]
    backend.gate.set()
    assert await asyncio.gather(*asking) == ["old", "old"]


async def test_failed_call_is_raised_by_all_its_callers_and_the_next_caller_causes_a_new_one() -> None:
    backend = Backend()
    backend.gate.set()
    backend.state = "broken"
    observed = backend.by_name()
    failed = await asyncio.gather(observed("shared"), observed("shared"), return_exceptions=True)
    assert [type(each) for each in failed] == [OSError, OSError]
    backend.state = "mended"
    assert await observed("shared") == "mended"


async def test_cancelled_caller_takes_the_call_from_no_other_caller() -> None:
    backend = Backend()
    observed = backend.by_name()
    asking = [asyncio.create_task(observed("shared")) for _ in range(2)]
    await settled()
    asking[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    backend.gate.set()
    assert await asking[1] == "old"
    assert backend.calls == ["shared"]


async def test_caller_within_the_gap_shares_the_call_after_it() -> None:
    backend = Backend()
    backend.gate.set()
    observed = backend.by_name(gap=GAP_SECONDS)
    await observed("shared")
    backend.state = "new"
    early = asyncio.create_task(observed("shared"))
    await settled()
    assert backend.calls == ["shared"]
    assert await observed("shared") == await early == "new"
    assert backend.calls == ["shared"] * 2
    await asyncio.sleep(GAP_SECONDS)
    assert await observed("shared") == "new"
    assert all(later - earlier >= 0.9 * GAP_SECONDS for earlier, later in zip(backend.began, backend.began[1:], strict=False))


async def test_call_that_takes_too_long_times_out_for_its_callers() -> None:
    observed = Backend().by_name(seconds_max=0.01)
    with pytest.raises(TimeoutError):
        await observed("shared")


async def test_coalescing_keeps_nothing_of_keys_that_nobody_waits_for() -> None:
    backend = Backend()
    backend.gate.set()
    observed = backend.by_name()
    await asyncio.gather(*(observed(str(number)) for number in range(100)))
    await settled()
    assert not observed._serving
    assert not observed._waiting


async def test_callers_during_a_call_form_one_group_without_those_that_gave_up() -> None:
    groups: list[list[int]] = []
    gate = asyncio.Event()

    async def double(asked: Sequence[int]) -> list[int]:
        groups.append(list(asked))
        await gate.wait()
        return [2 * each for each in asked]

    doubled = Coalescing(double)
    first = asyncio.create_task(doubled(1))
    await settled()
    others = [asyncio.create_task(doubled(each)) for each in (2, 3, 4)]
    await settled()
    others[1].cancel()
    gate.set()
    assert await first == 2
    assert list(await asyncio.gather(others[0], others[2])) == [4, 8]
    assert groups == [[1], [2, 4]]


async def test_group_is_cut_at_its_bound_and_the_rest_is_the_next_group() -> None:
    groups: list[list[int]] = []

    async def same(asked: Sequence[int]) -> Sequence[int]:
        groups.append(list(asked))
        return asked

    coalesced = Coalescing(same, group_max=2)
    assert await asyncio.gather(*(coalesced(each) for each in range(5))) == list(range(5))
    assert groups == [[0, 1], [2, 3], [4]]


async def test_failed_group_is_raised_by_all_its_callers_and_the_next_group_is_asked() -> None:
    broken = True

    async def same(asked: Sequence[int]) -> Sequence[int]:
        if broken:
            raise OSError("broken")
        return asked

    coalesced = Coalescing(same)
    failed = await asyncio.gather(coalesced(1), coalesced(2), return_exceptions=True)
    assert [type(each) for each in failed] == [OSError, OSError]
    broken = False
    assert await coalesced(3) == 3
