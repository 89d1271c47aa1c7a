"""Follow a log by Server-Sent Events, and what that shares with the WebSocket on the same path.

Both transports forward one subscription at the client's pace. The subscription does the catching up, and waits for slow
readers. An error is sent in the transport's own form, then the stream ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import Any

import msgspec
from litestar import Request, WebSocket, get
from litestar.types import ASGIApp, Receive, Scope, Send

from decklog.api.auth import token_of
from decklog.api.errors import problem, request_id, translated
from decklog.api.limits import too_slow
from decklog.api.openapi import Answer, Media, Operation, parameter
from decklog.api.reads import FILTERS, PLACE, POSITION, READ_ERRORS
from decklog.api.request import PRINCIPAL, Asked, ask, context_of, query_parameters, require_http_1_1
from decklog.api.routes.export import until_disconnect
from decklog.api.services import ApiServices
from decklog.domain.errors import Code, DecklogError, invalid_parameter
from decklog.services.records.streaming import Event, Subscription

PATH = "/api/v1/logs/stream"
EVENT_STREAM = "text/event-stream"
RETRY_MILLISECONDS = 1_000
"""How long an EventSource waits before it reconnects."""
TICKET = "ticket"
"""The only query parameter that carries a credential, which is worth one stream within a minute: a browser's EventSource sends no header."""
OPENED, PROBLEM = "opened", "problem"
"""Names of the first and of the last event. A browser's EventSource fires `open` and `error` itself, so neither may be a name."""
LAST_MESSAGE_SECONDS = 0.5
"""How long the last message may take to be sent: the client may no longer read."""


async def ask_stream(connection: Request[Any, Any, Any] | WebSocket[Any, Any, Any], subprotocols: Sequence[str] = ()) -> Asked:
    """Parse and authenticate a request for a stream, as `ask`; a one-time ticket stands for the credential.

    No other route takes a ticket. It is used up before anything else is checked, so no second request can carry it.
    """
    scope = connection.scope
    parameters = query_parameters(scope["query_string"])
    tickets = [value for name, value in parameters if name == TICKET]
    if not tickets:
        return await ask(connection, subprotocols)
    if len(tickets) > 1 or token_of(scope["headers"]) is not None:
        raise invalid_parameter(TICKET, "may be given once, and not together with Authorization.")
    services: ApiServices = connection.app.state.services
    principal = scope["state"][PRINCIPAL] = await services.sign_in.by_ticket(tickets[0])
    return Asked(services, principal, context_of(scope), [(name, value) for name, value in parameters if name != TICKET])


def _after(asked: Asked, last_event_id: str | None) -> tuple[Asked, str | None]:
    """Take `after` out of the parameters. `Last-Event-ID` precedes it: an EventSource reconnects with its first address."""
    given = [value for name, value in asked.parameters if name == "after"]
    if len(given) > 1:
        raise invalid_parameter("after", "may be given only once.")
    others = [(name, value) for name, value in asked.parameters if name != "after"]
    return asked._replace(parameters=others), last_event_id or (given[0] if given else None)


async def subscribe(asked: Asked, last_event_id: str | None = None) -> Subscription:
    """Open the subscription that a request asks for. The caller closes it."""
    asked, after = _after(asked, last_event_id)
    return await asked.services.streams.open(asked.principal, asked.context, asked.parameters, after)


def opened(subscription: Subscription) -> dict[str, str]:
    """Return the first message. A client that is cut off before the first event resumes after its position."""
    return {
        "tenant": subscription.tenant.name,
        "log": subscription.log.text,
        "position": subscription.view.mark(subscription.reached),
    }


@contextlib.asynccontextmanager
async def closing(subscription: Subscription, scope: Scope) -> AsyncIterator[None]:
    """Close the subscription at the end of the block, with the reason if the client was disconnected for not reading."""
    async with contextlib.aclosing(subscription):
        try:
            yield
        finally:
            if (reason := too_slow(scope)) is not None:
                subscription.end(reason)


class Ended(Enum):
    """Why forwarding ended without an error."""

    CLIENT_GONE = auto()
    STOPPING = auto()
    """The process is stopping."""
    EXHAUSTED = auto()


