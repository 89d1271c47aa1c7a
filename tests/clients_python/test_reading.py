"""Readers return typed records, follow pages, and resume streams and exports without a gap or a double."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.identity.access import Role
from decklog_client import AsyncReader, Decklog, Reader, Record, ServerError
from decklog_client.reading import Export, Lines, Pages, Patience, Tail, plain
from tests.support.api_world import World


def appended(world: World, *actions: str) -> None:
    body = [{"action": action, "actor": {"id": "alice"}, "metadata": {"big": 2**70, "text": "a\u2028b"}} for action in actions]
    headers = {"authorization": f"Bearer {world.keys['acme', Role.WRITER]}"}
    httpx.post(world.url + "/api/v1/logs/bulk", json=body, headers=headers).raise_for_status()


def reader(world: World) -> Reader:
    return Reader(url=world.url, key=world.keys["acme", Role.AUDITOR])


def asynchronous(world: World) -> AsyncReader:
    return AsyncReader(url=world.url, key=world.keys["acme", Role.AUDITOR])


async def test_reader_searches_page_by_page_and_exports_in_order(world: World) -> None:
    def read() -> tuple[list[int], list[int], list[Record], list[int]]:
        appended(world, *(f"order.{'ab'[i % 2]}" for i in range(25)))
        with reader(world) as log:
            found = [record.seq for record in log.search("action:order.a", {"limit": 4})]
            few = [record.seq for record in log.search(limit=5)]
            return found, few, list(log.export()), [record.seq for record in log.export("action:order.b", after=19)]

    found, few, exported, rest = await asyncio.to_thread(read)
    assert found == list(range(24, -1, -2))
    assert few == [24, 23, 22, 21, 20]
    assert [record.seq for record in exported] == list(range(25))
    assert rest == [21, 23]
    first = exported[0]
    assert (first.action, first.actor.id, first.tenant, first.severity) == ("order.a", "alice", "acme", "INFO")
    assert first.metadata == {"big": 2**70, "text": "a\u2028b"}
    assert first.received_at is not None
    assert first.recorded_by is not None


async def test_async_reader_reads_as_the_other_does(world: World) -> None:
    await asyncio.to_thread(appended, world, "a", "b", "c")
    async with asynchronous(world) as log:
        assert [record.seq async for record in log.search(limit=2)] == [2, 1]
        assert [record.seq async for record in log.export()] == [0, 1, 2]
        seen: list[Record] = []
        async for record in log.tail(after=-1):
            seen.append(record)
            if record.seq == 2:
                await asyncio.to_thread(appended, world, "d")
            if record.seq == 3:
                break
        assert [record.seq for record in seen] == [0, 1, 2, 3]
        async for record in log.tail("action:d OR action:c", after=seen[1].position):
            assert record.seq == 2
            break


async def test_tail_of_threads_sees_new_records(world: World) -> None:
    def follow() -> list[str]:
        with reader(world) as log:
            stream = log.tail(after=-1)
            return [next(stream).action for _ in range(2)]

    following = asyncio.create_task(asyncio.to_thread(follow))
    await asyncio.to_thread(appended, world, "a")
    await asyncio.to_thread(appended, world, "b")
    assert await following == ["a", "b"]


async def test_reader_raises_what_the_server_refuses(world: World) -> None:
    def refused() -> tuple[str, str, str]:
        with reader(world) as log, pytest.raises(ServerError) as query:
            next(log.search("severity:LOUD"))
        with Reader(url=world.url, key="wrong") as log, pytest.raises(ServerError) as key:
            next(log.tail())
        with Reader(url="http://127.0.0.1:1", key="x", outage_max=0.0) as log, pytest.raises(ServerError) as away:
            next(log.export())
        return query.value.code, key.value.code, away.value.code

    assert await asyncio.to_thread(refused) == ("invalid-query", "unauthenticated", "unreachable")


async def test_client_has_a_reader_with_its_credential(world: World, tmp_path: Path) -> None:
    audit = Decklog(url=world.url, key=world.keys["acme", Role.ADMIN], spool=tmp_path)

    def use() -> list[str]:
        audit.record("a.b", actor="alice")
        audit.commit(20)
        with audit.reader() as log:
            return [record.action for record in log.search()]

    assert await asyncio.to_thread(use) == ["a.b"]
    await asyncio.to_thread(audit.close)


def events(count: int) -> Iterator[tuple[str, bytes]]:
    """Events of a stream, each with the position behind it."""
    yield "p.-1", b'retry: 1000\nid: p.-1\nevent: opened\ndata: {"position":"p.-1"}\n\n'
    for seq in range(count):
        yield f"p.{seq}", f'id: p.{seq}\nevent: record\ndata: {{"seq":{seq},"message":"a\u2028b"}}\n\n'.encode()


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(1, 50)), max_size=6), st.integers(0, 8))
def test_tail_that_breaks_anywhere_returns_each_record_once(breaks: list[tuple[int, int]], count: int) -> None:
    """The server resumes after `after`; each connection breaks after some bytes, which come in pieces."""
    tail = Tail("", None, -1)
    seen: list[int] = []
    for length, piece in [*breaks, (10**6, 100)]:
        after = int(dict(tail.begin())["after"].removeprefix("p."))
        body = b"".join(
            event for position, event in events(count) if int(position[2:]) > after or position == "p.-1" == f"p.{after}"
        )
        body = body[:length]
        for at in range(0, len(body), piece):
            seen += [record.seq for record in tail.feed(body[at : at + piece])]
    assert seen == list(range(count))


def test_tail_keeps_the_position_of_heartbeats_and_raises_problems() -> None:
    tail = Tail("q", {"severity": ["ERROR", "INFO"]}, None)
    assert tail.begin() == (("severity", "ERROR"), ("severity", "INFO"), ("q", "q"))
    assert list(tail.feed(b'event: heartbeat\nid: p.7\ndata: {"position":"p.7"}\n\n')) == []
    assert dict(tail.begin())["after"] == "p.7"
    with pytest.raises(ServerError) as caught:
        list(tail.feed(b'event: problem\ndata: {"code":"tenant-suspended","detail":"no","status":403}\n\n'))
    assert (caught.value.code, caught.value.status) == ("tenant-suspended", 403)


@given(st.integers(0, 400), st.integers(1, 30))
def test_export_that_breaks_anywhere_returns_each_record_of_the_first_head_once(length: int, piece: int) -> None:
    lines = [json.dumps({"seq": seq}).encode() + b"\n" for seq in range(12)]
    export = Export("", None, None)
    export.begin()
    export.opened("1.1769860800123456.7")
    seen: list[int] = []
    body = b"".join(lines[:8])[:length]
    for at in range(0, len(body), piece):
        seen += [record.seq for record in export.feed(body[at : at + piece])]
    after = int(dict(export.begin()).get("after", -1))
    export.opened("1.1769860800123999.11")
    seen += [record.seq for record in export.feed(b"".join(lines[after + 1 :]))]
    seen += [record.seq for record in export.end()]
    assert seen == list(range(8))


def test_pages_stop_at_the_limit_and_ask_for_no_more() -> None:
    pages = Pages("q", {"from": "2026-01-01T00:00:00Z"}, 3)
    assert json.loads(pages.body()) == {"query": "q", "from": "2026-01-01T00:00:00Z", "limit": 3}
    answer: dict[str, Any] = {"items": [{"seq": 1}, {"seq": 0}], "next": "c"}
    assert len(pages.take(json.dumps(answer).encode())) == 2
    assert json.loads(pages.body())["limit"] == 1
    assert json.loads(pages.body())["cursor"] == "c"
    assert len(pages.take(json.dumps(answer).encode())) == 1
    assert pages.done
    assert Pages("", None, 0).done


def test_patience_ends_with_the_outage_and_at_once_where_waiting_never_helps() -> None:
    patience = Patience(60.0)
    passing = ServerError("overloaded", "", status=503, retry_after=7.0)
    assert patience.delay(passing) == 7.0
    patience.progress()
    with pytest.raises(ServerError):
        patience.delay(ServerError("forbidden", "", status=403))
    assert Patience(60.0).delay(ServerError("unreachable", "")) < 1.0


def test_lines_of_any_length_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decklog_client.reading.LINE_BYTES_MAX", 10)
    with pytest.raises(ServerError, match="more than"):
        Lines().feed(b"x" * 11)


def test_parameters_are_repeated_and_empty_ones_left_out() -> None:
    assert plain({"a": ["x", "y"], "b": 1}, q="", after=None) == (("a", "x"), ("a", "y"), ("b", "1"))
