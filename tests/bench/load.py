"""The load generator: a separate process with little cost to the servers under test.

Requests are prepared bytes with a place for a number of fixed width. Of an answer it reads status and length only. Closed loop: a
connection sends its next request when the last was answered. `python -m tests.bench.load` reads a `Job` as JSON from standard input and
writes an `Outcome`.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import time
from array import array
from collections import Counter
from typing import Annotated, cast

import msgspec
import uvloop

from tests.bench.figures import percentile
from tests.bench.processes import apart

PLACE = b"#" * 12
"""Placeholder for the number of a request; may appear several times."""
_ANSWER_BYTES_KEPT = 300
_MEDIANS_MAX = 64
_CONNECT_SECONDS_MAX = 10.0
_BIND_ADDRESS_NO_PORT = 24  # of Linux's in.h
_DRAIN_SECONDS_MAX = 20.0


class Template(msgspec.Struct, frozen=True):
    """A complete HTTP request with `PLACE` for the numbers."""

    request: bytes


class Job(msgspec.Struct, frozen=True):
    """Keep `connections` busy for `seconds` after `warmup`. Each connection uses the templates in turn."""

    host: str
    port: int
    templates: list[Template]
    connections: Annotated[int, msgspec.Meta(ge=1)] = 64
    warmup: float = 1.0
    seconds: float = 5.0
    first_number: int = 0
    pause: float = 0.0
    """Mean seconds between an answer and the next request of a connection. They are random, so that connections do not synchronise."""
    client: str = ""
    """Loopback address that connections come from; empty for the default."""
    reconnects: bool = False
    """Whether a connection that the server closes is replaced; otherwise it counts as an odd answer."""


class Outcome(msgspec.Struct, frozen=True):
    """Answers during the measurement. `total` includes the warm-up; latencies are in milliseconds; `processor` is the share of a core."""

    requests: int
    total: int
    seconds: float
    statuses: dict[int, int]
    p50: float
    p95: float
    p99: float
    longest: float
    processor: float
    next_number: int
    odd_answer: str = ""
    medians: list[float] = []
    """Median of each template, if there are few."""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class _Run:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.connecting = set[asyncio.Task[None]]()
        self.parts = [template.request.split(PLACE) for template in job.templates]
        self.number = job.first_number
        self.total = 0
        self.measuring = False
        self.stopping = False
        self.latencies = array("d")
        self.taken = array("I")
        self.statuses: Counter[bytes] = Counter()
        self.odd_answer = b""
        self.open = 0
        self.idle = asyncio.Event()

    async def connect(self, turn: int) -> None:
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        connection.setblocking(False)
        if self.job.client:
            # Bind without a port: the kernel chooses it at connect time and need not avoid ports in TIME_WAIT.
            connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            connection.bind((self.job.client, 0))
        await loop.sock_connect(connection, (self.job.host, self.job.port))
        await loop.create_connection(lambda: _Connection(self, turn), sock=connection)

    def reconnect(self, turn: int) -> None:
        """Connect again when the lost connection would have sent its next request."""

        async def connect() -> None:
            await asyncio.sleep(self.waits())
            if not self.stopping:
                await self.connect(turn)

        task = asyncio.get_running_loop().create_task(connect())
        self.connecting.add(task)
        task.add_done_callback(self.connecting.discard)

    def waits(self) -> float:
        """Return the seconds until the next request of a connection."""
        return random.expovariate(1 / self.job.pause) if self.job.pause else 0.0

    def request(self, turn: int) -> bytes:
        parts = self.parts[turn % len(self.parts)]
        if len(parts) == 1:
            return parts[0]
        self.number += 1
        return b"%012d".__mod__(self.number).join(parts)


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run, turn: int) -> None:
        self.run = run
        self.turn = turn
        self.buffer = b""
        self.missing = 0
        self.started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.run.open += 1
        self.send()

    def send(self) -> None:
        if self.run.stopping:
            self.transport.close()
            return
        self.turn += 1
        self.started = time.perf_counter()
        self.transport.write(self.run.request(self.turn))

    def data_received(self, data: bytes) -> None:
        if self.missing:
            self.missing -= len(data)
            if self.missing <= 0:
                self.answered()
            return
        data = self.buffer + data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"content-length: ")
        if end < 0:
            self.buffer = data
            return
        if not 0 <= at < end:
            raise RuntimeError(f"an answer without content-length: {data[:_ANSWER_BYTES_KEPT]!r}")
        self.buffer = data[:_ANSWER_BYTES_KEPT]
        self.missing = end + 4 + int(data[at + 16 : data.index(b"\r", at)]) - len(data)
        if self.missing <= 0:
            self.answered()

    def answered(self) -> None:
        run = self.run
        run.total += 1
        if run.measuring:
            run.latencies.append(time.perf_counter() - self.started)
            run.taken.append(self.turn % len(run.parts))
            status = self.buffer[9:12]
            run.statuses[status] += 1
            if status >= b"300" and not run.odd_answer:
                run.odd_answer = self.buffer
        ends = run.job.reconnects and b"\r\nconnection: close\r\n" in self.buffer
        self.buffer = b""
        self.missing = 0
        if ends:
            self.transport.close()
        elif run.job.pause and not run.stopping:
            asyncio.get_running_loop().call_later(run.waits(), self.send)
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.run.open -= 1
        if not self.run.stopping:
            if self.run.job.reconnects:
                self.run.reconnect(self.turn)
                return
            self.run.odd_answer = self.run.odd_answer or b"connection lost"
        if not self.run.open:
            self.run.idle.set()


async def generate(job: Job) -> Outcome:
    """Run the job in this process."""
    run = _Run(job)
    async with asyncio.timeout(_CONNECT_SECONDS_MAX):
        for number in range(job.connections):
            await run.connect(number)
    await asyncio.sleep(job.warmup)
    run.measuring = True
    started, processor = time.perf_counter(), time.process_time()
    await asyncio.sleep(job.seconds)
    run.measuring = False
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    run.stopping = True
    await asyncio.gather(*run.connecting)
    if run.open:
        async with asyncio.timeout(_DRAIN_SECONDS_MAX):
            await run.idle.wait()
    milliseconds = [latency * 1_000 for latency in run.latencies] or [0.0]
    return Outcome(
        requests=len(run.latencies),
        total=run.total,
        seconds=seconds,
        statuses={int(status): count for status, count in run.statuses.items()},
        p50=percentile(milliseconds, 0.50),
        p95=percentile(milliseconds, 0.95),
        p99=percentile(milliseconds, 0.99),
        longest=max(milliseconds),
        processor=processor / seconds,
        next_number=run.number + 1,
        odd_answer=run.odd_answer.decode(errors="replace"),
        medians=_medians(run, milliseconds) if len(run.parts) <= _MEDIANS_MAX else [],
    )


def _medians(run: _Run, milliseconds: list[float]) -> list[float]:
    by_template: list[list[float]] = [[] for _ in run.parts]
    for template, latency in zip(run.taken, milliseconds, strict=False):
        by_template[template].append(latency)
    return [percentile(latencies or [0.0], 0.5) for latencies in by_template]


async def apply(job: Job) -> Outcome:
    """Run the job in a separate process. Raise RuntimeError with its output if it fails."""
    return await apart("tests.bench.load", job, Outcome)


def request(method: str, path: str, key: str, body: bytes = b"", *, content_type: str = "application/json") -> Template:
    """Return an HTTP request of this generator."""
    lines = [f"{method} {path} HTTP/1.1", "host: decklog", f"authorization: Bearer {key}"]
    if body:
        lines += [f"content-type: {content_type}", f"content-length: {len(body)}"]
    return Template("\r\n".join([*lines, "", ""]).encode() + body)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(generate(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))))
