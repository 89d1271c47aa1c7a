"""HTTP over plain sockets, for clients that do what a library refuses to do."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from decklog.domain.errors import Code

HOST = "127.0.0.1"
PROBLEM_JSON = "application/problem+json"
CODES = frozenset(code.value for code in Code)
ANSWER_BYTES_MAX = 64 * 1024 * 1024
_BIND_ADDRESS_NO_PORT = 24  # of Linux's in.h: the kernel chooses the port at connect time and need not avoid ports in TIME_WAIT
_ESTABLISHED = 1  # of Linux's tcp_states.h

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class MalformedAnswerError(Exception):
    """The server's bytes are no HTTP answer."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. `raw` has all its bytes, head included."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes = field(repr=False, default=b"")

    @property
    def problem(self) -> dict[str, Any] | None:
        """The problem document with a known code, or None if the body is none."""
        if self.headers.get("content-type") != PROBLEM_JSON:
            return None
        try:
            document = json.loads(self.body)
        except ValueError:
            return None
        sound = isinstance(document, dict) and document.get("code") in CODES and document.get("status") == self.status
        return document if sound else None

    @property
    def words(self) -> str:
        """The status, and the code of a problem."""
        problem = self.problem
        return f"{self.status} {problem['code']}" if problem else f"{self.status}"

    @property
    def typed(self) -> bool:
        """True for a success, and for a refusal that a client can act on: a problem below 500, or 503 with Retry-After.

        A status alone counts where the body is empty.
        """
        if self.status < 400:
            return True
        if self.status >= 500 and (self.status != 503 or "retry-after" not in self.headers):
            return False
        return self.problem is not None or not self.body


def plain_socket(client: str, *, receive_bytes: int = 0) -> socket.socket:
    """Return a socket of this loopback address that is not connected; `receive_bytes` bounds its receive buffer."""
    made = socket.socket()
    made.setblocking(False)
    if receive_bytes:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    made.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
    made.bind((client, 0))
    return made


async def connected(port: int, client: str, *, receive_bytes: int = 0) -> socket.socket:
    """Return a connected socket. Raises OSError."""
    made = plain_socket(client, receive_bytes=receive_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(made, (HOST, port))
    except BaseException:
        made.close()
        raise
    return made


def is_open(connection: socket.socket) -> bool:
    """Return whether neither side has closed, without reading."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


def reset_on_close(connection: socket.socket) -> None:
    """Make `close` send RST, as a client that dies does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def streams(port: int, client: str) -> Streams:
    """Open a connection for requests and answers. Raises OSError."""
    return await asyncio.open_connection(sock=await connected(port, client))


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer:
    """Read one answer; `head` says that it answers HEAD.

    Raises:
        MalformedAnswerError: What was sent is no HTTP answer.
        EOFError: The connection ended before or within the answer.
    """
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw[:-4].split(b"\r\n")
    words = first.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise MalformedAnswerError(f"{first[:200]!r} is no status line")
    pairs = (line.partition(b":") for line in lines)
    headers = {name.decode("latin-1").lower(): value.strip().decode("latin-1") for name, _, value in pairs}
    status = int(words[1])
    if head or status < 200 or status in (204, 304):
        return Answer(status, headers, b"", raw)
    body = await _body(reader, headers)
    return Answer(status, headers, body, raw + body)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    if headers.get("transfer-encoding") != "chunked":
        return await reader.read(ANSWER_BYTES_MAX)
    chunks: list[bytes] = []
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        chunk = await reader.readexactly(size + 2)
        if not size:
            return b"".join(chunks)
        chunks.append(chunk[:-2])


def request(method: str, target: str, key: str = "", body: bytes = b"", **headers: str) -> bytes:
    """Return the bytes of a request; `_` in the name of a header stands for `-`."""
    lines = [f"{method} {target} HTTP/1.1", "host: decklog"]
    if key:
        lines.append(f"authorization: Bearer {key}")
    if body:
        headers.setdefault("content_type", "application/json")
        lines.append(f"content-length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def unhandled(log: str) -> list[str]:
    """Return the log lines of a process that have an exception."""
    return [line for line in log.splitlines() if "Traceback" in line]


def upgrade(target: str, key: str) -> bytes:
    """Return the bytes of a WebSocket handshake."""
    return request(
        "GET",
        target,
        key,
        connection="Upgrade",
        upgrade="websocket",
        sec_websocket_version="13",
        sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
    )
