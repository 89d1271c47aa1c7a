"""Hostile connections: one function for each kind, as many connections as the job says.

`python -m tests.attacks.hostile` runs one kind in a process apart; see `tests.attacks.attacker`.
"""

from __future__ import annotations

import asyncio
import contextlib

from tests.attacks.attacker import Attacker, main, named
from tests.attacks.wire import is_open, request, reset_on_close, upgrade

_BYTE_SECONDS = 0.2
_LOOK_SECONDS = 0.1
_RESETS_PER_SECOND = 400
_CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(193))
"""The beginning of a TLS 1.2 handshake, then bytes that are none."""


async def slow_headers(attacker: Attacker) -> None:
    """A head that arrives byte by byte."""
    sent = request("GET", "/api/v1/logs?limit=1", attacker.job.auditor)

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                connection = await attacker.connect()
                try:
                    for byte in sent:
                        await asyncio.get_running_loop().sock_sendall(connection, bytes([byte]))
                        await asyncio.sleep(_BYTE_SECONDS)
                        if not is_open(connection):
                            break
                finally:
                    connection.close()
            attacker.answers["closed"] += 1
            await asyncio.sleep(_BYTE_SECONDS)

    await asyncio.gather(*(one() for _ in range(attacker.job.connections)))


async def half_bodies(attacker: Attacker) -> None:
    """Half of the body of an append, and no more."""
    sent = request(
        "POST", "/api/v1/logs", attacker.job.writer, b'{"action": "a", "actor": {"id": "mallory"}, "message": "never"}'
    )
    await attacker.hold(attacker.job.connections, sent[:-30])


async def silent_connections(attacker: Attacker) -> None:
    """Connections over which nothing is sent."""
    await attacker.hold(attacker.job.connections, b"")


async def tls_to_plain(attacker: Attacker) -> None:
    """A TLS handshake with a server that speaks plain HTTP."""
    await attacker.hold(attacker.job.connections, _CLIENT_HELLO)


async def silent_sockets(attacker: Attacker) -> None:
    """WebSocket handshakes, after which the client neither reads nor answers a ping."""
    await attacker.leave_unread(attacker.job.connections, upgrade("/api/v1/logs/stream", attacker.job.auditor))


async def unread_lists(attacker: Attacker) -> None:
    """Lists that the client does not read."""
    await attacker.leave_unread(attacker.job.connections, request("GET", "/api/v1/logs?limit=200", attacker.job.auditor))


async def unread_pipelines(attacker: Attacker) -> None:
    """Requests one after the other without reading an answer."""
    sent = request("GET", "/api/v1/logs?limit=5", attacker.job.auditor) * 100

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                connection = await attacker.connect(receive_bytes=4_096)
                reset_on_close(connection)
                try:
                    while is_open(connection):
                        await asyncio.get_running_loop().sock_sendall(connection, sent)
                        await asyncio.sleep(_LOOK_SECONDS)
                finally:
                    connection.close()
            attacker.answers["closed"] += 1
            await asyncio.sleep(_LOOK_SECONDS)

    await asyncio.gather(*(one() for _ in range(attacker.job.connections)))


async def resets(attacker: Attacker) -> None:
    """Connections that the client resets at once, every second one within a request."""
    pause = attacker.job.connections / _RESETS_PER_SECOND

    async def one(number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                connection = await attacker.connect()
                reset_on_close(connection)
                if number % 2:
                    sent = request("GET", "/api/v1/logs?limit=200", attacker.job.auditor)
                    await asyncio.get_running_loop().sock_sendall(connection, sent)
                connection.close()
                attacker.answers["reset"] += 1
            await asyncio.sleep(pause)

    await asyncio.gather(*(one(number) for number in range(attacker.job.connections)))


KINDS = named(slow_headers, half_bodies, silent_connections, tls_to_plain, silent_sockets, unread_lists, unread_pipelines, resets)

if __name__ == "__main__":
    main(KINDS)
