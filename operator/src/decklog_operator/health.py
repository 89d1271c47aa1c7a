"""A small server for the probes of Kubernetes and for Prometheus, up before anything else.

Kopf's own endpoint starts only after its startup, when a process that waits for its definition, its backends or its
Lease would long have been killed. `/healthz` answers as long as the event loop runs and nothing is ill. `/readyz` is
green for a replica that stands by, too: it is as ready as it can be, and a rolling update that waited for it to lead
would wait for the end of the one that leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

_REQUEST_BYTES_MAX = 4_096
_REQUEST_SECONDS_MAX = 5.0
_CONNECTIONS_MAX = 32


class Health:
    """What the probes are told.

    `ready_as` is what this process is ready as, empty while it is not. `complaint` says why it should be started again,
    with an empty text while it should not. `port` is the one that is listened on.
    """

    def __init__(self) -> None:
        self.ready_as = ""
        self.complaint: Callable[[], str] = str
        self.port = 0
        self._connections = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, and the connection is closed."""
        self._connections += 1
        try:
            if self._connections <= _CONNECTIONS_MAX:
                async with asyncio.timeout(_REQUEST_SECONDS_MAX):
                    line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0].split()
                    status, kind, body = self._response(line)
                    head = (
                        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                    )
                    writer.write(head.encode() + (b"" if line[:1] == [b"HEAD"] else body))
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # a probe that does not ask gets no answer
        finally:
            self._connections -= 1
            writer.close()

    def _response(self, line: list[bytes]) -> tuple[str, str, bytes]:
        """Status, content type and body."""
        if len(line) != 3 or line[0] not in (b"GET", b"HEAD"):
            return _text("405 Method Not Allowed", "only GET")
        match line[1].partition(b"?")[0]:
            case b"/healthz":
                complaint = self.complaint()
                return _text("503 Service Unavailable", complaint) if complaint else _text("200 OK", "ok")
            case b"/readyz" if self.ready_as:
                return _text("200 OK", self.ready_as)
            case b"/readyz":
                return _text("503 Service Unavailable", "not ready to watch Tenants yet")
            case b"/metrics":
                return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
        return _text("404 Not Found", "see /healthz, /readyz and /metrics")


def _text(status: str, text: str) -> tuple[str, str, bytes]:
    return status, "text/plain", f"{text}\n".encode()


@asynccontextmanager
async def serving(host: str, port: int) -> AsyncIterator[Health]:
    """Answers probes while the block runs. Raises OSError when the port is taken."""
    health = Health()
    server = await asyncio.start_server(health.answer, host, port, limit=_REQUEST_BYTES_MAX)
    health.port = server.sockets[0].getsockname()[1]
    try:
        yield health
    finally:
        server.close()