async def forward_all(
    subscription: Subscription,
    forward: Callable[[Event], Awaitable[None]],
    gone: Awaitable[None],
    stopping: asyncio.Event,
) -> Ended:
    """Forward events until the client disconnects, the process stops or the subscription ends.

    Raises the error that ended the subscription, and what `forward` and `gone` raise.
    """

    async def pump() -> None:
        async for event in subscription:
            await forward(event)

    waits = (pump(), gone, stopping.wait(), subscription.ended.wait())
    pumping, left, stop, ended = tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if ended.done() and not pumping.done():
            # The next event would raise the error, but a client that does not read may block the current one.
            await asyncio.wait({pumping, left}, timeout=LAST_MESSAGE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
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


_OPERATION = Operation(
    "follow",
    "read",
    {
        200: Answer(
            "Events until the client disconnects.",
            {EVENT_STREAM: Media({"type": "string"}, f'id: {POSITION}\nevent: heartbeat\ndata: {{"position":"{POSITION}"}}\n\n')},
        )
    },
    (*READ_ERRORS, Code.TOO_MANY_STREAMS, Code.UNSUPPORTED_MEDIA_TYPE, Code.HTTP_VERSION),
    parameters=[
        *FILTERS,
        parameter(
            TICKET,
            "One-time ticket of `POST /api/v1/logs/stream/tickets`, in place of a credential. It is used up by the first request.",
            {"type": "string", "minLength": 43, "maxLength": 43},
        ),
        parameter(
            "after",
            "Start after this position or sequence number, exclusive: `after=0` starts with sequence number 1. `after=-1` starts "
            "with the first record within retention. Without `after` the stream starts with the next new record.",
            PLACE,
            example=POSITION,
        ),
        parameter(
            "Last-Event-ID",
            "Position to start after. Takes precedence over `after`. A browser's EventSource sends it when it reconnects.",
            PLACE,
            place="header",
            example=POSITION,
        ),
    ],
)


@get("/logs/stream", opt={"operation": _OPERATION})
async def stream_events(request: Request[Any, Any, Any]) -> ASGIApp:
    """Follow a log.

    Use a WebSocket, or Server-Sent Events with `Accept: text/event-stream`. Every event and every heartbeat carries a
    position. To resume without a gap and without a duplicate, pass the last position as `after` or `Last-Event-ID`. To read
    the whole log from its first record, pass `after=-1`.

    The events are `opened`, `record`, `heartbeat` and, where an error ends the stream, `problem`.

    A WebSocket sends messages `{"type": "open" | "record" | "heartbeat" | "error", …}`. Browsers pass the token as a
    subprotocol: `new WebSocket(url, ["decklog", "bearer.<token>"])`. A page that has a session opens a stream by its cookie (a WebSocket from
    the same origin only), or by a one-time `ticket` for another identity of the session.
    """
    asked = await ask_stream(request)
    require_http_1_1(request.scope, "A stream")
    accept = request.headers.get("accept", "*/*")
    if EVENT_STREAM not in accept and "*/*" not in accept and "text/*" not in accept:
        raise DecklogError(
            Code.UNSUPPORTED_MEDIA_TYPE,
            f"Accept {accept[:80]!r}: a stream is either a WebSocket, or Server-Sent Events with Accept: {EVENT_STREAM}.",
        )
    subscription = await subscribe(asked, request.headers.get("last-event-id"))
    return EventStream(subscription, request.app.state.stopping)


def _sse(kind: str, data: bytes | str, position: str | None = None) -> bytes:
    text = data if isinstance(data, str) else data.decode()
    head = f"event: {kind}\n" if position is None else f"id: {position}\nevent: {kind}\n"
    return f"{head}data: {text}\n\n".encode()


class EventStream:
    """An ASGI application that sends a subscription as `text/event-stream` and closes it."""

    def __init__(self, subscription: Subscription, stopping: asyncio.Event) -> None:
        self._subscription = subscription
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the stream ends; an error is the last event."""

        async def body(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        headers = [(b"content-type", EVENT_STREAM.encode()), (b"x-accel-buffering", b"no")]
        try:
            async with closing(self._subscription, scope):
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._events(body, until_disconnect(receive))
        except Exception as error:  # noqa: BLE001 - the edge: the status has been sent, so the stream itself carries the error
            document = problem(translated(error, scope), request_id(scope))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_MESSAGE_SECONDS):
                    await body(_sse(PROBLEM, msgspec.json.encode(document)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_MESSAGE_SECONDS):
                await body(b"", more=False)

    async def _events(self, body: Callable[[bytes], Awaitable[None]], gone: Awaitable[None]) -> None:
        subscription = self._subscription

        async def forward(event: Event) -> None:
            position = subscription.view.mark(event.position)
            if event.record is None:
                await body(_sse("heartbeat", msgspec.json.encode({"position": position}), position))
            else:
                await body(_sse("record", await subscription.rendered(event.record), position))

        first = opened(subscription)
        await body(f"retry: {RETRY_MILLISECONDS}\n".encode() + _sse(OPENED, msgspec.json.encode(first), first["position"]))
        await forward_all(subscription, forward, gone, self._stopping)
