"""Exports: everything and nothing twice, frozen at their start, whole or visibly broken, recorded at both ends."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.wire import CSV_COLUMNS
from decklog.services.records.export import Export
from decklog.services.records.export_form import CONTENT_TYPES
from decklog.services.records.reading import EXPORTS_MAX, EXPORTS_PER_TENANT_MAX
from tests.support.desk import REQUEST, Desk, desk

every_format = pytest.mark.parametrize("form", sorted(CONTENT_TYPES))


@contextmanager
def refused(code: Code) -> Iterator[None]:
    with pytest.raises(DecklogError) as error:
        yield
    assert error.value.code is code


async def begun(at: Desk, *parameters: tuple[str, str]) -> Export:
    return await at.reading.export(at.principal(), REQUEST, list(parameters))


async def whole(export: Export) -> bytes:
    return b"".join([chunk async for chunk in export])


def numbers(form: str, text: bytes) -> list[int]:
    if form == "csv":
        return [int(row["seq"]) for row in csv.DictReader(io.StringIO(text.decode(), newline=""), strict=True)]
    rows = json.loads(text) if form == "json" else map(json.loads, text.splitlines())
    return [row["seq"] for row in rows]


async def ends(at: Desk) -> list[tuple[str, str, Any]]:
    return [(item["action"], item["outcome"], item["metadata"].get("records")) for item in await at.accesses()]


@every_format
@pytest.mark.parametrize("count", [0, 1, 2, 5_000])
async def test_export_contains_every_record_once_oldest_first(form: str, count: int) -> None:
    async with desk() as at:
        for start in range(0, count, 1_000):
            await at.put(*[{"message": f"number {start + n}"} for n in range(min(1_000, count - start))])
        export = await begun(at, ("format", form))
        assert export.form.format == form
        assert export.form.content_type.split(";")[0] in ("application/x-ndjson", "application/json", "text/csv")
        assert export.filename == f"acme-events-{count}.{form}"
        assert numbers(form, await whole(export)) == list(range(count))
        assert await ends(at) == [("log.export.open", "success", None), ("log.export.close", "success", count)]


@every_format
async def test_export_ends_at_the_head_of_its_start(form: str) -> None:
    async with desk() as at:
        await at.put(*[{} for _ in range(1_000)])
        export = await begun(at, ("format", form))
        chunks: list[bytes] = []
        async for chunk in export:
            chunks.append(chunk)
            await at.put({})
        assert numbers(form, b"".join(chunks)) == list(range(1_000))


@every_format
async def test_export_filters_like_a_list(form: str) -> None:
    async with desk() as at:
        await at.put(*[{"message": "needle" if n % 3 else "hay", "severity": "ERROR" if n % 2 else "INFO"} for n in range(600)])
        await at.index_all()
        await at.put({"message": "a fresh needle", "severity": "ERROR"})
        wanted = [n for n in range(600) if n % 3 and n % 2] + [600]
        export = await begun(at, ("format", form), ("q", "needle"), ("severity", "ERROR"))
        assert numbers(form, await whole(export)) == wanted
        opened, closed = await at.accesses()
        for item in (opened, closed):
            assert item["metadata"]["filter"] == {"q": "severity:ERROR AND needle"}
            assert item["metadata"]["format"] == form


async def test_csv_export_has_its_columns_and_escapes_formulas() -> None:
    async with desk() as at:
        await at.put({"message": "=cmd|' /C calc'!A0", "actor": {"id": "@x"}}, {"message": 'a "quoted",\r\nline'})
        text = (await whole(await begun(at, ("format", "csv")))).decode()
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        assert tuple(header) == CSV_COLUMNS
        found = [dict(zip(header, row, strict=True)) for row in rows]
        assert [row["message"] for row in found] == ["'=cmd|' /C calc'!A0", 'a "quoted",\r\nline']
        assert found[0]["actor_id"] == "'@x"


@every_format
async def test_export_breaks_off_and_is_recorded_when_reading_fails(form: str) -> None:
    async with desk() as at:
        for _ in range(4):
            await at.put(*[{"message": "x" * 3_000} for _ in range(1_000)])
        export = await begun(at, ("format", form))
        chunks = [await anext(export), await anext(export)]
        at.store.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "Away.")
        with refused(Code.STORAGE_UNAVAILABLE):
            async for chunk in export:
                chunks.append(chunk)  # noqa: PERF401 - what came before the failure counts
        at.store.failing = None
        assert not b"".join(chunks).endswith(b"]\n")
        with pytest.raises(StopAsyncIteration):
            await anext(export)


async def test_export_withholds_its_last_bytes_when_its_end_cannot_be_recorded() -> None:
    for name in CONTENT_TYPES:
        async with desk() as at:
            await at.put({"message": "the only record"})
            export = await begun(at, ("format", name))
            at.store.failing_append = DecklogError(Code.OUTCOME_UNKNOWN, "Who knows.")
            chunks: list[bytes] = []
            with refused(Code.ACCESS_LOG_UNAVAILABLE):
                async for chunk in export:
                    chunks.append(chunk)  # noqa: PERF401 - what came before the failure counts
            at.store.failing_append = None
            assert b"the only record" not in b"".join(chunks)


async def test_export_ends_when_its_credential_is_withdrawn() -> None:
    async with desk() as at:
        for _ in range(5):
            await at.put(*[{"message": "x" * 3_000} for _ in range(1_000)])
        export = await begun(at)
        await anext(export)
        at.withdrawn.add("key-1")
        with refused(Code.UNAUTHENTICATED):
            await whole(export)
        assert (await ends(at))[-1][:2] == ("log.export.close", "failure")


@pytest.mark.parametrize("read", [0, 1, 2])
async def test_abandoned_export_is_recorded_with_its_number_of_records(read: int) -> None:
    async with desk() as at:
        for _ in range(5):
            await at.put(*[{"message": "x" * 3_000} for _ in range(1_000)])
        export = await begun(at)
        given = b"".join([await anext(export) for _ in range(read)]).count(b"\n")
        await export.aclose()
        await export.aclose()  # again is harmless
        assert await ends(at) == [("log.export.open", "success", None), ("log.export.close", "failure", given)]
        with pytest.raises(StopAsyncIteration):
            await anext(export)


async def test_export_is_recorded_when_its_reader_is_cancelled() -> None:
    async with desk() as at:
        await at.put(*[{} for _ in range(600)])
        export = await begun(at)
        at.store.seconds_per_read = 20.0
        task = asyncio.create_task(whole(export))
        while not at.store.reads:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        at.store.seconds_per_read = 0.0
        await at.access_log.stop()
        assert (await ends(at))[-1][:2] == ("log.export.close", "failure")


async def test_exports_at_once_are_limited_per_tenant_and_per_process() -> None:
    async with desk() as at:
        await at.put({})
        held = [await begun(at) for _ in range(EXPORTS_PER_TENANT_MAX)]
        with refused(Code.OVERLOADED):
            await begun(at)
        await at.reading.export(at.principal(at.rival), REQUEST, [])
        await whole(held.pop())
        held.append(await begun(at))  # one that has ended makes room
        await held.pop(0).aclose()
        held.append(await begun(at))
        assert EXPORTS_PER_TENANT_MAX < EXPORTS_MAX
        del held[:]
        gc.collect()
        await begun(at)  # what nobody holds does not count for ever


@every_format
async def test_export_memory_does_not_grow_with_the_number_of_records(form: str) -> None:
    async with desk(indexed=False) as at:
        for _ in range(20):
            await at.put(*[{"message": "x" * 2_000} for _ in range(500)])
        export = await begun(at, ("format", form))
        sizes = [len(chunk) async for chunk in export]
        assert sum(sizes) > 20_000_000
        assert max(sizes) < 6_000_000
