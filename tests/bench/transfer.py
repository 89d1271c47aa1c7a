"""The client of an export and of its baseline COPY: a separate process that receives and discards bytes.

`python -m tests.bench.transfer` reads a `Transfer` as JSON from standard input and writes a `Received`.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import asyncpg
import msgspec

from tests.bench.processes import apart

_CHUNK = 1024 * 1024
_END = b"\r\n0\r\n\r\n"
_TIMEOUT = 120.0


class Transfer(msgspec.Struct, frozen=True):
    """An HTTP request to `host` and `port`, or a query to copy out of the database at `dsn`."""

    host: str = ""
    port: int = 0
    request: bytes = b""
    dsn: str = ""
    query: str = ""


class Received(msgspec.Struct, frozen=True):
    """Received bytes, and the seconds from the request on."""

    size: int
    seconds: float


def _http(transfer: Transfer) -> int:
    """Return the bytes of a complete chunked answer. Raise RuntimeError for any other."""
    with socket.create_connection((transfer.host, transfer.port), timeout=_TIMEOUT) as connection:
        connection.sendall(transfer.request)
        buffer = memoryview(bytearray(_CHUNK))
        size, tail = 0, b""
        while not tail.endswith(_END):
            count = connection.recv_into(buffer)
            if not count or (not size and bytes(buffer[9:12]) != b"200"):
                raise RuntimeError(f"the answer was not whole: {bytes(buffer[:300])!r}")
            size += count
            tail = (tail + bytes(buffer[max(0, count - len(_END)) : count]))[-len(_END) :]
    return size


async def _copy(transfer: Transfer) -> int:
    size = 0

    async def taken(data: bytes) -> None:
        nonlocal size
        size += len(data)

    connection = await asyncpg.connect(transfer.dsn)
    try:
        await connection.copy_from_query(transfer.query, output=taken)
    finally:
        await connection.close()
    return size


async def receive(transfer: Transfer) -> Received:
    """Run the transfer in a separate process. Raise RuntimeError with its output if it fails."""
    return await apart("tests.bench.transfer", transfer, Received)


def _main() -> None:
    transfer = msgspec.json.decode(sys.stdin.buffer.read(), type=Transfer)
    began = time.perf_counter()
    size = _http(transfer) if transfer.request else asyncio.run(_copy(transfer))
    sys.stdout.buffer.write(msgspec.json.encode(Received(size, time.perf_counter() - began)))


if __name__ == "__main__":
    _main()
