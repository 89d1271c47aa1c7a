"""Bounds on connections before anybody is authenticated: hostile clients over raw sockets against a served API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from decklog.api.app import create_app, openapi_document
from decklog.api.connections import FILES_RESERVED, Connections, Limits, Pace, within_files
from decklog.api.http_protocol import HEADERS_MAX, PIPELINED_MAX, URI_BYTES_MAX
from decklog.api.server import serve
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.settings import Settings
from tests.support.api_world import RECORD, World, polled
from tests.support.memory_store import fill

QUICK = Limits(header_timeout=0.4, idle_timeout=0.8, receive_timeout=0.4, send_timeout=0.4)
"""Times so short that a test can wait for them."""
LONG = Limits(header_timeout=60, idle_timeout=60, receive_timeout=60, send_timeout=60)
"""Times that no test waits for."""
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def served(world: World, limits: Limits, **more: str) -> AsyncIterator[int]:
    """The API of this world on another port, with these limits."""
    async with serve(create_app(world.services, Settings()), "127.0.0.1", 0, freeze=False, limits=limits, **more) as server:  # type: ignore[arg-type]
        yield server.port


async def said(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send the parts and return all that the server sends until it closes. A reset ends the answer like a close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()

    async def read() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                received.extend(data)

    reading = asyncio.create_task(read())
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
    await asyncio.wait_for(reading, 20)
    writer.close()
    return bytes(received)


def answers(received: bytes) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """Split what a connection received into HTTP answers, and check that each is whole."""
    while received:
        head, separator, received = received.partition(b"\r\n\r\n")
        assert separator, head
        status, *lines = head.decode().split("\r\n")
        version, number, _ = status.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", "0"))
        assert len(received) >= length
        yield int(number), headers, received[:length]
        received = received[length:]


def refusal(received: bytes) -> tuple[int, str]:
    """Return status and code of the one answer of a connection, which must be a problem that ends it."""
    [(status, headers, body)] = answers(received)
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-content-type-options"] == "nosniff"
    document = json.loads(body)
    assert document["instance"] == headers["x-request-id"]
    assert document["status"] == status
    return status, document["code"]


def check_quiet(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that nothing was logged that a client could fill the log with."""
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "Traceback" not in "".join(capsys.readouterr())


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("decklog_http_connections_refused_total", {"reason": reason}) or 0.0


def stalled(kind: str) -> float:
    return REGISTRY.get_sample_value("decklog_http_readers_disconnected_total", {"kind": kind}) or 0.0


def opened() -> float:
    return REGISTRY.get_sample_value("decklog_http_connections") or 0.0


# Sizes

OVERSIZED = {
    "one header": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000, (431, "headers-too-large")),
    "many bytes": (b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"X: " + b"a" * 1_000 + b"\r\n") * 40, (431, "headers-too-large")),
    "many headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * HEADERS_MAX + b"\r\n", (431, "headers-too-large")),
    "no name": (b"GET / HTTP/1.1\r\n" + b"a" * 40_000, (431, "headers-too-large")),
    "target": (b"GET /" + b"a" * URI_BYTES_MAX + b" HTTP/1.1\r\nHost: x\r\n\r\n", (414, "uri-too-long")),
    "endless target": (b"GET /" + b"a" * 40_000, (414, "uri-too-long")),
    "blank lines": (b"\r\n" * 20_000, (431, "headers-too-large")),
    "trailers": (
        b"POST /api/v1/logs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 200_000,
        (400, "malformed-request"),
    ),
    "chunk extension": (
        b"POST /api/v1/logs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 200_000,
        (400, "malformed-request"),
    ),
}


@pytest.mark.parametrize("name", OVERSIZED)
@pytest.mark.parametrize("step", [1_000_000, 1_400])
async def test_oversized_header_is_refused_with_a_problem(world: World, name: str, step: int) -> None:
    sent, expected = OVERSIZED[name]
    async with served(world, LONG) as port:
        before = refused(expected[1])
        received = await said(port, *(sent[at : at + step] for at in range(0, len(sent), step)))
        if b"POST" in sent and b" 401 " in received[:20]:
            assert next(answers(received))[0] == 401  # answered before the bound was reached; then the rest was cut off
        else:
            assert refusal(received) == expected
            assert refused(expected[1]) == before + 1


