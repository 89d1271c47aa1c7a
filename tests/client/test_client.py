"""The client returns typed answers and raises the errors of the server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from decklog.client.client import Client
from decklog.client.server_events import events as events_of
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from tests.support.api_world import World, running_world

RECORD = {"action": "a.b", "actor": {"id": "alice"}, "severity": "INFO"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as made:
        yield made


def client(world: World, role: Role = Role.ADMIN, tenant: str | None = "acme") -> Client:
    return Client(world.url, world.keys[tenant, role])


def record(**fields: Any) -> bytes:
    return json.dumps({**RECORD, **fields}).encode()


async def test_client_reads_an_appended_record_in_every_way(world: World) -> None:
    async with client(world) as api:
        one = await api.append(record(id="x"))
        assert (one.seq, one.status, one.tenant, one.log) == (0, "stored", "acme", "events")
        assert (await api.append(record(id="x"))).status == "duplicate"
        bulk = await api.append_bulk([record(id="x"), record(id="y"), record(action="")])
        assert (bulk.stored, bulk.duplicates, bulk.rejected) == (1, 1, 1)
        assert [(item.status, item.seq) for item in bulk.items] == [("duplicate", 0), ("stored", 1), ("rejected", None)]
        assert bulk.items[2].error is not None
        assert bulk.items[2].error.code == Code.INVALID_RECORD
        page = await api.list({"action": "a.*", "severity": ["INFO", "ERROR"]})
        assert [item.seq for item in page.items] == [1, 0]
        assert page.head == 2
        assert (await api.get(0)).id == "x"
        stats = await api.stats({"by": "action"})
        assert [(bucket.key, bucket.count) for bucket in stats.buckets] == [(["a.b"], 2)]
        async with api.export({"format": "ndjson"}) as pieces:
            lines = b"".join([piece async for piece in pieces]).splitlines()
        assert [json.loads(line)["id"] for line in lines] == ["x", "y"]


async def test_client_returns_the_items_of_a_bulk_of_which_every_record_is_rejected(world: World) -> None:
    async with client(world) as api:
        bulk = await api.append_bulk([record(action=""), b"{}"])
        assert (bulk.stored, bulk.rejected) == (0, 2)
        assert [item.status for item in bulk.items] == ["rejected", "rejected"]


async def test_client_retry_with_an_idempotency_key_returns_duplicates(world: World) -> None:
    async with client(world) as api:
        first = await api.append_bulk([record(), record()], idempotency_key="k")
        again = await api.append_bulk([record(), record()], idempotency_key="k")
        assert [item.status for item in again.items] == ["duplicate"] * 2
        assert [item.seq for item in again.items] == [item.seq for item in first.items]


async def test_client_iterates_over_all_pages(world: World) -> None:
    async with client(world) as api:
        await api.append_bulk([record(id=str(number)) for number in range(25)])
        assert [item.seq async for item in api.records({"limit": 10})] == list(range(24, -1, -1))


async def test_client_returns_the_identity_of_the_credential(world: World) -> None:
    async with client(world, Role.WRITER) as api:
        who = await api.whoami()
        assert (who.tenant, who.role, who.permissions) == ("acme", "writer", ["append"])
    async with client(world, Role.PLATFORM, None) as api:
        assert (await api.whoami()).tenant is None
        assert {tenant.name for tenant in await api.tenants()} >= {"acme", "other"}


async def test_client_raises_the_error_of_the_server(world: World) -> None:
    async with client(world, Role.WRITER) as api:
        with pytest.raises(DecklogError) as error:
            await api.list()
        assert error.value.code is Code.FORBIDDEN
        with pytest.raises(DecklogError) as error:
            await api.append_bulk([record(), record(action="")], atomic=True)
        assert error.value.code is Code.BATCH_REJECTED
        assert [item["index"] for item in error.value.extra["errors"]] == [1]
    async with client(world) as api:
        for asked, code in (({"colour": "red"}, Code.UNKNOWN_PARAMETER), ({"limit": "0"}, Code.INVALID_PARAMETER)):
            with pytest.raises(DecklogError) as error:
                await api.list(asked)
            assert error.value.code is code
        with pytest.raises(DecklogError) as error:
            await api.get(99)
        assert error.value.code is Code.NOT_FOUND
        with pytest.raises(DecklogError) as error:
            async with api.export({"format": "xml"}):
                pass
        assert error.value.code is Code.INVALID_PARAMETER
    async with Client(world.url, "dlk_unknown_key") as api:
        with pytest.raises(DecklogError) as error:
            await api.whoami()
        assert error.value.code is Code.UNAUTHENTICATED


async def test_client_raises_storage_unavailable_when_nothing_listens() -> None:
    async with Client("http://127.0.0.1:1", "key") as api:
        with pytest.raises(DecklogError) as error:
            await api.whoami()
        assert error.value.code is Code.STORAGE_UNAVAILABLE
        assert "127.0.0.1:1" in error.value.detail


def answering(status: int, body: bytes = b"", **headers: str) -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(status, content=body, headers=headers))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, Code.UNAUTHENTICATED),
        (404, Code.NOT_FOUND),
        (413, Code.BODY_TOO_LARGE),
        (418, Code.INTERNAL),
        (429, Code.RATE_LIMITED),
        (500, Code.INTERNAL),
        (502, Code.OUTCOME_UNKNOWN),
        (503, Code.OUTCOME_UNKNOWN),
    ],
)
async def test_client_maps_a_proxys_status_to_a_code(status: int, code: Code) -> None:
    transport = answering(status, b"<html>", **{"retry-after": "7"})
    async with Client("https://decklog.example.com", "key", transport=transport) as api:
        with pytest.raises(DecklogError) as error:
            await api.whoami()
        assert error.value.code is code
        assert error.value.retry_after == 7


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"{}", b"", b"[]"])
async def test_client_raises_internal_for_a_foreign_answer(body: bytes) -> None:
    async with Client("https://decklog.example.com", "key", transport=answering(200, body)) as api:
        with pytest.raises(DecklogError) as error:
            await api.whoami()
        assert error.value.code is Code.INTERNAL


async def test_client_raises_when_a_bulk_answer_lacks_results() -> None:
    body = b'{"stored":1,"duplicates":0,"rejected":0,"items":[{"status":"stored","seq":0}]}'
    async with Client("https://decklog.example.com", "key", transport=answering(200, body)) as api:
        with pytest.raises(DecklogError, match="returned 1 results for 2 records"):
            await api.append_bulk([b"{}", b"{}"])


async def test_client_raises_internal_for_an_unknown_code() -> None:
    body = b'{"code":"brand-new","detail":"d","status":422}'
    async with Client("https://decklog.example.com", "key", transport=answering(422, body)) as api:
        with pytest.raises(DecklogError) as error:
            await api.whoami()
        assert error.value.code is Code.INTERNAL


async def test_client_raises_outcome_unknown_when_the_connection_breaks() -> None:
    def breaks(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset", request=request)

    async with Client("https://decklog.example.com", "key", transport=httpx.MockTransport(breaks)) as api:
        with pytest.raises(DecklogError) as error:
            await api.append(b"{}")
        assert error.value.code is Code.OUTCOME_UNKNOWN


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x1c", "\x0b", "\r", "\n"])
async def test_client_stream_returns_a_record_with_any_line_separator_whole(world: World, separator: str) -> None:
    async with client(world) as api, api.stream() as records:
        await api.append(record(message=f"first{separator}second"))
        assert (await anext(records)).message == f"first{separator}second"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
async def test_client_stream_reads_events_by_every_line_end_in_pieces_of_any_size(end: str, size: int) -> None:
    events = [
        "retry: 1000",
        "event: open",
        "data: {}",
        "",
        ": a comment",
        "event:heartbeat",
        "data:x",
        "data: y",
        "",
        "data",
        "data",
        "",
    ]
    text = "".join(line + end for line in events).encode()
    pieces = (text[at : at + size] for at in range(0, len(text), size))

    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    found = [(event.kind, event.data) async for event in events_of(httpx.Response(200, content=arriving()))]
    assert found == [("open", b"{}"), ("heartbeat", b"x\ny"), ("", b"\n")]


@pytest.mark.parametrize("name", ["problem", "error"])
async def test_client_stream_raises_the_problem_that_ended_it(name: str) -> None:
    problem = {"type": "t", "title": "t", "status": 403, "code": "forbidden", "detail": "d", "instance": "i"}
    body = f"event: opened\ndata: {{}}\n\nevent: {name}\ndata: {json.dumps(problem)}\n\n".encode()
    async with Client("https://decklog.example.com", "key", transport=answering(200, body)) as api, api.stream() as records:
        with pytest.raises(DecklogError) as error:
            await anext(records)
        assert error.value.code is Code.FORBIDDEN


@pytest.mark.parametrize("url", ["", "decklog.example.com", "ftp://x", "http://", "https://user:hunter2@x", "file:///x"])
def test_client_refuses_a_malformed_url(url: str) -> None:
    with pytest.raises(DecklogError) as error:
        Client(url, "key")
    assert error.value.code is Code.MISCONFIGURED
    assert "hunter2" not in error.value.detail


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel"])
def test_client_refuses_a_malformed_key_without_showing_it(key: str) -> None:
    with pytest.raises(DecklogError) as error:
        Client("http://x", key)
    assert error.value.code is Code.MISCONFIGURED
    assert not key or key not in error.value.detail


def test_client_strips_query_and_fragment_from_the_url() -> None:
    assert Client("https://x.example.com/decklog/?a=b#c", "key").url == "https://x.example.com/decklog"
