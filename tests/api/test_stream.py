"""Streams over real sockets: WebSocket and Server-Sent Events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from decklog.api.app import create_app
from decklog.api.server import serve
from decklog.domain.identity.access import Role
from decklog.domain.tenant import Limits, State
from decklog.settings import Settings
from tests.support.api_world import RECORD, World, access_actions, code_of, polled, running_world
from tests.support.memory import make_tenant
from tests.support.memory_store import fill


@asynccontextmanager
async def followed(
    world: World, query: str = "", *, role: Role = Role.AUDITOR, tenant: str = "acme"
) -> AsyncIterator[ClientConnection]:
    """An open WebSocket with the key in a header; its first message has been received."""
    headers = {"Authorization": f"Bearer {world.keys[tenant, role]}"}
    async with connect(world.socket_url(query), additional_headers=headers, max_queue=None) as socket_:
        opened = await received(socket_)
        assert opened.pop("position")
        assert opened == {"type": "open", "tenant": tenant, "log": ("log=access" in query and "access") or "events"}
        yield socket_


async def received(socket_: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await asyncio.wait_for(socket_.recv(), 20))
    return message


@pytest.mark.parametrize("before", [0, 3])
async def test_stream_resumes_from_the_open_position_when_cut_off_before_any_event(world: World, before: int) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": str(n)} for n in range(before)))
    headers = {"Authorization": f"Bearer {world.keys['acme', Role.AUDITOR]}"}
    async with connect(world.socket_url(""), additional_headers=headers) as socket_:
        position = (await received(socket_))["position"]
    await fill(world.store, world.tenant("acme"), *({"message": str(n)} for n in range(before, before + 2)))
    async with followed(world, f"?after={position}") as socket_:
        assert [message["record"]["seq"] for message in await records(socket_, 2)] == [before, before + 1]
    async with sse_followed(world, f"?after={position}") as lines:
        assert json.loads((await sse(lines))["data"])["seq"] == before


async def records(socket_: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Return the next records, without heartbeats."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        message = await received(socket_)
        assert message["type"] in ("record", "heartbeat"), message
        if message["type"] == "record":
            found.append(message)
    return found


async def ended(socket_: ClientConnection) -> tuple[int, dict[str, Any]]:
    """Return the close code of a WebSocket, and its last message."""
    last: dict[str, Any] = {}
    with contextlib.suppress(ConnectionClosed):
        while True:
            last = await received(socket_)
    return socket_.close_code or 0, last


async def test_stream_sends_new_records_with_their_positions(world: World) -> None:
    async with followed(world) as listener, world.client(Role.WRITER) as client:
        for n in range(3):
            receipt = (await client.post("/api/v1/logs", json={**RECORD, "message": str(n)})).json()
            (message,) = await records(listener, 1)
            assert message["record"]["message"] == str(n)
            assert message["record"]["seq"] == receipt["seq"] == n
            assert message["position"].split(".")[2] == str(n)


async def test_stream_resumes_after_a_position_without_gap_or_duplicate(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": str(n)} for n in range(500)))
    async with followed(world, "?after=-1") as listener:
        first = await records(listener, 200)
    async with followed(world, f"?after={first[-1]['position']}") as listener:
        rest = await records(listener, 300)
    assert [message["record"]["seq"] for message in first + rest] == list(range(500))
    async with followed(world, "?after=497") as listener:
        assert [message["record"]["seq"] for message in await records(listener, 2)] == [498, 499]


async def test_stream_applies_filters(world: World) -> None:
    async with followed(world, "?action=door.*&severity=ERROR") as listener, world.client(Role.WRITER) as client:
        for action, severity in (("door.open", "INFO"), ("window.open", "ERROR"), ("door.shut", "ERROR")):
            await client.post("/api/v1/logs", json={**RECORD, "action": action, "severity": severity})
        (message,) = await records(listener, 1)
        assert message["record"]["action"] == "door.shut"


async def test_websocket_heartbeats_carry_the_position() -> None:
    async with running_world(heartbeat=0.05) as world:
        await fill(world.store, world.tenant("acme"), {})
        async with followed(world) as listener:
            beats = [await received(listener) for _ in range(5)]
            assert {(beat["type"], beat["position"].split(".")[2]) for beat in beats} == {("heartbeat", "0")}
            await fill(world.store, world.tenant("acme"), {})
            assert (await records(listener, 1))[0]["record"]["seq"] == 1


async def test_websocket_ignores_client_messages_and_closes_on_too_many(world: World) -> None:
    async with followed(world) as listener:
        for _ in range(10):
            await listener.send("hello")
            await listener.send(b"hello")
        await fill(world.store, world.tenant("acme"), {})
        assert (await records(listener, 1))[0]["record"]["seq"] == 0
        with contextlib.suppress(ConnectionClosed):
            for _ in range(1_000):
                await listener.send("again")
        number, last = await ended(listener)
        assert (number, last["problem"]["code"]) == (4429, "rate-limited")
    async with followed(world) as listener:
        await listener.send("x" * 10_000)
        assert (await ended(listener))[0] == 1009


async def test_websocket_accepts_the_token_as_subprotocol_and_does_not_echo_it(world: World) -> None:
    key = world.keys["acme", Role.AUDITOR]
    offered = [Subprotocol("decklog"), Subprotocol(f"bearer.{key}")]
    async with connect(world.socket_url(), subprotocols=offered) as listener:
        assert listener.subprotocol == "decklog"
        assert (await received(listener))["type"] == "open"
        assert listener.response is not None
        assert key not in str(listener.response.headers)


@pytest.mark.parametrize(
    ("role", "query", "status", "code"),
    [
        (None, "", 401, "unauthenticated"),
        (Role.WRITER, "", 403, "forbidden"),
        (Role.PLATFORM, "", 403, "forbidden"),
        (Role.AUDITOR, "?tenant=other", 422, "unknown-parameter"),
        (Role.AUDITOR, "?token=KEY", 422, "unknown-parameter"),
        (None, "?token=KEY", 422, "unknown-parameter"),
        (None, "?access_token=KEY", 422, "unknown-parameter"),
        (Role.AUDITOR, "?severity=BAD", 422, "invalid-parameter"),
        (Role.AUDITOR, "?after=soon", 422, "invalid-parameter"),
        (Role.AUDITOR, "?after=1&after=2", 422, "invalid-parameter"),
        (Role.AUDITOR, "?after=99", 422, "invalid-parameter"),
    ],
)
async def test_websocket_handshake_is_refused_with_a_problem_before_101(
    world: World, role: Role | None, query: str, status: int, code: str
) -> None:
    query = query.replace("KEY", world.keys["acme", Role.AUDITOR])
    token = None if role is None else world.keys[None if role is Role.PLATFORM else "acme", role]
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    response = await refused_handshake(world, query, additional_headers=headers)
    assert (response.status_code, json.loads(response.body)["code"]) == (status, code)
    assert json.loads(response.body)["instance"] == response.headers["x-request-id"]
    assert (status == 401) is ("www-authenticate" in response.headers)
    assert await access_actions(world) == (["access.refused"] if role is Role.WRITER else [])


async def refused_handshake(world: World, query: str = "", **options: Any) -> Response:
    """Return the HTTP answer to a handshake, which must be a problem document."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(world.socket_url(query), **options):
            pass
    response = caught.value.response
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    return response


