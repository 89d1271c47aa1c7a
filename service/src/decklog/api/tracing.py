"""A span for each request under /api, made around the whole application where traces are sent.

Elsewhere the application is another one, in which nothing of this is in the way. A WebSocket has no span: it would be
told of only when the stream ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from litestar.types import HTTPScope, Message, Receive, Send
from litestar.utils import normalize_path
from structlog.contextvars import bound_contextvars

from decklog.api.auth import token_of
from decklog.api.routes import append
from decklog.domain.errors import DecklogError
from decklog.services.identity.identity import Identity

TRACED = "/api/"
"""How the paths of traced requests begin: probes and scrapes are not worth a trace."""


class RequestSpan(Protocol):
    """What is told of a request; the texts are those of a `traceparent`."""

    @property
    def trace_id(self) -> str: ...

    @property
    def span_id(self) -> str: ...

    def answered(self, method: str, route: str | None, status: int, tenant: str | None) -> None:
        """`status` is 0 where the client was gone before an answer."""
        ...


class RequestTraces(Protocol):
    def request(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[RequestSpan]:
        """The span of a request, current and open while the block runs."""
        ...


class Traced:
    """The application with a span around each request, whose ids are in every line that is logged meanwhile."""

    def __init__(self, application: Any, identity: Identity, traces: RequestTraces) -> None:
        self._application = application
        self._identity = identity
        self._traces = traces
        self.state = application.state

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(TRACED):
            await self._application(scope, receive, send)
            return
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with (
            self._traces.request(scope["method"], scope["headers"]) as span,
            bound_contextvars(trace_id=span.trace_id, span_id=span.span_id),
        ):
            try:
                await self._application(scope, receive, send_on)
            finally:
                span.answered(scope["method"], _route(scope), status, self._tenant(scope, status))

    def _tenant(self, scope: HTTPScope, status: int) -> str | None:
        """Whose credential it was, once it was found to be good."""
        if status == 401:
            return None
        try:
            token = token_of(scope["headers"])
            principal = None if token is None else self._identity.recognise(token)
        except DecklogError:
            return None
        return None if principal is None or principal.tenant is None else principal.tenant.name


def _route(scope: HTTPScope) -> str | None:
    """The route that was taken; one path goes past the router. None where there is none, as a path may be anybody's text."""
    if scope["method"] == "POST" and normalize_path(scope["path"]) == append.PATH:
        return append.PATH
    return scope.get("path_template")
