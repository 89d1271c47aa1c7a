"""An attacker in a process apart: its connections, and what they were answered.

A program of attacks calls `main`, which reads a `Job` as JSON from standard input and writes an `Outcome`. The attacker comes from a
loopback address of its own, ignores `Retry-After`, and opens a new connection for each that the server closes. Between a refusal
and the next request of a connection it pauses as long as a round trip over a network takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import uvloop

from tests.attacks.wire import Answer, MalformedAnswerError, Streams, connected, is_open, read_answer, reset_on_close

CLIENT = "127.0.0.2"
ROUND_TRIP_SECONDS = 0.01
_REOPEN_SECONDS = 0.25
_LOOK_SECONDS = 0.1
_ANSWER_SECONDS_MAX = 60.0
_CONNECTING_MAX = 100


class Job(msgspec.Struct, frozen=True):
    """Run one attack with these keys of the attacker's tenant.

    `begins` is the time of the first request by the clock of `time.monotonic`, which all processes share; what is sent is made before.
    """

    attack: str
    port: int
    writer: str
    auditor: str
    seconds: float
    begins: float = 0.0
    connections: int = 0
    """For attacks of any size."""


class Outcome(msgspec.Struct, frozen=True):
    """Answers by status and code. `untyped` has those that are no refusal by the rules.

    `opened` counts connections; `processor` is the share of a core.
    """

    answers: dict[str, int]
    untyped: dict[str, int]
    opened: int
    processor: float


class Attacker:
    """The connections of one attack, and what they were answered."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.answers: Counter[str] = Counter()
        self.untyped: Counter[str] = Counter()
        self.opened = 0

    async def begin(self) -> None:
        """Wait for the time of the first request."""
        await asyncio.sleep(self.job.begins - time.monotonic())

    async def connect(self, *, receive_bytes: int = 0) -> socket.socket:
        """Open a connection. Raises OSError."""
        made = await connected(self.job.port, CLIENT, receive_bytes=receive_bytes)
        self.opened += 1
        return made

    async def streams(self) -> Streams:
        """Open a connection for requests and answers. Raises OSError."""
        return await asyncio.open_connection(sock=await self.connect())

    def note(self, answer: Answer) -> None:
        self.answers[answer.words] += 1
        if not answer.typed:
            self.untyped[answer.words] += 1

    async def repeat(self, sent: bytes, connections: int) -> None:
        """Keep connections busy with the same request."""
        await self.begin()
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(self._repeat(sent))

    async def _repeat(self, sent: bytes) -> None:
        opened: Streams | None = None
        while True:
            try:
                opened = opened or await self.streams()
                answer = await self._exchanged(opened, sent)
            except (OSError, EOFError):
                self.answers["closed"] += 1
                opened = None
                await asyncio.sleep(_REOPEN_SECONDS)
                continue
            if answer is None or answer.headers.get("connection") == "close":
                opened[1].close()
                opened = None
            if answer is None or answer.status >= 400:
                await asyncio.sleep(ROUND_TRIP_SECONDS)

    async def _exchanged(self, opened: Streams, sent: bytes) -> Answer | None:
        """Send and read together, because a server may refuse before it has read everything."""
        reader, writer = opened
        writer.write(sent)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS_MAX):
                answer = await read_answer(reader)
        except TimeoutError:
            self.answers["silence"] += 1
            self.untyped["silence"] += 1
            return None
        except asyncio.CancelledError:
            self.answers["unanswered at the end"] += 1
            raise
        except MalformedAnswerError:
            self.untyped["malformed"] += 1
            return None
        self.note(answer)
        return answer

    async def hold(self, connections: int, sent: bytes, more: bytes = b"") -> None:
        """Keep connections with an unfinished request open; with `more`, go on sending it."""
        await self.begin()
        connecting = asyncio.Semaphore(_CONNECTING_MAX)
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(self._hold(connecting, sent, more))

    async def _hold(self, connecting: asyncio.Semaphore, sent: bytes, more: bytes) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                async with connecting:
                    reader, writer = await self.streams()
                writer.write(sent)
                answered = asyncio.create_task(read_answer(reader))
                try:
                    while more and not answered.done():
                        writer.write(more)
                        await writer.drain()
                    self.note(await answered)
                finally:
                    answered.cancel()
                    writer.close()
            self.answers["closed"] += 1
            await asyncio.sleep(_REOPEN_SECONDS)

    async def leave_unread(self, connections: int, sent: bytes) -> None:
        """Send a request over each connection and read nothing of its answer but the status."""
        await self.begin()
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(self._leave_unread(sent))

    async def _leave_unread(self, sent: bytes) -> None:
        while True:
            with contextlib.suppress(OSError):
                connection = await self.connect(receive_bytes=4_096)
                reset_on_close(connection)
                try:
                    await asyncio.get_running_loop().sock_sendall(connection, sent)
                    status = await self._peeked(connection)
                    self.answers[status] += 1
                    if status == "500":
                        self.untyped[status] += 1
                    while status.startswith(("1", "2")) and is_open(connection):
                        await asyncio.sleep(_LOOK_SECONDS)
                finally:
                    connection.close()
            await asyncio.sleep(_REOPEN_SECONDS)

    async def _peeked(self, connection: socket.socket) -> str:
        """Return the status of the answer, which stays in the socket's buffer."""
        while is_open(connection):
            with contextlib.suppress(BlockingIOError):
                if len(begun := connection.recv(12, socket.MSG_PEEK)) == 12:
                    return begun[9:].decode("latin-1")
            await asyncio.sleep(_LOOK_SECONDS)
        return "closed"


Attacks = Mapping[str, Callable[[Attacker], Awaitable[None]]]


def named(*attacks: Callable[[Attacker], Awaitable[None]]) -> Attacks:
    """Return the attacks by the names of their functions."""
    return {attack.__name__: attack for attack in attacks}


async def _attack(attacks: Attacks, job: Job) -> Outcome:
    attacker = Attacker(job)
    began, used = time.perf_counter(), time.process_time()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.0, job.begins - time.monotonic()) + job.seconds):
            await attacks[job.attack](attacker)
    share = (time.process_time() - used) / (time.perf_counter() - began)
    return Outcome(dict(attacker.answers), dict(attacker.untyped), attacker.opened, share)


def main(attacks: Attacks) -> None:
    """Run the attack that standard input names."""
    outcome = uvloop.run(_attack(attacks, msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