async def test_websocket_refuses_a_wrong_or_repeated_subprotocol_token(world: World) -> None:
    key = world.keys["acme", Role.AUDITOR]
    for tokens in ((key[:-1] + "x",), (key, key), ()):
        offered = [Subprotocol("decklog"), *(Subprotocol(f"bearer.{token}") for token in tokens)]
        assert (await refused_handshake(world, subprotocols=offered)).status_code == 401


@pytest.mark.parametrize("frame", [b"\x89\x80\0\0\0\0", b"\x8a\x80\0\0\0\0", b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 3])
async def test_websocket_closes_on_too_many_frames_of_any_kind(world: World, frame: bytes) -> None:
    async with followed(world) as listener:
        listener.transport.write(frame[:6] + (frame[6:12] or frame) * 100_000)
        number, last = await ended(listener)
        assert (number, last["problem"]["code"]) == (4429, "rate-limited")


async def test_websocket_reads_nothing_before_the_handshake_is_answered(world: World) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()
    authenticate = world.identity.authenticate

    async def slow(token: str) -> Any:
        entered.set()
        await go_on.wait()
        return await authenticate(token)

    world.identity.authenticate = slow  # type: ignore[method-assign]
    reader, writer = await asyncio.open_connection(*world.url.removeprefix("http://").split(":"))
    writer.write(
        b"GET /api/v1/logs/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer "
        + world.keys["acme", Role.AUDITOR].encode()
        + b"\r\n\r\n"
    )
    await entered.wait()
    writer.write(b"\x89\x80\0\0\0\0" * 10)
    await asyncio.sleep(0.1)
    go_on.set()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert (await reader.readexactly(2))[0] == 0x81
    writer.close()