async def test_endless_header_costs_its_sender_the_connection_and_nobody_else(world: World) -> None:
    """One header of 4 MiB in small parts: parsing stops at the bound, so no part of it is copied again and again."""
    async with served(world, LONG) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        hostile = [
            asyncio.create_task(said(port, b"GET / HTTP/1.1\r\nHost: x\r\nX: ", *(b"a" * 65_536 for _ in range(64))))
            for _ in range(8)
        ]
        for _ in range(20):
            assert (await client.get("/healthz")).status_code == 200
        for received in await asyncio.gather(*hostile):
            assert received == b"" or refusal(received) == (431, "headers-too-large")


# Syntax

MALFORMED = {
    "length and encoding": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding and length": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two equal lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc",
    "a signed length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
    "encoding gzip": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "encoding twice": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\r\nHost: x\nX: a\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: x\rX: a\r\n\r\n",
    "space before the colon": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc",
    "NUL": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a proxy's CONNECT": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    "a byte outside ASCII": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
    "upgrade with a body": b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    "WebSocket with a body": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    "WebSocket without a key": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}


async def test_malformed_request_is_refused_with_a_problem(
    world: World, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(world, LONG) as port:
        for name, sent in MALFORMED.items():
            assert refusal(await said(port, sent)) == (400, "malformed-request"), name
    check_quiet(caplog, capsys)


async def test_http_1_0_gets_no_chunked_answer_from_any_route(world: World) -> None:
    """A body without a length ends with the connection there, so one that was cut off would look whole."""
    await fill(world.store, world.tenant("acme"), {}, {})
    key = world.keys["acme", Role.ADMIN]
    paths = [
        path.replace("{seq}", "0").replace("{name}", "acme") for path, of in openapi_document()["paths"].items() if "get" in of
    ]
    codes = {}
    async with served(world, LONG) as port:
        for path in [*paths, "/api/v1/logs/export?format=csv", "/api/v1/logs/stats?by=action", "/schema", "/schema/openapi.json"]:
            head, _, body = (await said(port, f"GET {path} HTTP/1.0\r\nAuthorization: Bearer {key}\r\n\r\n".encode())).partition(
                b"\r\n\r\n"
            )
            assert b"transfer-encoding" not in head.lower(), path
            assert f"content-length: {len(body)}".encode() in head, path
            codes[path] = int(head.split()[1])
            if codes[path] == 426:
                assert b"\r\nupgrade: HTTP/1.1\r\nconnection: upgrade\r\n" in head
                assert json.loads(body)["code"] == "http-version"
    assert [path for path, code in codes.items() if code == 426] == [
        "/api/v1/logs/export", "/api/v1/logs/stream", "/api/v1/logs/export?format=csv"
    ]  # fmt: skip
    assert {path for path, code in codes.items() if code == 401} == {"/api/v1/session"}  # a key has none
    assert {code for code in codes.values() if code not in (401, 426)} <= {200, 403, 404, 422}


BAD_BODIES = {
    "chunk size with LF": b"3\nabc\r\n0\r\n\r\n",
    "chunk with LF": b"3\r\nabc\n0\r\n\r\n",
    "extension with LF": b"3;a\nabc\r\n0\r\n\r\n",
    "hexadecimal prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "huge chunk": b"f" * 17 + b"\r\n",
    "a length in the trailers": b"3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n",
    "endless extension": b"3;" + b"a" * 300_000,
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_malformed_body_is_refused_while_the_application_waits_for_it(world: World, name: str) -> None:
    key = world.keys["acme", Role.WRITER].encode()
    head = b"POST /api/v1/logs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with served(world, LONG) as port:
        received = await said(port, head, b"2\r\n{}\r\n", BAD_BODIES[name], pause=0.05)
        assert refusal(received) == (400, "malformed-request")


async def test_trailers_are_not_headers_of_the_request(world: World) -> None:
    key = world.keys["acme", Role.WRITER].encode()
    body = json.dumps(RECORD).encode()
    chunked = b"%x\r\n" % len(body) + body + b"\r\n0\r\nAuthorization: Bearer " + key + b"\r\n\r\n"
    async with served(world, LONG) as port:
        received = await said(
            port, b"POST /api/v1/logs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked
        )
        [(status, _, _)] = answers(received)
        assert status == 401


async def test_upgrade_without_a_body_is_answered_as_http_1(world: World) -> None:
    async with served(world, LONG) as port:
        sent = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
        [(status, headers, _)] = answers(await said(port, sent))
        assert (status, headers["connection"]) == (200, "close")


# Pipelines


async def test_pipelined_requests_are_answered_in_order_up_to_the_bound(world: World) -> None:
    async with served(world, LONG) as port:
        few = b"".join(b"GET /unknown/%d HTTP/1.1\r\nHost: x\r\nX-Request-Id: r%d\r\n\r\n" % (n, n) for n in range(PIPELINED_MAX))
        last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        found = list(answers(await said(port, few + last)))
        assert [headers["x-request-id"] for _, headers, _ in found[:-1]] == [f"r{n}" for n in range(PIPELINED_MAX)]
        assert found[-1][0] == 200
        found = list(answers(await said(port, GET * 5_000)))
        assert 1 <= len(found) <= PIPELINED_MAX + 1
        assert {status for status, _, _ in found} == {200}


async def test_garbage_behind_a_request_does_not_disturb_its_answer(world: World) -> None:
    async with served(world, LONG) as port:
        [(status, _, body)] = answers(await said(port, GET + b"\0garbage\r\n\r\n"))
        assert (status, body) == (200, b'{"status":"ok"}')


# Times


async def test_slow_headers_get_408_and_a_silent_connection_closes(world: World) -> None:
    async with served(world, QUICK) as port:
        assert refusal(await said(port, b"GET / HT")) == (408, "request-timeout")
        assert refusal(await said(port, *([b"G"] + [b"E"] * 3 + [b"\r\n"] * 3), pause=0.0)) == (400, "malformed-request")
        assert await said(port) == b""
        assert await said(port, b"\r\n\r\n") != b"HTTP"
        [(status, headers, _)] = answers(await said(port, GET))
        assert (status, "connection" in headers) == (200, False)


@pytest.mark.parametrize("begin", [b"", b"x" * 100_000])
async def test_stalled_body_gets_408_however_fast_it_began(world: World, begin: bytes) -> None:
    key = world.keys["acme", Role.WRITER].encode()
    head = b"POST /api/v1/logs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + b"\r\nContent-Length: 200000\r\n\r\n"
    async with served(world, QUICK) as port:
        assert refusal(await said(port, head + begin)) == (408, "request-timeout")
        dripping = said(port, head, *[b"x"] * 40, pause=0.05)
        assert refusal(await dripping) == (408, "request-timeout")


async def test_body_after_the_answer_is_read_up_to_a_bound_and_for_a_bounded_time(world: World) -> None:
    async with served(world, QUICK) as port:
        received = await said(port, b"POST /api/v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nx")
        [(status, _, _)] = answers(received)
        assert status == 401
        endless = [b"10000\r\n" + b"x" * 65_536 + b"\r\n"] * 400
        received = await said(port, b"POST /api/v1/logs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", *endless)
        assert received == b"" or next(answers(received))[0] == 401


def test_pace_is_judged_in_windows() -> None:
    pace = Pace()
    assert [pace.too_slow(moved, now, 10.0, 100) for now, moved in ((0.0, 0), (5.0, 1_000), (10.0, 0))] == [False] * 3
    assert [pace.too_slow(moved, now, 10.0, 100) for now, moved in ((15.0, 900), (20.0, 99))] == [False, True]
    pace.reset()
    assert not pace.too_slow(0, 100.0, 10.0, 100)


# Readers


FOLLOW = {
    "export": b"GET /api/v1/logs/export HTTP/1.1\r\nHost: x\r\n",
    "sse": b"GET /api/v1/logs/stream?after=-1 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n",
    "websocket": b"GET /api/v1/logs/stream?after=-1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n",
}


@pytest.mark.parametrize("how", FOLLOW)
async def test_reader_that_stops_reading_is_disconnected_and_the_access_record_says_so(world: World, how: str) -> None:
    acme = world.tenant("acme")
    await fill(world.store, acme, *({"message": "x" * 8_000} for _ in range(2_000)))
    kind = "websocket" if how == "websocket" else "http"
    before = stalled(kind)
    async with served(world, QUICK) as port:
        unread = socket.socket()
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        unread.connect(("127.0.0.1", port))
        unread.sendall(FOLLOW[how] + f"Authorization: Bearer {world.keys['acme', Role.AUDITOR]}\r\n\r\n".encode())
        ending = f"log.{'export' if how == 'export' else 'stream'}.close"
        async for actions in polled(world):
            if actions[-1:] == [ending]:
                break
        assert stalled(kind) == before + 1
        found = await world.store.fetch(acme, LogName.ACCESS, range((await world.store.head(acme, LogName.ACCESS)).next_seq))
        [content] = [content for record in found if (content := json.loads(record.content))["action"] == ending]
        assert content["outcome"] == "failure"
        assert content["metadata"]["records"] < 2_000
        if how == "export":
            assert content["metadata"]["code"] == "reader-too-slow"
        unread.close()


async def test_page_that_nobody_reads_is_given_up(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": "x" * 8_000} for _ in range(800)))
    before, connections = stalled("http"), opened()
    async with served(world, QUICK) as port:
        unread = socket.socket()
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        unread.connect(("127.0.0.1", port))
        head = (
            f"GET /api/v1/logs?limit=800 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.keys['acme', Role.AUDITOR]}\r\n\r\n"
        )
        unread.sendall(head.encode())
        for _ in range(200):
            if stalled("http") > before:
                break
            await asyncio.sleep(0.05)
        assert stalled("http") == before + 1
        for _ in range(100):
            if opened() == connections:
                break
            await asyncio.sleep(0.05)
        assert opened() == connections
        unread.close()


async def test_slow_reader_that_goes_on_reading_gets_everything(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": "x" * 8_000} for _ in range(700)))
    limits = msgspec.structs.replace(QUICK, send_timeout=0.6)
    async with served(world, limits) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=32_768)
        head = "GET /api/v1/logs/export HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        writer.write(f"{head}Authorization: Bearer {world.keys['acme', Role.AUDITOR]}\r\n\r\n".encode())
        received = 0
        while data := await reader.read(65_536):
            received += len(data)
            await asyncio.sleep(0.02)
        assert received > 700 * 8_000
        writer.close()


# Numbers


async def held(port: int, number: int, sent: bytes = b"") -> list[socket.socket]:
    """Return open connections that have sent something and read nothing."""
    found = []
    for _ in range(number):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(sent)
        connection.setblocking(False)
        found.append(connection)
    await asyncio.sleep(0.1)
    return found


async def test_address_with_too_many_connections_gets_429_while_others_are_served(world: World) -> None:
    async with served(world, msgspec.structs.replace(LONG, per_address_max=5)) as port:
        taken = await held(port, 5)
        assert refusal(await said(port, GET)) == (429, "too-many-connections")
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        for connection in taken:
            connection.close()
        await asyncio.sleep(0.1)
        [(status, _, _)] = answers(await said(port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))
        assert status == 200


async def test_trusted_proxy_is_bounded_by_the_total_alone(world: World) -> None:
    async with served(world, msgspec.structs.replace(LONG, per_address_max=2), trusted_proxies="127.0.0.0/8") as port:
        taken = await held(port, 20)
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
        for connection in taken:
            connection.close()


async def test_half_open_requests_are_displaced_and_answered_ones_are_not(world: World) -> None:
    entered, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(*_: object, **__: object) -> object:
        entered.release()
        await go_on.wait()
        raise AssertionError("no one waits for this")

    async with served(world, msgspec.structs.replace(LONG, connections_max=16, per_address_max=100)) as port:
        half = await held(port, 16, b"GET / HTTP/1.1\r\n")
        before = refused("displaced")
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
        assert refused("displaced") == before + 1
        for connection in half:
            connection.close()
        world.ingest.append = slow  # type: ignore[method-assign, assignment]
        key = world.keys["acme", Role.WRITER].encode()
        post = b"POST /api/v1/logs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        busy = await held(port, 16, post % key)
        for _ in range(16):
            await asyncio.wait_for(entered.acquire(), 20)
        assert refusal(await said(port, GET)) == (503, "overloaded")
        for connection in busy:
            connection.close()
        go_on.set()


class Waiting:
    """A connection that only waits for its client."""

    waits_for_client = True

    def __init__(self) -> None:
        self.dropped = False

    def look(self, now: float) -> None:
        raise AssertionError("broken on purpose")

    def drop(self) -> None:
        self.dropped = True


async def test_address_is_counted_by_its_network_and_a_proxy_is_not() -> None:
    table = Connections(msgspec.structs.replace(LONG, per_address_max=1), ["10.0.0.0/8", "2001:db8:9::/48"])
    held: list[Waiting] = []
    for address, admitted in (
        ("192.0.2.1", True),
        ("::ffff:192.0.2.1", False),
        ("192.0.2.2", True),
        ("2001:db8::1", True),
        ("2001:db8::ffff:2", False),
        ("2001:db8:0:1::1", True),
        *[("10.1.2.3", True)] * 3,
        *[("2001:db8:9::7", True)] * 3,
        *[(None, True)] * 3,
    ):
        connection = Waiting()
        assert (table.admit(connection, address) is None) is admitted, address
        held.append(connection)
    for connection in held:
        table.left(connection)
    assert table.admit(connection, "192.0.2.1") is None  # given back
    table.left(connection)


async def test_connection_that_cannot_be_checked_does_not_end_the_sweep() -> None:
    table = Connections(LONG)
    broken = [Waiting(), Waiting()]
    for connection in broken:
        table.admit(connection, "192.0.2.1")
    table.sweep()
    assert [connection.dropped for connection in broken] == [True, True]
    for connection in broken:
        table.left(connection)
        table.left(connection)
    assert len(table) == 0


def test_connections_stay_within_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = [256], 1_000
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft[0], hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: soft.__setitem__(0, both[0]))
    few = msgspec.structs.replace(LONG, connections_max=100, per_address_max=50)
    assert within_files(few) is few
    assert soft[0] == 100 + 25 + FILES_RESERVED
    less = within_files(LONG)
    assert soft[0] == hard
    assert less.connections_max * 5 // 4 + FILES_RESERVED <= hard
    assert less.per_address_max <= less.connections_max


HOSTILE = {
    "silent": b"",
    "half a header": b"GET /api/v1/logs HTTP/1.1\r\nHost: x\r\nX: aaa",
    "half a body": b"POST /api/v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{",
    "garbage": b"\0\1\2",
    "unread answers": b"GET /schema HTTP/1.1\r\nHost: x\r\n\r\n" * PIPELINED_MAX,
    "half a handshake": b"GET /api/v1/logs/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_service_answers_beside_200_hostile_connections_and_gets_everything_back(world: World, name: str) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 600
    descriptors, connections = len(os.listdir("/proc/self/fd")), opened()
    async with served(world, QUICK) as port:
        hostile = await held(port, 200, HOSTILE[name])
        async with httpx.AsyncClient() as client:
            for _ in range(20):
                assert (await client.get(f"http://127.0.0.1:{port}/healthz", timeout=5)).status_code == 200
        for _ in range(200):
            if opened() <= connections + 1:
                break
            await asyncio.sleep(0.05)
        assert opened() <= connections + 1
        for connection in hostile:
            connection.close()
    assert opened() == connections
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2


# Any bytes

TOKENS = st.sampled_from(
    [b"GET ", b"POST ", b"/", b"/healthz", b" HTTP/1.1", b"\r\n", b"\n", b"\r", b"Host: x", b"Content-Length: 5", b": ", b"\r\n\r\n",
     b"Transfer-Encoding: chunked", b"5\r\nabcde\r\n", b"0\r\n\r\n", b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c",
     b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Sec-WebSocket-Version: 13", b"Expect: 100-continue", GET, b"/api/v1/logs/stream"]
)  # fmt: skip


async def test_any_bytes_yield_whole_answers_or_a_close_and_no_exception(
    world: World, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(world, QUICK) as port:
        loop = asyncio.get_running_loop()

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(TOKENS | st.binary(max_size=40), max_size=12), st.booleans())
        def check(parts: list[bytes], whole: bool) -> None:
            sent = [b"".join(parts)] if whole else parts
            received = asyncio.run_coroutine_threadsafe(said(port, *sent, pause=0.0), loop).result(30)
            for status, headers, body in answers(received):
                assert status in (100, 200, 400, 401, 404, 405, 408, 414, 422, 431)
                if status >= 400 and body:
                    assert headers["content-type"] == "application/problem+json"

        await asyncio.to_thread(check)
    check_quiet(caplog, capsys)


FRAMES = st.builds(
    lambda first, masked, content: (
        bytes([first, (0x80 if masked else 0) | len(content)]) + (b"\0" * 4 if masked else b"") + content
    ),
    st.integers(0, 255),
    st.booleans(),
    st.binary(max_size=20),
)


async def test_any_frames_end_a_websocket_without_an_exception(
    world: World, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    head = FOLLOW["websocket"] + f"Authorization: Bearer {world.keys['acme', Role.AUDITOR]}\r\n\r\n".encode()
    async with served(world, QUICK) as port:
        loop = asyncio.get_running_loop()

        async def exchanged(frames: list[bytes]) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            with contextlib.suppress(ConnectionError):
                writer.write(b"".join(frames) + b"\x88\x80\0\0\0\0")
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return answer

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(FRAMES | st.binary(max_size=30), max_size=6))
        def check(frames: list[bytes]) -> None:
            assert asyncio.run_coroutine_threadsafe(exchanged(frames), loop).result(30).startswith(b"HTTP/1.1 101 ")

        await asyncio.to_thread(check)
    check_quiet(caplog, capsys)
