"""The HTTP server, inside an event loop that others own: signals, lifespan and logging are the caller's."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from decklog.domain.errors import Code, DecklogError

GRACE_SECONDS = 10
"""For open requests to end once the server stops."""
LINGER_SECONDS = 2
"""Before that, for connections that clients keep: each is told with its next answer that it ends. To close one that is idle would
lose the request that is on its way."""
KEEP_ALIVE_SECONDS = 75
"""Longer than the idle time of common load balancers (60 s), so that they close first and never race us."""
CLIENT_MESSAGE_BYTES_MAX = 4 * 1024
"""Of a WebSocket; nothing that clients say to a stream means anything."""
BACKLOG = 1_024


class _Uvicorn(uvicorn.Server):
    """Uvicorn that leaves the process's signals alone and says when it listens."""

    def __init__(self, config: uvicorn.Config, linger: float) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()
        self._linger = linger

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._linger
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        while self.server_state.connections and loop.time() < until:  # noqa: ASYNC110 - Uvicorn tells nobody when one ends
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


@dataclass(frozen=True)
class Running:
    """A server that listens. `finished` ends when it stops, with the reason where that was an error."""

    port: int
    finished: asyncio.Task[None]


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; port 0 picks a free one. Raises OSError, which names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror or str(error), f"{host}:{port}") from None
    return listener


def proxies(setting: str) -> list[str]:
    """The addresses and networks of `DECKLOG_API_TRUSTED_PROXIES`. Raises `misconfigured`: Uvicorn would take a slip for the
    name of a host, and never meet it."""
    found = [each.strip() for each in setting.split(",") if each.strip()]
    for number, each in enumerate(found, start=1):
        try:
            ipaddress.ip_network(each)
        except ValueError:
            raise DecklogError(
                Code.MISCONFIGURED,
                f"DECKLOG_API_TRUSTED_PROXIES: entry {number} must be an address or a network, as in 10.0.0.7 or 10.0.0.0/8.",
            ) from None
    return found


@asynccontextmanager
async def serve(
    app: Any,
    host: str,
    port: int,
    *,
    listener: socket.socket | None = None,
    freeze: bool = True,
    trusted_proxies: str = "",
    linger: float = 0.0,
) -> AsyncIterator[Running]:
    """Serve an ASGI application; leaving the context stops it and waits for open requests. Port 0 picks a free one.

    `listener` is a socket of `listen` to serve on, in place of a new one; it is closed at the end.

    `linger` is how many seconds it goes on answering then, at most, until no connection is left.

    `freeze` takes what is in memory now out of the garbage collector's sight, for a process that does nothing else. A
    request of one of `trusted_proxies` comes from the last address in X-Forwarded-For that is none of them: what stands
    before it may be anybody's claim. Raises OSError where the address cannot be had, and `misconfigured`.
    """
    trusted = proxies(trusted_proxies)
    listener = listener or listen(host, port)
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=CLIENT_MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=bool(trusted),
        forwarded_allow_ips=trusted,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Uvicorn(config, linger)
    running = asyncio.create_task(server.serve(sockets=[listener]), name="http-server")
    try:
        listens = asyncio.create_task(server.listens.wait())
        await asyncio.wait({listens, running}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            listens.cancel()
            await running
        if freeze:
            # What is here now stays: the collector need not look at it again, which halves the slowest requests.
            gc.collect()
            gc.freeze()
        yield Running(port=listener.getsockname()[1], finished=running)
    finally:
        stopping = getattr(getattr(app, "state", None), "stopping", None)
        if isinstance(stopping, asyncio.Event):
            stopping.set()
        server.should_exit = True
        await asyncio.wait({running})
        listener.close()
        if freeze:
            gc.unfreeze()
