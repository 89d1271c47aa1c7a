"""Time from the 201 to the delivery over WebSockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from websockets.asyncio.client import ClientConnection, connect

from decklog.domain.tenant import Isolation
from tests.bench import load, payloads
from tests.bench.context import VARIANTS, Context, named
from tests.bench.figures import Figure, percentile, value_at_most
from tests.bench.load import PLACE
from tests.bench.processes import HOST, Server
from tests.bench.stand import Customer, stand

NAMES = ("stream_p99",)
SUBSCRIBERS = 10
RATE = 200.0
"""Records per second, evenly spaced."""
_SECONDS = 10.0
_P99_MAX = 50.0
"""Milliseconds."""
_LAST_SECONDS_MAX = 10.0


class _Times:
    """Times of acknowledgement, and of delivery to each subscriber, by number."""

    def __init__(self) -> None:
        self.acknowledged: dict[int, float] = {}
        self.delivered: list[dict[int, float]] = []


async def _write(server: Server, customer: Customer, seconds: float, times: _Times, first_number: int) -> None:
    """Append single records at a steady pace, over as many connections as needed."""
    loop = asyncio.get_running_loop()
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    parts = load.request("POST", "/api/v1/logs", customer.writer, payloads.single(1)).request.split(PLACE)
    sending: set[asyncio.Task[None]] = set()

    async def send(number: int) -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(HOST, server.port)
        writer.write((b"%012d" % (first_number + number)).join(parts))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
        receipt = json.loads(await reader.readexactly(length))
        if receipt.get("status") != "stored":
            raise RuntimeError(f"a record was not stored: {receipt}")
        times.acknowledged[receipt["seq"]] = time.perf_counter()
        idle.append((reader, writer))

    began = loop.time()
    for number in range(int(seconds * RATE)):
        await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
        task = asyncio.create_task(send(number))
        sending.add(task)
        task.add_done_callback(sending.discard)
    await asyncio.gather(*sending)
    for _, writer in idle:
        writer.close()


async def _follow(socket: ClientConnection, had: dict[int, float]) -> None:
    async for message in socket:
        now = time.perf_counter()
        if (record := json.loads(message).get("record")) is not None:
            had[record["seq"]] = now


async def _times(server: Server, customer: Customer, seconds: float, first_number: int) -> _Times:
    times = _Times()
    url = f"ws://{HOST}:{server.port}/api/v1/logs/stream"
    headers = {"Authorization": f"Bearer {customer.auditor}"}
    sockets = [await connect(url, additional_headers=headers) for _ in range(SUBSCRIBERS)]
    for socket in sockets:
        opened = json.loads(await socket.recv())
        if opened["type"] != "open":
            raise RuntimeError(f"a stream did not open: {opened}")
    times.delivered = [{} for _ in sockets]
    following = [asyncio.create_task(_follow(socket, had)) for socket, had in zip(sockets, times.delivered, strict=True)]
    await _write(server, customer, seconds, times, first_number)
    async with asyncio.timeout(_LAST_SECONDS_MAX):
        while any(len(had) < len(times.acknowledged) for had in times.delivered):
            await asyncio.sleep(0.05)
    for socket in sockets:
        await socket.close()
    await asyncio.gather(*following)
    return times


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the p99 of the time from the 201 to the delivery, over all subscribers."""
    for variant in VARIANTS:
        async with stand(context.postgres(variant)) as place:
            [customer] = await place.customers(1, Isolation.DEDICATED)
            context.say(f"stream_p99: {variant}, {RATE:g} records/s to {SUBSCRIBERS} subscribers")
            async with place.api() as server:
                await _times(server, customer, 1.0, 1)
                times = await _times(server, customer, context.seconds(_SECONDS), 1_000_000)
            lags = [
                (had[seq] - acknowledged) * 1_000 for had in times.delivered for seq, acknowledged in times.acknowledged.items()
            ]
            note = (
                f"p50 {percentile(lags, 0.5):.1f}, longest {max(lags):.1f} ms over {len(lags):,} deliveries, one client process"
            )
            yield Figure(named("stream_p99", variant), percentile(lags, 0.99), "ms", None, value_at_most(_P99_MAX), note)
