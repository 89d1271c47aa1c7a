"""Access records of ranges that were dropped: one for each, whatever happens between the record and its note."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.ageing import DroppedRange
from decklog.services.records.drop_records import DropRecords
from tests.support.desk import Desk, desk
from tests.support.memory_drops import MemoryDrops

DAY = datetime(2026, 1, 5, tzinfo=UTC)


def gone(tenant_id: int, first: int = 0, log: LogName = LogName.EVENTS) -> DroppedRange:
    since = DAY + timedelta(days=first)
    return DroppedRange(tenant_id, log, since, since + timedelta(days=1), first, first + 4, DAY + timedelta(days=40))


def writer(at: Desk, drops: MemoryDrops) -> DropRecords:
    return DropRecords(drops, at.ingest, tenant_now=at.tenant_now, platform=lambda: at.platform)


async def test_each_range_has_one_record_in_the_access_log_of_its_tenant() -> None:
    drops = MemoryDrops()
    async with desk() as at:
        drops.ranges = [gone(at.acme.id), gone(at.acme.id, 4, LogName.ACCESS), gone(at.rival.id)]
        assert await writer(at, drops).write() == 3
        assert await writer(at, drops).write() == 0
        first, second = await at.accesses()
        assert (first["action"], first["resource"], first["actor"]["id"]) == (
            "retention.drop",
            {"type": "log", "id": "events"},
            "keeper",
        )
        assert first["metadata"] == {
            "tenant_id": at.acme.id,
            "from": "2026-01-05T00:00:00.000000Z",
            "to": "2026-01-06T00:00:00.000000Z",
            "first_seq": 0,
            "end_seq": 4,
            "records": 4,
            "dropped_at": "2026-02-14T00:00:00.000000Z",
        }
        assert second["resource"]["id"] == "access"
        assert len(await at.accesses(at.rival)) == 1


async def test_range_whose_note_was_lost_is_not_recorded_twice() -> None:
    drops = MemoryDrops()
    async with desk() as at:
        drops.ranges = [gone(at.acme.id)]
        await writer(at, drops).write()
        drops.recorded.clear()  # killed between the record and its note
        await writer(at, drops).write()
        assert len(await at.accesses()) == 1
        assert drops.recorded == set(drops.ranges)


async def test_range_of_a_deleted_tenant_is_recorded_by_the_platform() -> None:
    drops = MemoryDrops()
    async with desk() as at:
        del at.tenants[at.acme.id]
        drops.ranges = [gone(at.acme.id)]
        await writer(at, drops).write()
        [record] = await at.accesses(at.platform)
        assert record["metadata"]["tenant_id"] == at.acme.id


async def test_ranges_stay_unrecorded_while_the_database_is_away() -> None:
    drops = MemoryDrops()
    async with desk() as at:
        drops.ranges = [gone(at.acme.id)]
        drops.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
        with pytest.raises(DecklogError):
            await writer(at, drops).write()
        drops.failing = None
        assert await writer(at, drops).write() == 1


async def test_records_are_written_soon_after_the_start() -> None:
    drops = MemoryDrops()
    async with desk() as at:
        drops.ranges = [gone(at.acme.id)]
        writing = DropRecords(drops, at.ingest, tenant_now=at.tenant_now, platform=lambda: at.platform, interval=0.01)
        await writing.start()
        for further in (gone(at.acme.id, 4), None):
            async with asyncio.timeout(20):
                while drops.recorded != set(drops.ranges):
                    await asyncio.sleep(0.005)
            drops.ranges += [further] if further is not None else []
        await writing.stop()
        assert len(await at.accesses()) == 2