async def test_websocket_handshake_returns_404_at_another_path(world: World) -> None:
    for path in ("/api/v1/logs", "/", "/nothing", "/api/v1/logs/stream/more"):
        with pytest.raises(InvalidStatus) as caught:
            async with connect(world.url.replace("http", "ws") + path):
                pass
        assert caught.value.response.status_code == 404
        assert json.loads(caught.value.response.body)["code"] == "not-found"


async def test_stream_ends_with_an_error_when_the_key_is_revoked(world: World) -> None:
    async with followed(world) as listener, sse_followed(world) as lines:
        world.registry.revoke(world.keys["acme", Role.AUDITOR])
        number, last = await ended(listener)
        event = await asyncio.wait_for(sse(lines), 20)
        assert (number, last["problem"]["code"]) == (4401, "unauthenticated")
        assert (event["event"], json.loads(event["data"])["code"]) == ("problem", "unauthenticated")


async def test_stream_ends_when_the_tenant_is_suspended(world: World) -> None:
    async with followed(world) as listener:
        world.registry.add_tenant(msgspec.structs.replace(world.tenant("acme"), state=State.SUSPENDED))
        number, last = await ended(listener)
        assert (number, last["problem"]["code"]) == (4403, "tenant-suspended")


async def test_stream_open_and_close_are_recorded_in_the_access_log(world: World) -> None:
    async with followed(world):
        pass
    async for actions in polled(world):
        if actions == ["log.stream.open", "log.stream.close"]:
            break


async def test_stream_is_refused_above_the_tenants_limit(world: World) -> None:
    world.add(make_tenant("few", limits=Limits(streams=1)))
    headers = {"Authorization": f"Bearer {world.keys['few', Role.ADMIN]}"}
    async with connect(world.socket_url(), additional_headers=headers) as first, followed(world):
        assert (await received(first))["type"] == "open"
        handshake = await refused_handshake(world, additional_headers=headers)
        assert (handshake.status_code, json.loads(handshake.body)["code"]) == (429, "too-many-streams")
        assert handshake.headers["retry-after"]
        async with world.client(Role.ADMIN, "few") as client:
            response = await client.get("/api/v1/logs/stream", headers={"Accept": "text/event-stream"})
            assert (response.status_code, code_of(response)) == (429, "too-many-streams")
            assert response.headers["retry-after"]


