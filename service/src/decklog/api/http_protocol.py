"""HTTP/1.1 of the API: Uvicorn's protocol with bounds on what a client may send, and how slowly, before anybody is known.

Every refusal is a problem document and closes the connection. No timer exists per connection or request: `connections` sweeps.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import httptools
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from decklog.api.connections import Connection, Connections, Pace, Sending, SendPace
from decklog.api.errors import raw_answer
from decklog.api.exchange import Exchange, Target, scope_of, target_of
from decklog.api.limits import BODY_SECONDS_MAX, BULK_BYTES_MAX, STALLED
from decklog.api.request import QUERY_BYTES_MAX
from decklog.api.socket_protocol import Socket
from decklog.domain.errors import Code, DecklogError

HEADERS_MAX: Final = 100
"""Headers of one request."""
URI_BYTES_MAX: Final = QUERY_BYTES_MAX + 4 * 1024
"""Bytes of a request target: the longest query, and a path."""
PIPELINED_MAX: Final = 16
"""Requests that may wait on one connection for the answers before them."""
UNREAD_BYTES_MAX: Final = BULK_BYTES_MAX + 1024 * 1024
"""Bytes that are read and discarded after the answer: clients commonly send a whole body before they read why it is refused."""
FRAMING_BYTES_MAX: Final = 64 * 1024
"""Bytes of a body that are not content (chunk sizes, extensions, trailers), beyond `FRAMING_SHARE_MAX` times its content."""
FRAMING_SHARE_MAX: Final = 16
LINGER_SECONDS: Final = 2.0
"""Seconds that a refused connection stays open: closing it at once while its client still sends would destroy the answer."""
LINGER_BYTES_MAX: Final = 1024 * 1024
"""Bytes that are discarded meanwhile."""

_IDLE, _HEAD, _BODY = range(3)
"""The part that is expected next: a request, the rest of its headers, the rest of its body."""

_log = structlog.get_logger(__name__)


class _RefusedError(Exception):
    """The parser must stop: raised in its callbacks."""

    def __init__(self, error: DecklogError) -> None:
        super().__init__(error.detail)
        self.error = error


def _malformed(detail: str) -> DecklogError:
    return DecklogError(Code.MALFORMED_REQUEST, detail)


def _too_large(limit: int) -> DecklogError:
    return DecklogError(
        Code.HEADERS_TOO_LARGE, f"The request line and headers may have at most {limit} bytes and {HEADERS_MAX} headers."
    )


_URI_TOO_LONG = DecklogError(Code.URI_TOO_LONG, f"The request target may have at most {URI_BYTES_MAX} bytes.")


class Http(HttpToolsProtocol):
    """One connection.

    Args:
        table: The connections of the server.
        predecessor: What this connection was counted as before, during the handshake of TLS; None for a new connection.
        more: What Uvicorn passes to a protocol.
    """

    def __init__(self, table: Connections, predecessor: Connection | None = None, **more: Any) -> None:
        super().__init__(**more)
        self._table = table
        self._predecessor = predecessor
        self._limits = table.limits
        self._phase = _IDLE
        self._since = table.now
        """Beginning of the phase, or of the last answer's end."""
        self._room = self._limits.header_bytes_max
        """Bytes that the headers of this request may still have."""
        self._fed = 0
        """Bytes parsed since the headers were complete."""
        self._content = 0
        """Bytes of the body among them."""
        self._target = Target(b"", "", b"", b"")
        self._running: RequestResponseCycle | None = None
        """The request being answered; `cycle` is the newest, which may wait for it."""
        self._upgrades = False
        """The newest request asks for a WebSocket."""
        self._deaf = False
        """The parser takes no more of what arrives."""
        self._discarded = 0
        self._close_at: float | None = None
        self._body_pace = Pace()
        self._looked_at = 0
        """`_content` at the last sweep."""
        self._send_pace = SendPace()

    # Uvicorn's interface: the connection

    def connection_made(self, transport: Any) -> None:
        """Count the connection, and refuse it where there are too many."""
        super().connection_made(transport)
        self._sending: Any = Sending(transport)
        self._since = self._table.now
        if self._predecessor is not None:
            self._table.hand_over(self._predecessor, self)
            self._predecessor = None
            return
        refusal = self._table.admit(self, self.client[0] if self.client else None)
        if refusal is not None:
            self._table.refused(refusal.code.value)
            if self._table.may_answer_refusals:
                self._answer(refusal)
            else:
                self._deaf = True
                self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what the connection carried."""
        self._table.left(self)
        running = self._running
        super().connection_lost(exc)
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse what arrives, up to the bounds."""
        if self._deaf:
            self._discard(len(data))
        elif self._phase == _BODY or len(data) <= self._room:
            self._feed(data, len(data))
        else:
            self._feed_in_parts(memoryview(data))

    def resume_writing(self) -> None:
        """Continue to write: the client has read enough."""
        self._send_pace.drained = True
        super().resume_writing()

    def handle_websocket_upgrade(self) -> None:
        """Continue as a WebSocket."""
        self._deaf = True
        self.ws_protocol_class = partial(Socket, self._table, self)  # type: ignore[assignment]
        super().handle_websocket_upgrade()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Check the headers, then start the request."""
        names = dict(self.headers)
        self._check_head(names)
        if self.url != self._target.url:
            self._target = target_of(self.url, httptools.parse_url(self.url))  # many requests of a connection have the same one
        scope = self.scope = scope_of(self, self._target)
        self._phase = _BODY
        self._since = self._table.now
        self._fed = self._content = self._looked_at = 0
        self._body_pace.reset()
        if self._upgrades:
            return
        self.headers = []  # trailers must not become headers of the request
        earlier = self.cycle
        exchange = self.cycle = Exchange(
            scope=scope,
            transport=self._sending,
            flow=self.flow,
            default_headers=self.server_state.default_headers,
            awaits_continue=names.get(b"expect", b"").lower() == b"100-continue",
            keep_alive=scope["http_version"] == "1.1" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def on_body(self, body: bytes) -> None:
        """Take a part of the body. A request to upgrade has none."""
        self._content += len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Expect the next request."""
        self._phase = _IDLE
        self._since = self._table.now
        self._room = self._limits.header_bytes_max
        cycle = self.cycle
        if not self._upgrades and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Start the next pipelined request, if there is one. Unlike Uvicorn's own, this sets no timer."""
        self.server_state.total_requests += 1
        self._since = self._table.now
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        self.tasks.add(self.loop.create_task(cycle.run(app, self.tasks.discard)))

    # Parsing within bounds

    def _feed(self, data: bytes | memoryview, size: int) -> None:
        if self._phase == _IDLE:
            self._phase = _HEAD
            self._since = self._table.now
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError as error:
            self._refuse(self._reason_of(error))
        else:
            if self._phase == _HEAD:
                self._room -= size
                if self._room <= 0:
                    long = not self.headers and len(getattr(self, "url", b"")) > URI_BYTES_MAX // 2
                    self._refuse(_URI_TOO_LONG if long else _too_large(self._limits.header_bytes_max))
            elif self._phase == _BODY:
                self._fed += size
                self._check_body()

    def _feed_in_parts(self, data: memoryview) -> None:
        """Feed no more than the headers may have at a time: the parser cannot stop in between."""
        at = 0
        while at < len(data) and not self._deaf:
            step = len(data) - at if self._phase == _BODY else max(1, self._room)
            part = data[at : at + step]
            self._feed(part, len(part))
            at += step

    @staticmethod
    def _reason_of(error: Exception) -> DecklogError:
        cause = error.__context__
        if isinstance(cause, _RefusedError):
            return cause.error
        if cause is not None and not isinstance(cause, (httptools.HttpParserError, ValueError, AttributeError)):
            _log.error("a request could not be parsed", exc_info=cause)
        return _malformed(f"The bytes sent are not a valid HTTP/1.1 request: {error}.")

    def _check_head(self, names: dict[bytes, bytes]) -> None:
        """Raise _RefusedError for headers that are too many, too long or ambiguous.

        Two readers may understand an ambiguous request differently, and a proxy may be the other one (request smuggling). The
        parser itself refuses doubled lengths, a length beside a Transfer-Encoding, folded lines and bare line breaks.
        """
        headers = self.headers
        self._upgrades = False
        if (
            len(names) != len(headers)
            or b"host" not in names
            or b"transfer-encoding" in names
            or b"upgrade" in names
            or len(headers) > HEADERS_MAX
            or len(self.url) > URI_BYTES_MAX
            or self.url[:1] != b"/"
            or self.parser.get_http_version() != "1.1"
            or self.pipeline
        ):
            self._check_unusual_head(names)

    def _check_unusual_head(self, names: dict[bytes, bytes]) -> None:
        version = self.parser.get_http_version()
        self._upgrades = self.parser.should_upgrade() and self._should_upgrade()
        hosts = sum(name == b"host" for name, _ in self.headers)
        refusal: DecklogError | None = None
        if len(self.headers) > HEADERS_MAX:
            refusal = _too_large(self._limits.header_bytes_max)
        elif len(self.url) > URI_BYTES_MAX:
            refusal = _URI_TOO_LONG
        elif version not in ("1.1", "1.0"):
            refusal = _malformed("The version of HTTP must be 1.1 or 1.0.")
        elif hosts > 1 or (hosts == 0 and version == "1.1"):
            refusal = _malformed("A request must have exactly one header Host.")
        elif b"transfer-encoding" in names and (version == "1.0" or names[b"transfer-encoding"].lower() != b"chunked"):
            refusal = _malformed("Transfer-Encoding must be chunked, in HTTP/1.1.")
        elif not self.url.startswith((b"/", b"http://", b"https://")):
            refusal = _malformed("The request target must be a path, as in GET /api/v1/logs.")
        elif self.parser.should_upgrade() and (self._busy or self._declares_body(names)):
            refusal = _malformed(
                "A request with the header Upgrade must have no body and follow no unanswered request. Send it without Upgrade."
            )
        elif len(self.pipeline) >= PIPELINED_MAX:
            refusal = _malformed(f"At most {PIPELINED_MAX} requests may wait for an answer on one connection.")
        if refusal is not None:
            raise _RefusedError(refusal)

    @staticmethod
    def _declares_body(names: dict[bytes, bytes]) -> bool:
        return b"transfer-encoding" in names or names.get(b"content-length", b"0").strip(b"0") != b""

    def _check_body(self) -> None:
        """Refuse a body that is mostly framing, and end a connection that sends on and on after its answer."""
        framing = self._fed - self._content - self._limits.header_bytes_max
        if framing > FRAMING_BYTES_MAX + FRAMING_SHARE_MAX * self._content:
            self._refuse(_malformed("The body consists mostly of chunk sizes, chunk extensions or trailers."))
        elif self._fed > UNREAD_BYTES_MAX and not self._busy:
            self._table.refused("body-unread")
            self.drop()

    def _upgrade(self) -> None:
        if self._should_upgrade():
            self.handle_websocket_upgrade()
        else:  # answered as HTTP/1.1, as RFC 9110 (7.8) allows; the parser has lost what follows
            self._end_after_answers()

    # Ending

    @property
    def _busy(self) -> bool:
        """True while a request is being answered."""
        return self._running is not None and not self._running.response_complete

    @property
    def waits_for_client(self) -> bool:
        """True while no request is complete or being answered."""
        return not self._busy and self._phase != _BODY

    def _refuse(self, error: DecklogError) -> None:
        """Stop parsing, and send `error`, unless this request has an answer or earlier ones still wait for theirs."""
        self._table.refused(error.code.value)
        own = self._running if self._running is self.cycle and self._phase == _BODY else None
        if not self._busy and self._phase == _BODY:
            self._deaf = True  # the request has its answer already
            self.transport.close()
        elif not self._busy:
            self._answer(error)
        elif own is not None and not own.response_started:
            own.disconnected = True  # the application ends without an answer
            own.message_event.set()
            self._answer(error)
        else:
            if self._phase == _BODY and self.pipeline:
                self.pipeline.popleft()  # the newest waits for a body that never comes
            self._end_after_answers()

    def _answer(self, error: DecklogError) -> None:
        self._deaf = True
        self.pipeline.clear()
        self._sending.write(raw_answer(error))
        self.flow.resume_reading()
        self._close_at = self._table.now + max(LINGER_SECONDS, self._limits.tick)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _end_after_answers(self) -> None:
        """Stop parsing, and close the connection with the answer to the last request parsed."""
        self._deaf = True
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is not None:
            last.keep_alive = False

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > LINGER_BYTES_MAX:
            if self._close_at is not None or not self._busy:
                self.drop()
            else:
                self.flow.pause_reading()

    def drop(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    # Waiting

    def look(self, now: float) -> None:
        """End whatever has waited too long."""
        unsent = self.transport.get_write_buffer_size()
        if self._send_pace.stalled(unsent, now, self._limits):
            self._disconnect_reader()
        elif self._close_at is not None and now >= self._close_at:
            self.drop()
        elif self._deaf or self.transport.is_closing():
            pass  # the answers under way end the connection
        elif self._phase == _BODY:
            self._look_at_body(now)
        elif not self._busy:
            self._look_at_wait(now, unsent)

    def _disconnect_reader(self) -> None:
        self._table.stalled("http")
        if self._running is not None:
            self._running.scope["state"][STALLED] = True
        self.drop()

    def _look_at_body(self, now: float) -> None:
        moved, self._looked_at = self._content - self._looked_at, self._content
        if self.flow.read_paused:
            self._body_pace.reset()  # the service does not read, so the client cannot send
        elif self._body_pace.too_slow(moved, now, self._limits.receive_timeout, self._limits.transfer_rate_min):
            self._refuse(_too_slow(self._limits.receive_timeout, self._limits.transfer_rate_min))
        elif not self._busy and now - self._since > BODY_SECONDS_MAX:
            self._table.refused("body-unread")
            self.drop()

    def _look_at_wait(self, now: float, unsent: int) -> None:
        waited = now - self._since
        if self._phase == _HEAD:
            if waited > self._limits.header_timeout:
                seconds = f"{self._limits.header_timeout:g}"
                self._refuse(DecklogError(Code.REQUEST_TIMEOUT, f"The headers did not arrive within {seconds} seconds."))
        elif waited > (self._limits.header_timeout if self.cycle is None else self._limits.idle_timeout):
            if unsent:
                self._disconnect_reader()
            else:
                self.transport.close()


def _too_slow(seconds: float, rate: int) -> DecklogError:
    return DecklogError(
        Code.REQUEST_TIMEOUT, f"The body moved by less than {rate} bytes a second for {seconds:g} seconds. Send it faster."
    )
