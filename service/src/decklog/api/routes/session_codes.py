"""One-time codes: links that open a session, and tickets that open one stream."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, post

from decklog import session_shapes
from decklog.api.auth import session_of, token_of
from decklog.api.cookies import base_url
from decklog.api.openapi import JSON, Operation, json_answer
from decklog.api.request import PRINCIPAL, ask, context_of, refuse_parameters
from decklog.api.services import ApiServices
from decklog.domain.errors import Code
from decklog.domain.identity.access import Principal
from decklog.domain.log import rfc3339

_ERRORS = (Code.UNKNOWN_PARAMETER, Code.INVALID_PARAMETER, Code.STORAGE_UNAVAILABLE, Code.OVERLOADED)


def link_fragment(code: str) -> str:
    """Return the end of an address of the board that signs in with a one-time code."""
    return f"#link={code}"


def link_url(base: str, code: str) -> str:
    """Return the address of the board that signs in with a one-time code: in the fragment, which reaches no server, log or referrer."""
    return f"{base}/board/{link_fragment(code)}"


async def _callers(services: ApiServices, request: Request[Any, Any, Any]) -> list[Principal]:
    """Return the principal of a token, or those of all identities of a session."""
    scope = request.scope
    if token_of(scope["headers"]) is not None:
        return [(await ask(request)).principal]
    session = await session_of(services.sessions, scope)
    principals = await services.sessions.principals(session.identities, session.id)
    if principals:
        scope["state"][PRINCIPAL] = principals[0]
    return principals


_LINK = Operation(
    "make_link",
    "sign-in",
    {
        201: json_answer(
            "The link, shown only in this answer.",
            session_shapes.SignInLink,
            {
                "url": "https://decklog.dev/board/#link=q5v4Yt3m0u7mZ0Jp1b2c3d4e5f6g7h8i9j0kLmNoPqR",
                "expires_at": "2026-01-31T12:10:00.000000Z",
            },
        )
    },
    (*_ERRORS, Code.TENANT_SUSPENDED, Code.RATE_LIMITED, Code.ACCESS_LOG_UNAVAILABLE),
)


@post("/sessions/links", opt={"operation": _LINK})
async def make_link(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Make a one-time link that signs a browser in with the caller's credential, once and within ten minutes.

    A link that a session makes has all identities of the session.
    """
    refuse_parameters(request.scope["query_string"])
    services: ApiServices = request.app.state.services
    principals = await _callers(services, request)
    code, ends = await services.sign_in.link(principals, context_of(request.scope))
    answer = {"url": link_url(base_url(request.scope), code), "expires_at": rfc3339(ends)}
    return Response(msgspec.json.encode(answer), media_type=JSON, status_code=201)


_TICKET = Operation(
    "make_stream_ticket",
    "read",
    {
        201: json_answer(
            "The ticket, shown only in this answer.",
            session_shapes.StreamTicket,
            {"ticket": "q5v4Yt3m0u7mZ0Jp1b2c3d4e5f6g7h8i9j0kLmNoPqR", "expires_at": "2026-01-31T12:01:00.000000Z"},
        )
    },
    (*_ERRORS, Code.TENANT_SUSPENDED, Code.RATE_LIMITED),
)


@post("/logs/stream/tickets", opt={"operation": _TICKET})
async def make_ticket(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Make a ticket that opens one stream of this credential, once and within a minute.

    A browser's EventSource sends no headers, so it cannot choose an identity of the session: `new EventSource("/api/v1/logs/stream?ticket=…")`.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    ticket, ends = await asked.services.sign_in.ticket(asked.principal)
    return Response(msgspec.json.encode({"ticket": ticket, "expires_at": rfc3339(ends)}), media_type=JSON, status_code=201)
