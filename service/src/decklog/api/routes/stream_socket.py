"""Follow a log by a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.types import Receive, Send, WebSocketScope

from decklog.api.auth import SUBPROTOCOL
from decklog.api.errors import (
    COMMON_HEADERS,
    NO_CONTENT_POLICY,
    NO_STORE,
    PROBLEM_JSON,
    STATUSES,
    close_code,
    problem,
    problem_headers,
    request_id,
    translated,
)
from decklog.api.limits import ClientGoneError
from decklog.api.refusals import note_refused
from decklog.api.routes.stream import LAST_MESSAGE_SECONDS, PATH, Ended, ask_stream, closing, forward_all, opened, subscribe
from decklog.domain.errors import Code, DecklogError
from decklog.services.records.streaming import Event, Subscription

CLIENT_MESSAGES_MAX = 60
"""Messages that a client may send at once, refilled by one a second. They are ignored."""
_SERVICE_RESTART = 1012
"""Close code: the server stops, and the client may reconnect."""


async def _messages(socket: WebSocket[Any, Any, Any]) -> AsyncIterator[None]:
    while (await socket.receive())["type"] != "websocket.disconnect":
        yield


async def _until_disconnect(socket: WebSocket[Any, Any, Any]) -> None:
    """Return when the client disconnects. Raises `rate-limited` if it sends too many messages."""
    clock = asyncio.get_running_loop().time
    credit, seen = float(CLIENT_MESSAGES_MAX), clock()
    async for _ in _messages(socket):
        now = clock()
        credit, seen = min(CLIENT_MESSAGES_MAX, credit + now - seen) - 1, now
        if credit < 0:
            raise DecklogError(
                Code.RATE_LIMITED, "The client sent too many messages. The stream ignores messages, so do not send any."
            )


@contextlib.contextmanager
def _gone_is_known() -> Iterator[None]:
    """Raise ClientGoneError in place of what sending to a client that left raises."""
    try:
        yield
    except (OSError, WebSocketDisconnect):
        raise ClientGoneError from None


async def _send(socket: WebSocket[Any, Any, Any], text: str) -> None:
    with _gone_is_known():
        await socket.send_data(text)


async def _follow(socket: WebSocket[Any, Any, Any], subscription: Subscription) -> None:
    async def forward(event: Event) -> None:
        position = subscription.view.mark(event.position)
        if event.record is None:
            await _send(socket, f'{{"type":"heartbeat","position":"{position}"}}')
        else:
            record = await subscription.rendered(event.record)
            await _send(socket, f'{{"type":"record","position":"{position}","record":{record}}}')

    await _send(socket, msgspec.json.encode({"type": "open", **opened(subscription)}).decode())
    ended = await forward_all(subscription, forward, _until_disconnect(socket), socket.app.state.stopping)
    if ended is Ended.STOPPING:
        await socket.close(code=_SERVICE_RESTART, reason="The server is stopping. Reconnect.")
    elif ended is Ended.EXHAUSTED:
        await socket.close()


@websocket("/logs/stream")
async def stream_socket(socket: WebSocket[Any, Any, Any]) -> None:
    """Send the stream as messages `{"type": "open" | "record" | "heartbeat" | "error", …}`.

    The handshake is accepted once the stream is open: a refused one is an HTTP answer with a problem document.
    """
    offered = socket.scope["subprotocols"]
    try:
        subscription = await subscribe(await ask_stream(socket, offered))
    except Exception as error:  # noqa: BLE001 - the edge translates every error, and logs those that it does not know
        note_refused(socket.app.state.services, socket.scope, error)
        await _refuse(translated(error, socket.scope), socket.scope, socket.send)
        return
    try:
        async with closing(subscription, socket.scope):
            with _gone_is_known():
                await socket.accept(subprotocols=SUBPROTOCOL if SUBPROTOCOL in offered else None)
            await _follow(socket, subscription)
    except Exception as error:  # noqa: BLE001 - the edge: an open WebSocket has no status, so the last message carries the error
        ours = translated(error, socket.scope)
        document = {"type": "error", "problem": problem(ours, request_id(socket.scope))}
        with contextlib.suppress(ClientGoneError, OSError, WebSocketDisconnect):
            async with asyncio.timeout(LAST_MESSAGE_SECONDS):
                await _send(socket, msgspec.json.encode(document).decode())
                await socket.close(code=close_code(ours), reason=ours.code.value)


async def refuse_socket(scope: WebSocketScope, receive: Receive, send: Send) -> None:
    """Answer the handshake of a WebSocket at any other path with a problem document."""
    await receive()
    error = DecklogError(Code.NOT_FOUND, f"There is no WebSocket at this path. The only one is {PATH}.")
    await _refuse(error, scope, send)


async def _refuse(error: DecklogError, scope: WebSocketScope, send: Send) -> None:
    body = msgspec.json.encode(problem(error, request_id(scope)))
    headers = [
        (b"content-type", PROBLEM_JSON.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id(scope).encode()),
        *problem_headers(error),
        *COMMON_HEADERS,
        NO_STORE,
        NO_CONTENT_POLICY,
    ]
    with contextlib.suppress(OSError, WebSocketDisconnect):  # the client left
        await send({"type": "websocket.http.response.start", "status": STATUSES[error.code][0], "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
