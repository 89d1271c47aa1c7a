"""A span for each HTTP request under /api, around the whole application. Used only if traces are exported.

A WebSocket has no span, because it would be exported only when the stream ends.
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
"""Prefix of the paths of traced requests: probes and scrapes are not traced."""


class RequestSpan(Protocol):
    """The open span of a request. The ids have the form of a `traceparent`."""

    @property
    def trace_id(self) -> str:
        """Id of the trace, 32 hexadecimal digits."""
        ...

    @property
    def span_id(self) -> str:
        """Id of the span, 16 hexadecimal digits."""
        ...

    def answered(self, method: str, route: str | None, status: int, tenant: str | None) -> None:
        """Record the result of the request. `status` is 0 if the client disconnected before an answer."""
        ...


class RequestTraces(Protocol):
    """A source of spans, implemented by the exporter of traces."""

    def request(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[RequestSpan]:
        """Return the span of a request, current while the block runs."""
        ...


class Traced:
    """The application with a span around each request. Log lines of the request carry the ids of the span."""

    def __init__(self, application: Any, identity: Identity, traces: RequestTraces) -> None:
        self._application = application
        self._identity = identity
        self._traces = traces
        self.state = application.state

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request within its span."""
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
        """Return the tenant of the credential, None if the credential is not valid."""
        if status == 401:
            return None
        try:
            token = token_of(scope["headers"])
            principal = None if token is None else self._identity.recognise(token)
        except DecklogError:
            return None
        return None if principal is None or principal.tenant is None else principal.tenant.name


def _route(scope: HTTPScope) -> str | None:
    """Return the route of a request, None if no route matches: a path is arbitrary text. One path bypasses the router."""
    if scope["method"] == "POST" and normalize_path(scope["path"]) == append.PATH:
        return append.PATH
    return scope.get("path_template")
