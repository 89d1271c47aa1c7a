"""One HTTP request and its answer: Uvicorn's cycle with less work for each request.

An answer whose length is known leaves in one write, head and body together: a second write costs a tenth of a request that
stores one record, and its client wakes up twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_NAME_FORBIDDEN: Final = bytes(range(0x21)) + b'()<>@,;:[]={}\\"\x7f'
_VALUE_FORBIDDEN: Final = bytes(set(range(0x20)) - {0x09}) + b"\x7f"
_NO_BODY: Final = frozenset({204, 304})
_COPIED_BYTES_MAX: Final = 64 * 1024
"""Bytes of a body that is copied behind its head. A second write costs less than to copy more."""
_log = logging.getLogger("uvicorn.error")


class Target(NamedTuple):
    """The target of a request, as sent and in parts."""

    url: bytes
    path: str
    raw_path: bytes
    query: bytes


def target_of(url: bytes, parsed: Any) -> Target:
    """Return the parts of a request target that httptools parsed. Raises UnicodeDecodeError."""
    path = parsed.path.decode("ascii")
    return Target(url, unquote(path) if "%" in path else path, parsed.path, parsed.query or b"")


def scope_of(connection: HttpToolsProtocol, target: Target) -> Any:
    """Return the request whose headers a connection has just parsed as ASGI describes it."""
    parser = connection.parser
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": parser.get_http_version(),
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme,
        "root_path": "",
        "headers": connection.headers,
        "state": {},
        "method": parser.get_method().decode("ascii"),
        "path": target.path,
        "raw_path": target.raw_path,
        "query_string": target.query,
    }


class Arrival:
    """An event for one waiting task, which costs nothing until somebody waits."""

    __slots__ = ("_happened", "_waiter")

    def __init__(self) -> None:
        self._happened = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Let the waiting task continue, or the next one that would wait."""
        self._happened = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Begin anew."""
        self._happened = False

    def is_set(self) -> bool:
        """Return whether nothing has to be waited for."""
        return self._happened

    async def wait(self) -> None:
        """Wait until it is set."""
        while not self._happened:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


class Exchange(RequestResponseCycle):
    """One request and its answer.

    Args:
        scope: The request as ASGI describes it.
        transport: Receives the bytes of the answer.
        flow: Whether the client may send, and reads.
        default_headers: Headers of every answer.
        awaits_continue: The client sends the body only after an interim answer.
        keep_alive: The connection stays open after the answer.
        on_response: Called when the answer is complete.
    """

    def __init__(
        self,
        *,
        scope: Any,
        transport: Any,
        flow: FlowControl,
        default_headers: list[tuple[bytes, bytes]],
        awaits_continue: bool,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.default_headers = default_headers
        self.message_event: Any = Arrival()
        self.on_response = on_response
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = awaits_continue
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.expected_content_length = 0
        self._chunked = False
        self._head = b""
        """The head of an answer whose body has not begun."""

    async def run(self, app: Any, forget: Callable[[Any], None]) -> None:
        """Answer with an application, then call `forget` with the task that runs this."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:  # noqa: BLE001 - the edge of the server: whatever it was, the client must not wait
            _log.error("Exception in ASGI application\n", exc_info=error)
            await self._end_broken()
        else:
            if not self.response_complete and not self.disconnected:
                _log.error("ASGI callable returned without completing response.")
                await self._end_broken()
        finally:
            self.on_response = _nothing
            forget(asyncio.current_task())

    async def _end_broken(self) -> None:
        if self.response_started:
            self.transport.close()
        else:
            await self.send_500_response()

    async def receive(self) -> Any:
        """Return the next part of the body, or that the client is gone."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            if not self.message_event.is_set():
                await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        message = {"type": "http.request", "body": bytes(self.body), "more_body": self.more_body}
        self.body = bytearray()
        return message

    async def send(self, message: Any) -> None:
        """Send the next part of the answer. Raises RuntimeError for what HTTP does not allow."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind != ("http.response.body" if self.response_started else "http.response.start") or self.response_complete:
            raise RuntimeError(f"ASGI message {kind!r} at the wrong place.")
        if self.response_started:
            self._continue(message.get("body", b""), more=message.get("more_body", False))
        else:
            self._begin(message["status"], message.get("headers", ()))

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        parts = [STATUS_LINE[status]]
        length: bytes | None = None
        closes = False
        for sent_name, value in (*self.default_headers, *headers):
            name = sent_name.lower()
            if name == b"content-length":
                length = value
            elif name == b"connection":
                closes = closes or b"close" in [token.strip().lower() for token in value.split(b",")]
            parts += (name, b": ", value, b"\r\n")
        _check(b"".join(parts[1::4]), _NAME_FORBIDDEN)
        _check(b"".join(parts[3::4]), _VALUE_FORBIDDEN)
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            parts.append(b"connection: close\r\n")
        if length is not None:
            self.expected_content_length = int(length)
        elif self.scope["method"] != "HEAD" and status not in _NO_BODY:
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        self._head = b"".join(parts)
        if length is None:
            self._write(b"")  # a stream may have nothing else to send for long

    def _continue(self, body: bytes, *, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            body = b""
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("Response content longer than Content-Length")
        if not more and self.expected_content_length:
            raise RuntimeError("Response content shorter than Content-Length")
        self._write(body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _write(self, body: bytes) -> None:
        """Send the head where it was held back, and `body`."""
        head, self._head = self._head, b""
        if len(body) > _COPIED_BYTES_MAX:
            self.transport.write(head)
            self.transport.write(body)
        else:
            self.transport.write(head + body)


def _check(joined: bytes, forbidden: bytes) -> None:
    """Raise RuntimeError for a header that would end its line or its name."""
    if len(joined.translate(None, forbidden)) != len(joined):
        raise RuntimeError("Invalid HTTP header.")


def _nothing() -> None:
    """Do nothing."""
