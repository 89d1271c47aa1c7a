"""The neighbour of an attacker: steady appends, lists, a stream and the probes of the process, in a process apart.

`python -m tests.bench.noisy_victim` reads a `Job` as JSON from standard input and writes the outcomes of its phases. The load is open: requests begin at their times whether or not earlier ones were
answered, a latency counts from the intended time, and a request that fails counts as the longest wait.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import msgspec
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.attacks.wire import HOST, Answer, Streams, read_answer, request, streams
from tests.bench.figures import percentile

CLIENT = "127.0.0.3"
REQUEST_SECONDS_MAX = 20.0
"""Seconds after which a request is given up. A failure counts as this latency."""
_PROBE_SECONDS_MAX = 5.0
_DELIVERY_SECONDS_MAX = 10.0
_PROBES_PER_SECOND = 4.0
_RECONNECT_SECONDS = 0.1


class Phase(msgspec.Struct, frozen=True):
    """A part of the run."""

    name: str
    seconds: float


class Job(msgspec.Struct, frozen=True):
    """Use a tenant through the phases, without a pause between them. Ids of records begin with `prefix`.

    `begins` is the time of the first phase by the clock of `time.monotonic`, which all processes share.
    """

    port: int
    writer: str
    auditor: str
    prefix: str
    begins: float
    phases: list[Phase]
    appends_per_second: float
    lists_per_second: float


class Series(msgspec.Struct, frozen=True):
    """Latencies of one kind in milliseconds. `failures` counts what was not a success, by status and code."""

    count: int
    p50: float
    p99: float
    longest: float
    failures: dict[str, int]


class Outcome(msgspec.Struct, frozen=True):
    """Figures of the neighbour during one phase."""

    appends: Series
    lists: Series
    stream: Series
    healthz: Series
    readyz: Series

    @property
    def failures(self) -> Counter[str]:
        """Failures of the tenant's own requests, by kind."""
        kinds = {"append": self.appends, "list": self.lists, "stream": self.stream}
        return Counter({f"{kind} {words}": n for kind, series in kinds.items() for words, n in series.failures.items()})


@dataclass
class _Kind:
    latencies: array[float] = field(default_factory=lambda: array("d"))
    failures: Counter[str] = field(default_factory=Counter)

    def fail(self, words: str) -> None:
        self.latencies.append(REQUEST_SECONDS_MAX)
        self.failures[words] += 1

    def series(self) -> Series:
        values = [latency * 1_000 for latency in self.latencies] or [REQUEST_SECONDS_MAX * 1_000]
        return Series(len(self.latencies), percentile(values, 0.5), percentile(values, 0.99), max(values), dict(self.failures))


class _Figures:
    """The figures of one phase."""

    def __init__(self) -> None:
        self.appends, self.lists, self.stream, self.healthz, self.readyz = (_Kind() for _ in range(5))

    def outcome(self) -> Outcome:
        return Outcome(*(kind.series() for kind in (self.appends, self.lists, self.stream, self.healthz, self.readyz)))


