"""The HTTP server in a running event loop. The caller handles signals and logging; there is no lifespan."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn

from decklog.api.certificates import Certificates, Handshake
from decklog.api.connections import Connections, Limits, watched
from decklog.api.http_protocol import Http
from decklog.domain.errors import Code, DecklogError

GRACE_SECONDS = 10
"""Seconds for open requests to end after the server stops."""
LINGER_SECONDS = 2
"""Seconds before that for kept-alive connections: the next answer on each closes it. Closing an idle connection at once would lose
a request that is under way."""
CLIENT_MESSAGE_BYTES_MAX = 4 * 1024
"""Bytes of a WebSocket message from a client; such messages are ignored."""
GARBAGE_OBJECTS = 2_000
"""New objects between two rounds of garbage collection. Requests under way are more than Python's default of 700, so that each
round would look at the same ones again: 4 % of an append."""
BACKLOG = 1_024
"""Connections that wait to be accepted."""


class _Uvicorn(uvicorn.Server):
    """Uvicorn without signal handlers, with an event for when it listens."""

    def __init__(self, config: uvicorn.Config, linger: float) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()
        self._linger = linger

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals of the process to the caller."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then set `listens`."""
        await super().startup(sockets)
        self.listens.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close kept-alive connections with their next answer, for up to `linger` seconds; then stop."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._linger
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        while self.server_state.connections and loop.time() < until:  # noqa: ASYNC110 - Uvicorn has no event for this
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


@dataclass(frozen=True)
class Running:
    """A listening server. `finished` ends when the server stops, and raises the error that stopped it."""

    port: int
    finished: asyncio.Task[None]


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 selects a free port. Raises OSError, which names the address."""
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
    """Return the addresses and networks of `DECKLOG_API_TRUSTED_PROXIES`.

    Raises `misconfigured` for anything else: Uvicorn would treat it as a literal that never matches.
    """
    found = [each.strip() for each in setting.split(",") if each.strip()]
    for number, each in enumerate(found, start=1):
        try:
            ipaddress.ip_network(each)
        except ValueError:
            raise DecklogError(
                Code.MISCONFIGURED,
                f"DECKLOG_API_TRUSTED_PROXIES: entry {number} is neither an IP address (10.0.0.7) nor a network (10.0.0.0/8).",
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
    limits: Limits | None = None,
    certificates: Certificates | None = None,
) -> AsyncIterator[Running]:
    """Serve an ASGI application. Leaving the context stops the server and waits for open requests.

    Args:
        app: The application. Its `state.stopping`, if it has one, is set when the server stops.
        host: Address to listen on.
        port: Port to listen on; 0 selects a free one.
        listener: Socket from `listen` to use instead of a new one; it is closed at the end.
        freeze: Exclude the objects that exist now from garbage collection, for a process that does nothing else.
        trusted_proxies: Addresses and networks of proxies, separated by commas. The address of a request from one of them is
            the last one in X-Forwarded-For that is not a trusted proxy; clients may forge the ones before it.
        linger: Seconds for which kept-alive connections are still answered after the stop.
        limits: Bounds of connections; the defaults of the settings where None.
        certificates: Serves HTTPS with them; None for HTTP.

    Raises:
        OSError: The address cannot be used.
        DecklogError: `misconfigured`, for malformed proxies.
    """
    trusted, thresholds = proxies(trusted_proxies), gc.get_threshold()
    listener = listener or listen(host, port)
    async with watched(limits or Limits(), trusted) as connections:
        server = _Uvicorn(_config(app, trusted, _protocols(connections, certificates)), linger)
        reloading = None if certificates is None else asyncio.create_task(certificates.keep_watch(), name="certificates")
        running = asyncio.create_task(server.serve(sockets=[listener]), name="http-server")
        try:
            await _listening(server, running)
            if freeze:
                # These objects stay for the life of the process. Not traversing them halves the slowest requests.
                gc.collect()
                gc.freeze()
                gc.set_threshold(GARBAGE_OBJECTS, *thresholds[1:])
            yield Running(port=listener.getsockname()[1], finished=running)
        finally:
            stopping = getattr(getattr(app, "state", None), "stopping", None)
            if isinstance(stopping, asyncio.Event):
                stopping.set()
            server.should_exit = True
            await asyncio.wait({running})
            if reloading is not None:
                reloading.cancel()
            listener.close()
            if freeze:
                gc.set_threshold(*thresholds)
                gc.unfreeze()


async def _listening(server: _Uvicorn, running: asyncio.Task[None]) -> None:
    """Wait until the server listens. Raises the error with which it ended instead."""
    listens = asyncio.create_task(server.listens.wait())
    await asyncio.wait({listens, running}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        listens.cancel()
        await running


def _protocols(connections: Connections, certificates: Certificates | None) -> Callable[..., asyncio.Protocol]:
    """Return what makes the protocol of a new connection, from the arguments that Uvicorn passes."""
    if certificates is None:
        return partial(Http, connections)

    def handshake(**more: Any) -> asyncio.Protocol:
        proceed = partial(Http, connections, **more)
        return Handshake(connections, certificates, proceed, more["server_state"].connections)

    return handshake


def _config(app: Any, trusted: list[str], protocols: Callable[..., asyncio.Protocol]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=protocols,  # type: ignore[arg-type] # a factory is all that Uvicorn needs
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
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
