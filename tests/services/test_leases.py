"""Leases: one holder at a time, renewed while a block runs, and a block that ends with its lease."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from decklog.domain.consumers import Cursor
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.services.following.leases import Held, LeaseLostError, leased
from tests.support.memory import make_tenant
from tests.support.memory_store import MemoryCursors, MemoryStore

EVENTS, ACCESS = LogName.EVENTS, LogName.ACCESS
ACME = make_tenant("acme")
SHORT_SECONDS = 0.06


class FlakyCursors(MemoryCursors):
    """Leases by a clock moved by hand; the database can be away, and each renewal is counted."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        super().__init__(MemoryStore(ACME), now=lambda: self.now)
        self.failing: DecklogError | None = None
        self.asked = 0

    async def lease(self, consumer: str, tenant_id: int, log: LogName, *, owner: str, seconds: float) -> Cursor | None:
        self.asked += 1
        if self.failing is not None:
            raise self.failing
        return await super().lease(consumer, tenant_id, log, owner=owner, seconds=seconds)

    async def release(self, cursor: Cursor) -> None:
        if self.failing is not None:
            raise self.failing
        await super().release(cursor)

    def owner(self, log: LogName = EVENTS) -> str:
        return self._leases["test", ACME.id, log].owner

    def give_to(self, owner: str, log: LogName = EVENTS) -> None:
        self._leases["test", ACME.id, log].owner = owner


async def hold(cursors: MemoryCursors, owner: str, *logs: LogName, seconds: float = 30.0) -> Held | None:
    """The cursors of a block that ends at once."""
    async with leased(cursors, "test", ACME, logs or (EVENTS,), owner=owner, seconds=seconds) as held:
        return held


async def test_leased_yields_the_cursors_and_releases_them_after_the_block() -> None:
    cursors = FlakyCursors()
    async with leased(cursors, "test", ACME, [EVENTS, ACCESS], owner="one") as held:
        assert held is not None
        assert list(held) == [EVENTS, ACCESS]
        assert await hold(cursors, "two") is None
    assert await hold(cursors, "two") is not None


async def test_leased_yields_none_and_releases_the_others_when_one_lease_is_held_elsewhere() -> None:
    cursors = FlakyCursors()
    async with leased(cursors, "test", ACME, [ACCESS], owner="one"):
        assert await hold(cursors, "two", EVENTS, ACCESS) is None
        assert cursors.owner(EVENTS) == ""
        assert cursors.owner(ACCESS) == "one"


async def test_leased_renews_while_the_block_runs_longer_than_the_lease() -> None:
    cursors = FlakyCursors()
    async with leased(cursors, "test", ACME, [EVENTS], owner="one", seconds=SHORT_SECONDS):
        for _ in range(4):
            asked = cursors.asked
            cursors.now += timedelta(seconds=SHORT_SECONDS * 0.9)
            async with asyncio.timeout(10):
                while cursors.asked == asked:
                    await asyncio.sleep(0.001)
            assert await hold(cursors, "two", seconds=SHORT_SECONDS) is None


async def test_leased_cancels_the_block_and_raises_when_another_owner_takes_the_lease() -> None:
    cursors, cancelled = FlakyCursors(), asyncio.Event()

    async def work() -> None:
        async with leased(cursors, "test", ACME, [EVENTS], owner="one", seconds=SHORT_SECONDS):
            cursors.give_to("two")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(work(), 10)
    assert cancelled.is_set()
    assert cursors.owner() == "two"


async def test_leased_cancels_the_block_only_when_renewals_have_failed_for_the_whole_lease() -> None:
    cursors = FlakyCursors()
    began = asyncio.get_running_loop().time()

    async def work() -> None:
        async with leased(cursors, "test", ACME, [EVENTS], owner="one", seconds=SHORT_SECONDS):
            cursors.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
            await asyncio.Event().wait()

    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(work(), 10)
    assert asyncio.get_running_loop().time() - began >= SHORT_SECONDS


async def test_leased_raises_what_a_renewal_raises_that_must_not_happen() -> None:
    class Broken(FlakyCursors):
        async def lease(self, consumer: str, tenant_id: int, log: LogName, *, owner: str, seconds: float) -> Cursor | None:
            if self.asked:
                raise RuntimeError("a defect")
            return await super().lease(consumer, tenant_id, log, owner=owner, seconds=seconds)

    with pytest.raises(RuntimeError, match="a defect"):
        async with asyncio.timeout(10), leased(Broken(), "test", ACME, [EVENTS], owner="one", seconds=SHORT_SECONDS):
            await asyncio.Event().wait()


async def test_leased_passes_on_a_timeout_of_the_block_itself() -> None:
    with pytest.raises(TimeoutError):
        async with leased(FlakyCursors(), "test", ACME, [EVENTS], owner="one"), asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_leased_releases_when_the_caller_is_cancelled() -> None:
    cursors, entered = FlakyCursors(), asyncio.Event()

    async def work() -> None:
        async with leased(cursors, "test", ACME, [EVENTS], owner="one"):
            entered.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await entered.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert cursors.owner() == ""


async def test_leased_keeps_the_lease_after_success_only_when_asked_to() -> None:
    cursors = FlakyCursors()
    async with leased(cursors, "test", ACME, [EVENTS], owner="one", release_on_success=False):
        pass
    assert cursors.owner() == "one"
    with pytest.raises(RuntimeError):
        async with leased(cursors, "test", ACME, [EVENTS], owner="one", release_on_success=False):
            raise RuntimeError
    assert cursors.owner() == ""


async def test_leased_block_succeeds_when_the_release_fails() -> None:
    cursors = FlakyCursors()
    async with leased(cursors, "test", ACME, [EVENTS], owner="one") as held:
        cursors.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
    assert held is not None
