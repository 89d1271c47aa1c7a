"""The ASGI application: all routes, and what every answer has in common.

Request ids, security headers and metrics are added around the whole application, so no route and no error lacks them.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Any, cast

from litestar import Litestar, Router
from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.types import HTTPScope, Message, Receive, Send
from litestar.utils import normalize_path

from decklog.api.errors import COMMON_HEADERS, NO_CONTENT_POLICY, NO_STORE, allowed, handle
from decklog.api.metrics import observe_scope
from decklog.api.openapi import document
from decklog.api.request import has_head, make_request_id
from decklog.api.routes import (
    append,
    ask,
    board,
    bulk,
    conversations,
    export,
    health,
    keys,
    logs,
    oidc,
    rejected,
    retention,
    search,
    searches,
    session_codes,
    sessions,
    stream,
    stream_socket,
    tenants,
    viewer_tokens,
    whoami,
)
from decklog.api.routes.reference import reference_routes
from decklog.api.services import ApiServices
from decklog.api.tracing import RequestTraces, Traced
from decklog.settings import Settings


class Application(Litestar):
    """Litestar, with request ids, headers and metrics around every request.

    `POST /api/v1/logs` bypasses the router, which would cost as much as the rest of that request.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request or a WebSocket."""
        if scope["type"] == "http":
            if scope["method"] == "POST" and (scope["path"] == append.PATH or normalize_path(scope["path"]) == append.PATH):
                await append.answer(self.state.services, scope, receive, send)
            else:
                await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            scope.setdefault("state", {})["request_id"] = make_request_id(None)
            known = normalize_path(scope["path"]) == stream.PATH
            await (super().__call__ if known else stream_socket.refuse_socket)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    @staticmethod
    def _patch_opentelemetry_middleware(config: AppConfig) -> AppConfig:
        """Leave the configuration as it is: Litestar would import OpenTelemetry, whose middleware is not used here."""
        return config

    async def _http(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        identifier = make_request_id(sent)
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = cast("list[tuple[bytes, bytes]]", message["headers"])
                if scope["method"] == "OPTIONS" and status < 300:
                    headers = self._with_all_methods(headers, scope)
                message["headers"] = _completed(headers, identifier)
            await send(message)

        if scope["method"] == "HEAD" and has_head(scope["path"]):
            scope = {**scope, "method": "GET"}  # the server omits the body
        scope.setdefault("state", {})["request_id"] = identifier
        try:
            await super().__call__(scope, receive, send_on)
        finally:
            observe_scope(scope, status, time.perf_counter() - started)

    def _with_all_methods(self, headers: list[tuple[bytes, bytes]], scope: HTTPScope) -> list[tuple[bytes, bytes]]:
        """Return the headers of an answer to OPTIONS with `Allow` as a 405 has it: Litestar names those of the first handler."""
        template = scope.get("path_template")
        methods = {name for route in self.routes if route.path_format == template for name in getattr(route, "methods", ())}
        if not methods:
            return headers
        allow = allowed(methods, scope["path"])
        return [*((name, value) for name, value in headers if name != b"allow"), (b"allow", allow)]


def _completed(headers: list[tuple[bytes, bytes]], identifier: str) -> list[tuple[bytes, bytes]]:
    names = {name for name, _ in headers}
    completed = [*headers, *COMMON_HEADERS, (b"x-request-id", identifier.encode())]
    if b"cache-control" not in names:
        completed.append(NO_STORE)
    if b"content-security-policy" not in names:
        completed.append(NO_CONTENT_POLICY)
    return completed


def _routes(*, with_metrics: bool) -> list[Any]:
    api = Router(
        "/api/v1",
        route_handlers=[
            append.append,
            bulk.append_bulk,
            logs.list_records,
            logs.get_record,
            logs.count_records,
            search.search_records,
            ask.ask_question,
            export.export_records,
            searches.list_searches,
            searches.save_search,
            searches.get_search,
            searches.replace_search,
            searches.delete_search,
            conversations.list_conversations,
            conversations.get_conversation,
            conversations.delete_conversation,
            stream.stream_events,
            stream_socket.stream_socket,
            session_codes.make_link,
            session_codes.make_ticket,
            sessions.open_session,
            sessions.get_session,
            sessions.close_session,
            sessions.list_sessions,
            sessions.end_session,
            rejected.list_rejected,
            rejected.get_rejected,
            rejected.replay_rejected,
            rejected.delete_rejected,
            retention.get_retention,
            keys.list_keys,
            keys.make_key,
            keys.revoke_key,
            tenants.list_tenants,
            tenants.create_tenant,
            tenants.get_tenant,
            viewer_tokens.mint_viewer_token,
            whoami.whoami,
        ],
    )
    return [api, health.healthz, health.readyz, *([health.metrics] if with_metrics else [])]


def _application(routes: list[Any], state: dict[str, Any]) -> Application:
    return Application(
        route_handlers=routes,
        exception_handlers={Exception: handle},
        openapi_config=None,
        logging_config=None,
        state=State({"stopping": asyncio.Event(), **state}),
    )


def create_app(services: ApiServices, settings: Settings, traces: RequestTraces | None = None) -> Application | Traced:
    """Return the API over these services. `/metrics` is left out if `settings.api.metrics_port` gives it its own port.

    With `traces`, each request has a span.
    """
    routes = _routes(with_metrics=settings.api.metrics_port == 0)
    sign_in = [oidc.board_config, oidc.start_oidc, oidc.finish_oidc] if settings.board.enabled else []
    folder = board.FOLDER if settings.board.enabled else None
    pages = [*reference_routes(openapi_document()), *sign_in, *board.board_routes(folder, settings.board.frame_ancestors)]
    application = _application([*routes, *pages], {"services": services})
    return application if traces is None else Traced(application, services.identity, traces)


def create_metrics_app(services: ApiServices, stopping: asyncio.Event | None = None) -> Application:
    """Return an application with only `/metrics` and the probes, for `settings.api.metrics_port`.

    `stopping` is the API's own: once it is set, this readiness probe fails as well.
    """
    state = {"services": services} if stopping is None else {"services": services, "stopping": stopping}
    return _application([health.healthz, health.readyz, health.metrics], state)


@functools.cache
def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document; needs no backend. Callers must not change it."""
    return document(_application(_routes(with_metrics=True), {}).routes)
