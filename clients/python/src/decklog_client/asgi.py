"""Middleware for ASGI applications: Litestar, FastAPI, Starlette and others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import TYPE_CHECKING, Any

from decklog_client.scope import context

if TYPE_CHECKING:
    from decklog_client.client import Decklog
    from decklog_client.making import Named, Outcome

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]


class AuditMiddleware:
    """Gives the records of a request its source, its correlation id and its actor; and records requests, where that is asked for.

    Args:
        app: The application.
        actor: Returns the actor of a request from its scope. It is called by each record, so it sees what authentication found.
        audit: Client that records requests.
        methods: Methods of the requests that are recorded, such as `POST`, as the action `http.request`.
        correlation_header: Header with the correlation id.
    """

    def __init__(
        self,
        app: App,
        *,
        actor: Callable[[Scope], Named | None] | None = None,
        audit: Decklog | None = None,
        methods: Collection[str] = (),
        correlation_header: str = "x-request-id",
    ) -> None:
        self._app, self._actor, self._audit = app, actor, audit
        self._methods = frozenset(methods)
        self._header = correlation_header.lower().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        client = scope.get("client")
        with context(
            actor=None if self._actor is None else self._actor_of(scope),
            source=_source(None if client is None else client[0], headers.get(b"user-agent")),
            correlation_id=_text(headers.get(self._header)),
        ):
            if self._audit is not None and scope.get("method") in self._methods:
                await self._recorded(self._audit, scope, receive, send)
            else:
                await self._app(scope, receive, send)

    def _actor_of(self, scope: Scope) -> Callable[[], Named | None]:
        def actor() -> Named | None:
            return None if self._actor is None else self._actor(scope)

        return actor

    async def _recorded(self, audit: Decklog, scope: Scope, receive: Receive, send: Send) -> None:
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            audit.record(
                "http.request",
                resource={"type": "http.path", "id": scope["path"]},
                outcome=_outcome(status),
                metadata={"method": scope["method"], "status": status},
            )


def _outcome(status: int) -> Outcome:
    if status < 400:
        return "success"
    return "denied" if status in (401, 403) else "failure"


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")[:256]


def _source(ip: str | None, agent: bytes | None) -> dict[str, str] | None:
    found = {"ip": ip, "user_agent": _text(agent)}
    return {name: value for name, value in found.items() if value is not None} or None