class _Victim:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.idle: list[Streams] = []
        self.figures = [_Figures() for _ in job.phases]
        self.intended: dict[str, tuple[float, _Figures]] = {}
        """Time and phase of each append by the id of its record, until the stream delivers it."""
        self.following = asyncio.Event()

    async def ask(self, sent: bytes, seconds_max: float, *, kept: bool = True) -> Answer:
        """Send a request over an idle connection or a new one."""
        async with asyncio.timeout(seconds_max):
            opened = self.idle.pop() if kept and self.idle else await streams(self.job.port, CLIENT)
            try:
                opened[1].write(sent)
                answer = await read_answer(opened[0])
            except BaseException:
                opened[1].close()
                raise
        if kept and answer.headers.get("connection") != "close":
            self.idle.append(opened)
        else:
            opened[1].close()
        return answer

    async def timed(self, kind: _Kind, intended: float, sent: bytes, *, seconds_max: float, kept: bool = True) -> bool:
        """Note the latency from the intended time, or the failure. Return whether it succeeded."""
        try:
            answer = await self.ask(sent, seconds_max, kept=kept)
            words = "" if answer.status < 300 else answer.words
        except TimeoutError:
            words = "silence"
        except (OSError, EOFError) as error:
            words = type(error).__name__
        if words:
            kind.fail(words)
        else:
            kind.latencies.append(time.monotonic() - intended)
        return not words

    async def append(self, name: str, intended: float, figures: _Figures) -> None:
        identifier = f"{self.job.prefix}-{name}"
        self.intended[identifier] = intended, figures
        body = json.dumps({"id": identifier, "action": "document.read", "actor": {"id": "alice"}, "message": "Daily."}).encode()
        sent = request("POST", "/api/v1/logs", self.job.writer, body)
        if not await self.timed(figures.appends, intended, sent, seconds_max=REQUEST_SECONDS_MAX):
            self.intended.pop(identifier, None)

    async def list(self, name: str, intended: float, figures: _Figures) -> None:
        sent = request("GET", "/api/v1/logs?limit=20", self.job.auditor)
        await self.timed(figures.lists, intended, sent, seconds_max=REQUEST_SECONDS_MAX)

    async def probe(self, name: str, intended: float, figures: _Figures) -> None:
        async def one(kind: _Kind, path: str) -> None:
            sent = request("GET", path, connection="close")
            await self.timed(kind, intended, sent, seconds_max=_PROBE_SECONDS_MAX, kept=False)

        await asyncio.gather(one(figures.healthz, "/healthz"), one(figures.readyz, "/readyz"))

    async def follow(self) -> None:
        """Note deliveries over one stream, and over another if it ends, until cancelled."""
        url = f"ws://{HOST}:{self.job.port}/api/v1/logs/stream"
        headers = {"Authorization": f"Bearer {self.job.auditor}"}
        while True:
            try:
                async with connect(url, additional_headers=headers, local_addr=(CLIENT, 0)) as socket:
                    async for message in socket:
                        self.following.set()
                        if found := json.loads(message).get("record"):
                            self.deliver(found["id"])
            except (OSError, WebSocketException, TimeoutError):
                await asyncio.sleep(_RECONNECT_SECONDS)

    def deliver(self, identifier: str) -> None:
        intended, figures = self.intended.pop(identifier, (0.0, None))
        if figures is not None:
            figures.stream.latencies.append(time.monotonic() - intended)

    async def through(self) -> None:
        """Begin all requests of all phases, and wait for them."""
        began = self.job.begins
        async with asyncio.TaskGroup() as group:
            for phase, figures in zip(self.job.phases, self.figures, strict=True):
                async with asyncio.TaskGroup() as steady:
                    for rate, send in (
                        (self.job.appends_per_second, self.append),
                        (self.job.lists_per_second, self.list),
                        (_PROBES_PER_SECOND, self.probe),
                    ):
                        times = [began + number / rate for number in range(int(rate * phase.seconds))]
                        steady.create_task(_steadily(group, times, phase.name, figures, send))
                began += phase.seconds

    async def delivered(self) -> None:
        """Wait for the last deliveries, and note what is missing."""
        until = time.monotonic() + _DELIVERY_SECONDS_MAX
        while self.intended and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for _, figures in self.intended.values():
            figures.stream.fail("not delivered")


async def _steadily(
    group: asyncio.TaskGroup,
    times: Sequence[float],
    name: str,
    figures: _Figures,
    send: Callable[[str, float, _Figures], Coroutine[None, None, None]],
) -> None:
    """Begin requests at their times, whether or not earlier ones were answered."""
    for number, intended in enumerate(times):
        await asyncio.sleep(max(0.0, intended - time.monotonic()))
        group.create_task(send(f"{name}-{number}", intended, figures))


async def _use(job: Job) -> list[Outcome]:
    victim = _Victim(job)
    following = asyncio.create_task(victim.follow())
    await victim.following.wait()
    if time.monotonic() > job.begins:
        raise RuntimeError("the machine is too slow: the first phase began before the stream was open")
    await victim.through()
    await victim.delivered()
    following.cancel()
    return [figures.outcome() for figures in victim.figures]


if __name__ == "__main__":
    outcomes = uvloop.run(_use(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))
    sys.stdout.buffer.write(msgspec.json.encode(outcomes))
