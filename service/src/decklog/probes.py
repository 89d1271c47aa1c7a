"""Answers the probes of Kubernetes and the scrapes of Prometheus, for processes that serve no API.

The server runs on a thread of its own, so a process whose event loop hangs fails its probes and says why. Callables given
to it are called on that thread.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

BEAT = timedelta(seconds=1)
"""Between two signs of life of the event loop."""
SILENCE_MAX = timedelta(seconds=30)
"""Without a sign of life of the event loop; after that the process must be restarted."""
REQUEST_BYTES_MAX = 4_096
REQUEST_TIME_MAX = timedelta(seconds=5)
"""Time that a client may hold a connection."""
CONNECTIONS_MAX = 32
"""Connections at once; further ones are closed without an answer."""


class Answer(NamedTuple):
    """One HTTP answer: status with its reason, content type and body."""

    status: str
    kind: str
    body: bytes


class Probes:
    """What one process answers. The process sets the attributes while the server runs.

    Attributes:
        ready_as: What the process is ready as; empty while it is not ready. The body of /readyz, unless there are checks.
        complaint: Returns why the process must be restarted, or an empty text.
        port: Port that the server is bound to.
    """

    def __init__(
        self, checks: Callable[[], Mapping[str, str]] | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.ready_as = ""
        self.complaint: Callable[[], str] = str
        self.port = 0
        self._checks = checks
        self._clock = clock
        self._beaten_at = clock()

    async def beat(self) -> None:
        """Show that the event loop runs, until cancelled."""
        while True:
            self._beaten_at = self._clock()
            await asyncio.sleep(BEAT.total_seconds())

    def answer(self, method: bytes, target: bytes) -> Answer:
        """Return the answer to one request."""
        if method not in (b"GET", b"HEAD"):
            return _text("405 Method Not Allowed", "only GET")
        match target.partition(b"?")[0]:
            case b"/healthz":
                complaint = "the event loop hangs" if self._silent else self.complaint()
                return _text("503 Service Unavailable", complaint) if complaint else _text("200 OK", "ok")
            case b"/readyz":
                return self._as_text() if self._checks is None else self._as_checks(self._checks())
            case b"/metrics":
                return Answer("200 OK", CONTENT_TYPE_LATEST, generate_latest())
        return _text("404 Not Found", "see /healthz, /readyz and /metrics")

    @property
    def _silent(self) -> bool:
        return self._clock() - self._beaten_at > SILENCE_MAX.total_seconds()

    def _as_text(self) -> Answer:
        return _text("200 OK", self.ready_as) if self.ready_as else _text("503 Service Unavailable", "not ready yet")

    def _as_checks(self, given: Mapping[str, str]) -> Answer:
        """The same body as /readyz of the API."""
        checks = {"event loop": "timeout" if self._silent else "ok", **given}
        ready = all(result == "ok" for result in checks.values())
        body = json.dumps({"status": "ready" if ready else "unready", "checks": checks}).encode()
        return Answer("200 OK" if ready else "503 Service Unavailable", "application/json", body)


def _text(status: str, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


@asynccontextmanager
async def serving(host: str, port: int, checks: Callable[[], Mapping[str, str]] | None = None) -> AsyncIterator[Probes]:
    """Answer probes while the block runs.

    Args:
        host: Address to bind.
        port: Port to bind; 0 takes a free one.
        checks: Returns results by name, `ok` where all is well. With it, /readyz lists them as JSON beside the event loop's.

    Raises:
        OSError: The port is taken.
    """
    probes = Probes(checks)
    server = _Server(probes, host, port)
    probes.port = await asyncio.wrap_future(server.bound)
    beating = asyncio.create_task(probes.beat(), name="probes beat")
    try:
        yield probes
    finally:
        beating.cancel()
        await asyncio.to_thread(server.stop)


class _Server:
    """One request a connection, over an event loop on a thread. `bound` gets the port, or the OSError."""

    def __init__(self, probes: Probes, host: str, port: int) -> None:
        self.bound: Future[int] = Future()
        self._probes = probes
        self._address = host, port
        self._connections = 0
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port and end the thread. Blocks; not to be called in the server's own thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            server = await asyncio.start_server(self._connected, *self._address, limit=REQUEST_BYTES_MAX)
        except OSError as error:
            self.bound.set_exception(error)
            return
        self.bound.set_result(server.sockets[0].getsockname()[1])
        await self._stopping.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_TIME_MAX.total_seconds()):
                    await self._answer(reader, writer)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # a client that sends no request gets no answer
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0].split()
        method, target = line[:2] if len(line) == 3 else (b"", b"")
        status, kind, body = self._probes.answer(method, target)
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + (b"" if method == b"HEAD" else body))
        await writer.drain()
