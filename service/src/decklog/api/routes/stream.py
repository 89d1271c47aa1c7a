"""Records as they come: over a WebSocket, or as Server-Sent Events on the same path.

Both forward one subscription, no faster than the client takes it; catching up and slow readers are the subscription's
work. An error is said in the protocol's own way and then the stream ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum, auto
from typing import Any

import msgspec
import structlog
from litestar import Request, WebSocket, get, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.types import ASGIApp, Receive, Scope, Send, WebSocketScope

from decklog.api.auth import SUBPROTOCOL, authenticate
from decklog.api.errors import PROBLEM_JSON, close_code, problem, request_id, translated
from decklog.api.limits import ClientGoneError
from decklog.api.operations import STREAM
from decklog.api.request import Asked, ask, context_of, query_parameters
from decklog.api.services import ApiServices
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, acting_tenant
from decklog.domain.records.wire import renderer
from decklog.services.records.streaming import Event, Subscription

PATH = "/api/v1/logs/stream"
EVENT_STREAM = "text/event-stream"
CLIENT_MESSAGES_MAX = 60
"""Messages that a client may send at once, though none means anything; refilled with one per second."""
RETRY_MILLISECONDS = 1_000
"""What an EventSource is told to wait before it comes back."""
LAST_WORDS_SECONDS = 0.5
"""For what a client is told at the end, if it reads at all."""
_GOING_AWAY = 1012

_log = structlog.get_logger(__name__)


def _after(asked: Asked, last_event_id: str | None) -> tuple[Asked, str | None]:
    """Where to go on, and the parameters without it. `Last-Event-ID` is newer than the address it comes with."""
    given = [value for name, value in asked.parameters if name == "after"]
    if len(given) > 1:
        raise DecklogError(Code.INVALID_PARAMETER, "after: may be given once only.", extra={"parameter": "after"})
    others = [(name, value) for name, value in asked.parameters if name != "after"]
    return asked._replace(parameters=others), last_event_id or (given[0] if given else None)


async def _open(asked: Asked, last_event_id: str | None = None) -> Subscription:
    acting_tenant(asked.principal, Permission.READ)
    asked, after = _after(asked, last_event_id)
    return await asked.services.streams.open(asked.principal, asked.context, asked.parameters, after)


class Ended(Enum):
    """Why forwarding ended without an error."""

    CLIENT_GONE = auto()
    STOPPING = auto()
    """This process stops."""
    EXHAUSTED = auto()


async def forward_all(
    subscription: Subscription,
    forward: Callable[[Event], Awaitable[None]],
    gone: Awaitable[None],
    stopping: asyncio.Event,
) -> Ended:
    """Move events to one client until it is gone, the process stops or the subscription ends. Raises what ended it."""

    async def pump() -> None:
        async for event in subscription:
            await forward(event)

    waits = (pump(), gone, stopping.wait(), subscription.ended.wait())
    pumping, left, stop, ended = tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if ended.done() and not pumping.done():
            # The next event would say why, but a client that does not read may hold up the one before.
            await asyncio.wait({pumping, left}, timeout=LAST_WORDS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not pumping.done():
                pumping.cancel()
                await asyncio.wait({pumping})
                await anext(aiter(subscription))
        if pumping.done():
            await pumping
        if left.done():
            await left
            return Ended.CLIENT_GONE
        return Ended.STOPPING if stop.done() else Ended.EXHAUSTED
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# Server-Sent Events


@get("/logs/stream", opt=STREAM)
async def stream_events(request: Request[Any, Any, Any]) -> ASGIApp:
    """Follow a log.

    A WebSocket, or Server-Sent Events with `Accept: text/event-stream`. Every event carries a position; giving it as
    `after` (or `Last-Event-ID`) goes on from there without a gap or a double. Without it the stream begins with what
    comes next. Heartbeats carry the position too. In a browser the WebSocket takes the token as a subprotocol:
    `new WebSocket(url, ["decklog", "bearer.<token>"])`.
    """
    asked = await ask(request)
    accept = request.headers.get("accept", "*/*")
    if EVENT_STREAM not in accept and "*/*" not in accept and "text/*" not in accept:
        raise DecklogError(
            Code.UNSUPPORTED_MEDIA_TYPE, f"This is a WebSocket, or Server-Sent Events with Accept: {EVENT_STREAM}."
        )
    subscription = await _open(asked, request.headers.get("last-event-id"))
    return EventStream(subscription, request.app.state.stopping)


def _sse(kind: str, data: bytes | str, position: str | None = None) -> bytes:
    text = data if isinstance(data, str) else data.decode()
    head = f"event: {kind}\n" if position is None else f"id: {position}\nevent: {kind}\n"
    return f"{head}data: {text}\n\n".encode()


def _opened(subscription: Subscription) -> dict[str, str]:
    """What a stream begins with. From its position on a client that was cut off before anything came goes on."""
    return {"tenant": subscription.tenant.name, "log": subscription.log.text, "position": str(subscription.reached)}


class EventStream:
    """A subscription as `text/event-stream`."""

    def __init__(self, subscription: Subscription, stopping: asyncio.Event) -> None:
        self._subscription = subscription
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscription = self._subscription
        rendered = renderer(subscription.tenant.name, subscription.log)

        async def body(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def forward(event: Event) -> None:
            position = str(event.position)
            if event.record is None:
                await body(_sse("heartbeat", msgspec.json.encode({"position": position}), position))
            else:
                await body(_sse("record", rendered(event.record), position))

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        headers = [(b"content-type", EVENT_STREAM.encode()), (b"x-accel-buffering", b"no")]
        try:
            async with contextlib.aclosing(subscription):
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                opened = _opened(subscription)
                opening = _sse("open", msgspec.json.encode(opened), opened["position"])
                await body(f"retry: {RETRY_MILLISECONDS}\n".encode() + opening)
                await forward_all(subscription, forward, gone(), self._stopping)
        except Exception as error:  # noqa: BLE001 - the edge: the status is sent, so the stream itself must say it
            document = problem(translated(error, scope), request_id(scope))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_SECONDS):
                    await body(_sse("error", msgspec.json.encode(document)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await body(b"", more=False)


# WebSocket


async def _asked(socket: WebSocket[Any, Any, Any]) -> Asked:
    parameters = query_parameters(socket.scope["query_string"])
    services: ApiServices = socket.app.state.services
    principal = await authenticate(services.identity, socket.scope["headers"], socket.scope["subprotocols"])
    return Asked(services, principal, context_of(socket.scope), parameters)


async def _messages(socket: WebSocket[Any, Any, Any]) -> AsyncIterator[None]:
    while (await socket.receive())["type"] != "websocket.disconnect":
        yield


async def _listen(socket: WebSocket[Any, Any, Any]) -> None:
    """Returns when the client is gone. What it says is ignored; too much of it is refused."""
    clock = asyncio.get_running_loop().time
    credit, seen = float(CLIENT_MESSAGES_MAX), clock()
    async for _ in _messages(socket):
        now = clock()
        credit, seen = min(CLIENT_MESSAGES_MAX, credit + now - seen) - 1, now
        if credit < 0:
            raise DecklogError(Code.RATE_LIMITED, "This stream listens to nothing, and too many messages were sent to it.")


async def _say(socket: WebSocket[Any, Any, Any], text: str) -> None:
    try:
        await socket.send_data(text)
    except (OSError, WebSocketDisconnect):
        raise ClientGoneError from None


async def _follow(socket: WebSocket[Any, Any, Any], subscription: Subscription) -> None:
    tenant, log = subscription.tenant, subscription.log
    rendered = renderer(tenant.name, log)

    async def forward(event: Event) -> None:
        if event.record is None:
            await _say(socket, f'{{"type":"heartbeat","position":"{event.position}"}}')
        else:
            await _say(socket, f'{{"type":"record","position":"{event.position}","record":{rendered(event.record)}}}')

    await _say(socket, msgspec.json.encode({"type": "open", **_opened(subscription)}).decode())
    ended = await forward_all(subscription, forward, _listen(socket), socket.app.state.stopping)
    if ended is Ended.STOPPING:
        await socket.close(code=_GOING_AWAY, reason="The server stops; come back.")
    elif ended is Ended.EXHAUSTED:
        await socket.close()


@websocket("/logs/stream")
async def stream_socket(socket: WebSocket[Any, Any, Any]) -> None:
    """The same stream as messages: `{"type": "open" | "record" | "heartbeat" | "error", …}`."""
    offered = socket.scope["subprotocols"]
    await socket.accept(subprotocols=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    try:
        async with contextlib.aclosing(await _open(await _asked(socket))) as subscription:
            await _follow(socket, subscription)
    except Exception as error:  # noqa: BLE001 - the edge: a WebSocket has no status, so the last message says what was wrong
        ours = translated(error, socket.scope)
        document = {"type": "error", "problem": problem(ours, request_id(socket.scope))}
        with contextlib.suppress(ClientGoneError, OSError, WebSocketDisconnect):  # then there is nobody to tell
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await _say(socket, msgspec.json.encode(document).decode())
                await socket.close(code=close_code(ours), reason=ours.code.value)


async def refuse_socket(scope: WebSocketScope, receive: Receive, send: Send) -> None:
    """Answer the opening of a WebSocket where there is none, as a problem."""
    await receive()
    error = DecklogError(Code.NOT_FOUND, f"There is no WebSocket at this path; the only one is {PATH}.")
    body = msgspec.json.encode(problem(error, request_id(scope)))
    headers = [(b"content-type", PROBLEM_JSON.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