async def test_stream_serves_a_slow_reader_without_delaying_others(world: World) -> None:
    host, port = world.url.removeprefix("http://").split(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    raw.connect((host, int(port)))
    headers = {"Authorization": f"Bearer {world.keys['acme', Role.AUDITOR]}"}
    async with connect(world.socket_url(), sock=raw, additional_headers=headers, max_queue=1) as slow, followed(world) as quick:
        assert (await received(slow))["type"] == "open"
        for start in range(0, 3_000, 100):
            await fill(world.store, world.tenant("acme"), *({"message": "x" * 8_000} for _ in range(start, start + 100)))
        world.announcements.announce(world.tenant("acme").id, 0, 3_000)  # type: ignore[arg-type]
        assert [message["record"]["seq"] for message in await records(quick, 3_000)] == list(range(3_000))
        given = sorted(subscription.given for subscription in world.streams._open)
        assert given[0] < 1_500 < given[1] == 3_000
        assert [message["record"]["seq"] for message in await records(slow, 3_000)] == list(range(3_000))


async def test_stream_ends_on_revocation_when_the_client_does_not_read(world: World) -> None:
    host, port = world.url.removeprefix("http://").split(":")
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        raw.connect((host, int(port)))
        key = world.keys["acme", Role.AUDITOR]
        raw.sendall(f"GET /api/v1/logs/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        async for actions in polled(world):
            if actions == ["log.stream.open"]:
                break
        await fill(world.store, world.tenant("acme"), *({"message": "x" * 8_000} for _ in range(2_000)))
        world.registry.revoke(key)
        async for actions in polled(world):
            if actions == ["log.stream.open", "log.stream.close"]:
                break


# Server-Sent Events


async def sse(lines: AsyncIterator[str]) -> dict[str, str]:
    """Return the fields of the next event."""
    fields: dict[str, str] = {}
    async for line in lines:
        if not line:
            return fields
        name, _, value = line.partition(": ")
        fields[name] = value
    return fields


@asynccontextmanager
async def sse_followed(world: World, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[str]]:
    async with (
        world.client(Role.AUDITOR) as client,
        client.stream("GET", f"/api/v1/logs/stream{query}", headers={"Accept": "text/event-stream", **headers}) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-store"
        lines = response.aiter_lines()
        opened = await sse(lines)
        data = {"tenant": "acme", "log": "events", "position": opened["id"]}
        assert opened == {"retry": "1000", "event": "opened", "id": opened["id"], "data": json.dumps(data, separators=(",", ":"))}
        yield lines


async def test_sse_event_id_resumes_the_stream(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": str(n)} for n in range(5)))
    async with sse_followed(world, "?after=-1") as lines:
        events = [await sse(lines) for _ in range(2)]
        assert [json.loads(event["data"])["seq"] for event in events] == [0, 1]
        assert {event["event"] for event in events} == {"record"}
    async with sse_followed(world, "?after=-1", **{"Last-Event-ID": events[-1]["id"]}) as lines:
        assert [json.loads((await sse(lines))["data"])["seq"] for _ in range(3)] == [2, 3, 4]


async def test_sse_keeps_a_record_with_line_breaks_in_one_event(world: World) -> None:
    async with sse_followed(world) as lines:
        await fill(world.store, world.tenant("acme"), {"message": "a\n\ndata: forged\n\nevent: error\n"})
        world.announcements.announce(world.tenant("acme").id, 0, 1)  # type: ignore[arg-type]
        event = await sse(lines)
        assert event["event"] == "record"
        assert json.loads(event["data"])["message"] == "a\n\ndata: forged\n\nevent: error\n"


async def test_sse_heartbeats_carry_the_position_as_id() -> None:
    async with running_world(heartbeat=0.05) as world:
        await fill(world.store, world.tenant("acme"), {})
        async with sse_followed(world) as lines:
            beat = await sse(lines)
            assert beat["event"] == "heartbeat"
            assert json.loads(beat["data"]) == {"position": beat["id"]}


async def test_sse_refuses_another_accept_header(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        response = await client.get("/api/v1/logs/stream", headers={"Accept": "application/json"})
        assert (response.status_code, code_of(response)) == (415, "unsupported-media-type")


# Stopping


async def test_websocket_closes_with_service_restart_when_the_server_stops(world: World) -> None:
    async with serve(create_app(world.services, Settings()), "127.0.0.1", 0, freeze=False) as second:
        url = f"127.0.0.1:{second.port}/api/v1/logs/stream"
        headers = {"Authorization": f"Bearer {world.keys['acme', Role.AUDITOR]}"}
        listener = await connect("ws://" + url, additional_headers=headers)
        assert (await received(listener))["type"] == "open"
        client = httpx.AsyncClient(timeout=20)
        request = client.build_request("GET", "http://" + url, headers=headers)
        events = await client.send(request, stream=True)
    assert (await ended(listener))[0] == 1012
    assert "event: opened" in (await events.aread()).decode()
    await client.aclose()
    async for actions in polled(world):
        if sorted(actions) == ["log.stream.close"] * 2 + ["log.stream.open"] * 2:
            break
