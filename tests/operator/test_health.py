"""The probe server over a real socket."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from decklog.probes import serving
from decklog_operator import metrics


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_healthz_is_green_at_once_and_readyz_when_ready() -> None:
    async with serving("127.0.0.1", 0) as probes:
        assert (await ask(probes.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        assert (await ask(probes.port, b"GET /readyz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 503")
        probes.ready_as = "standing by"
        assert (await ask(probes.port, b"GET /readyz?verbose HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\nstanding by\n")


async def test_healthz_fails_with_the_reason_of_the_complaint() -> None:
    async with serving("127.0.0.1", 0) as probes:
        probes.complaint = lambda: "the watch is silent"
        answer = await ask(probes.port, b"GET /healthz HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503")
        assert answer.endswith(b"\r\n\r\nthe watch is silent\n")


async def test_metrics_endpoint_serves_the_prometheus_format() -> None:
    async with serving("127.0.0.1", 0) as probes:
        head, _, body = (await ask(probes.port, b"GET /metrics HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=")
        families = {family.name for family in text_string_to_metric_families(body.decode())}
        assert {family.name for family in metrics.LEADER.describe()} <= families


async def test_health_server_rejects_other_requests_and_ignores_what_is_not_http() -> None:
    async with serving("127.0.0.1", 0) as probes:
        assert (await ask(probes.port, b"GET /metric HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
        assert (await ask(probes.port, b"POST /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405")
        assert (await ask(probes.port, b"\r\n\r\n")).startswith(b"HTTP/1.1 405")
        assert await ask(probes.port, b"x" * 10_000) == b""
        assert (await ask(probes.port, b"HEAD /healthz HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")


async def test_health_server_answers_again_after_too_many_connections() -> None:
    async with serving("127.0.0.1", 0) as probes:
        idle = [await asyncio.open_connection("127.0.0.1", probes.port) for _ in range(40)]
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        while not await ask(probes.port, b"GET /healthz HTTP/1.1\r\n\r\n"):
            await asyncio.sleep(0)
