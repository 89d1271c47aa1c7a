"""WebSockets of the API: Uvicorn's protocol with bounds on what a client may send, and how slowly it may read.

The stream ignores what a client sends, so every frame of it is only a cost. Messages are bounded by the route as well, with a
typed error; the bound here covers pings, pongs and fragments, which no application sees.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec
from litestar.types import WebSocketScope
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

from decklog.api.connections import Connection, Connections, Sending, SendPace
from decklog.api.errors import close_code, problem, raw_answer, request_id
from decklog.api.limits import STALLED
from decklog.domain.errors import Code, DecklogError

FRAMES_MAX: Final = 200
"""Frames that a client may send at once; more are credited by `FRAMES_RATE`."""
FRAMES_RATE: Final = 5.0
"""Frames a second."""
PART_BYTES: Final = 4 * 1024
"""Bytes that are parsed before frames are counted: the smallest frame has six, and each costs about ten microseconds."""
HANDSHAKE_SECONDS: Final = 30.0
"""Seconds for the application to accept or refuse a handshake."""


class Socket(WebSocketsSansIOProtocol):
    """One WebSocket.

    Args:
        table: The connections of the server.
        predecessor: The connection that was upgraded.
        more: What Uvicorn passes to a protocol.
    """

    def __init__(self, table: Connections, predecessor: Connection, **more: Any) -> None:
        super().__init__(**more)
        self._table = table
        self._predecessor = predecessor
        self._credit, self._credited_at = float(FRAMES_MAX), table.now
        self._began = table.now
        self._send_pace = SendPace()

    @property
    def waits_for_client(self) -> bool:
        """Never: a stream is being served."""
        return False

    def connection_made(self, transport: Any) -> None:
        """Take over the connection. What the client sends before the handshake is complete waits in its socket."""
        super().connection_made(transport)
        self.transport = cast("Any", Sending(transport))
        self._table.hand_over(self._predecessor, self)
        transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the stream."""
        self._table.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse frames, as many as the client may send."""
        if not self.handshake_initiated:
            super().data_received(data)
            if not self.handshake_initiated:
                self._refuse(DecklogError(Code.HEADERS_TOO_LARGE, "A header of the WebSocket handshake is too long."))
            return
        for at in range(0, len(data), PART_BYTES):
            self.conn.receive_data(data[at : at + PART_BYTES])
            if not self._affords(len(self.conn.events)):
                self._fail(
                    DecklogError(
                        Code.RATE_LIMITED, "The client sent too many frames. The stream ignores messages, so do not send any."
                    )
                )
                return
            if self.conn.parser_exc is not None:
                self.handle_parser_exception()
                return
            self.handle_events()
            if self.close_sent or self.transport.is_closing():
                return

    def send_receive_event_to_app(self) -> None:
        """Tell the application of a message without its content, which it ignores: Uvicorn would log text that is not UTF-8."""
        self.curr_msg_data_type = "bytes"
        self.frames = [b""]
        super().send_receive_event_to_app()

    def _affords(self, frames: int) -> bool:
        now = self._table.now
        self._credit = min(FRAMES_MAX, self._credit + (now - self._credited_at) * FRAMES_RATE) - frames
        self._credited_at = now
        return self._credit >= 0

    def _fail(self, error: DecklogError) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        self._table.refused("frames")
        self.conn.data_to_send()  # the answers to the pings are not worth sending
        if self.handshake_complete and self.conn.state is State.OPEN:
            document = {"type": "error", "problem": problem(error, request_id(cast("WebSocketScope", self.scope)))}
            self.conn.send_text(msgspec.json.encode(document))
        self.conn.fail(close_code(error), error.code.value)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Start the application for a valid handshake, and refuse any other with a problem document."""
        self.response = self.conn.accept(event)
        if self.response.status_code == 101:
            super().handle_connect(event)
        else:
            self.handshake_initiated = True
            why = self.response.body.decode("utf-8", "replace").split("\n", 1)[0][:200]
            self._refuse(DecklogError(Code.MALFORMED_REQUEST, why))

    def _refuse(self, error: DecklogError) -> None:
        """Answer the handshake with a problem document."""
        self._table.refused(error.code.value)
        self.transport.write(raw_answer(error))
        self.handshake_complete = self.close_sent = True
        self.transport.close()

    async def send(self, message: Any) -> None:
        """Send a message of the application; after `websocket.accept` the client is read."""
        await super().send(message)
        if message["type"] == "websocket.accept" and not self.transport.is_closing():
            self.transport.resume_reading()

    def resume_writing(self) -> None:
        """Continue to write: the client has read enough."""
        self._send_pace.drained = True
        super().resume_writing()

    def drop(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def look(self, now: float) -> None:
        """Disconnect a client that does not read, and end a handshake that takes too long."""
        if self._send_pace.stalled(self.transport.get_write_buffer_size(), now, self._table.limits):
            self._table.stalled("websocket")
            if self.handshake_initiated:
                self.scope["state"][STALLED] = True
            self.drop()
        elif not self.handshake_complete and self.initial_response is None and now - self._began > HANDSHAKE_SECONDS:
            self.drop()
