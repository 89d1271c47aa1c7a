"""A small server for the probes of Kubernetes, up before anything else.

Kopf's own endpoint starts only after its startup, when a process that waits for its definition or its backends would
long have been killed. `/healthz` answers as long as the event loop runs; `/readyz` once the operator watches Tenants.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_REQUEST_BYTES_MAX = 4_096
_REQUEST_SECONDS_MAX = 5.0
_CONNECTIONS_MAX = 32


class Health:
    """What the probes are told. `port` is the one that is listened on."""

    def __init__(self) -> None:
        self.ready = False
        self.port = 0
        self._connections = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, and the connection is closed."""
        self._connections += 1
        try:
            if self._connections <= _CONNECTIONS_MAX:
                async with asyncio.timeout(_REQUEST_SECONDS_MAX):
                    line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0].split()
                    status, text = self._response(line)
                    body = f"{text}\n".encode()
                    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                    writer.write(head.encode() + (b"" if line[:1] == [b"HEAD"] else body))
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # a probe that does not ask gets no answer
        finally:
            self._connections -= 1
            writer.close()

    def _response(self, line: list[bytes]) -> tuple[str, str]:
        if len(line) != 3 or line[0] not in (b"GET", b"HEAD"):
            return "405 Method Not Allowed", "only GET"
        match line[1].partition(b"?")[0]:
            case b"/healthz":
                return "200 OK", "ok"
            case b"/readyz":
                return ("200 OK", "ok") if self.ready else ("503 Service Unavailable", "not watching Tenants yet")
        return "404 Not Found", "see /healthz and /readyz"


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
