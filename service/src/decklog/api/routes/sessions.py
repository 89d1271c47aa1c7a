"""Sessions of browsers: sign in, look at the own session, sign out, list and end sessions."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath
from litestar.types import Scope

from decklog import session_shapes
from decklog.api.auth import session_of, token_of
from decklog.api.cookies import cookie_name, refuse_other_site, session_token, set_cookie
from decklog.api.limits import BODY_ERRORS, json_body
from decklog.api.openapi import BEARER, JSON, SESSION, SESSION_CHANGE, Answer, Json, Media, Operation, json_answer, parameter
from decklog.api.request import PRINCIPAL, ask, context_of, refuse_parameters
from decklog.api.services import ApiServices
from decklog.domain.errors import Code, DecklogError, invalid_parameter
from decklog.domain.identity.access import Principal
from decklog.domain.identity.session import Held, Session, csrf_of, held
from decklog.domain.json_body import decoded
from decklog.domain.log import from_microseconds, rfc3339

BODY_BYTES_MAX = 4 * 1024
"""Bytes of the body of a sign-in."""

_ERRORS = (Code.UNKNOWN_PARAMETER, Code.INVALID_PARAMETER, Code.STORAGE_UNAVAILABLE, Code.OVERLOADED)
_RECORDED = (*_ERRORS, Code.FORBIDDEN, Code.TENANT_SUSPENDED, Code.RATE_LIMITED, Code.ACCESS_LOG_UNAVAILABLE)
"""Errors of every route that writes an access record."""
_IDENTITY: Json = {
    "id": "3b0a6c41d9a7f1e25c88e0b7f4a1d2c3",
    "kind": "api_key",
    "subject": "0f3a9c51d2e4b687",
    "issuer": None,
    "tenant": "acme",
    "role": "admin",
}
_TIMES: Json = {"created_at": "2026-01-31T12:00:00.000000Z", "last_used_at": "2026-01-31T12:00:00.000000Z"}
_SESSION: Json = {
    "id": "5f0c2b7d91aa0c1c",
    "csrf": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "identities": [
        {
            **_IDENTITY,
            "display_name": "Acme",
            "state": "active",
            "permissions": ["append", "manage", "read"],
            "expires_at": None,
        }
    ],
    **_TIMES,
    "idle_ends_at": "2026-01-31T20:00:00.000000Z",
    "ends_at": "2026-02-07T12:00:00.000000Z",
}
_LISTED: Json = {
    "id": "5f0c2b7d91aa0c1c",
    **_TIMES,
    "ends_at": "2026-02-07T12:00:00.000000Z",
    "address": "192.0.2.40",
    "user_agent": "Mozilla/5.0",
    "current": True,
    "identities": [_IDENTITY],
}
_COOKIE_HEADER: Json = {
    "Set-Cookie": {"description": "Cookie of the session: HttpOnly, SameSite=Strict.", "schema": {"type": "string"}}
}


def _ends(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(from_microseconds(int(seconds * 1_000_000)))


def _identity(principal: Principal) -> Json:
    tenant = principal.tenant
    return {
        **_listed_identity(held(principal)),
        "display_name": None if tenant is None else tenant.display_name or None,
        "state": None if tenant is None else tenant.state.name.lower(),
        "permissions": sorted(principal.permissions),
        "expires_at": _ends(principal.expires_at),
    }


def _listed_identity(each: Held) -> Json:
    return {
        "id": each.id,
        "kind": each.kind,
        "subject": each.subject,
        "issuer": each.issuer,
        "tenant": each.tenant,
        "role": each.role.value,
    }


async def session_json(services: ApiServices, session: Session, token: str) -> bytes:
    """Return a session for the browser that has its token. Raises `unauthenticated` where none of its credentials is valid any more."""
    principals = await services.sessions.principals(session.identities)
    if not principals:
        raise DecklogError(Code.UNAUTHENTICATED, "No credential of this session is valid any more. Sign in again.")
    return msgspec.json.encode(
        {
            "id": session.id,
            "csrf": csrf_of(token),
            "identities": [_identity(each) for each in principals],
            "created_at": rfc3339(session.created_at),
            "last_used_at": rfc3339(session.last_used_at),
            "idle_ends_at": rfc3339(session.idle_ends_at),
            "ends_at": rfc3339(session.ends_at),
        }
    )


async def current(services: ApiServices, scope: Scope) -> Session | None:
    """Return the session whose cookie a sign-in carries, None without one and for one that is over."""
    token = session_token(scope)
    if token is None:
        return None
    try:
        return await services.sessions.of(token)
    except DecklogError as error:
        if error.code is Code.UNAUTHENTICATED:
            return None
        raise


def cookie_header(scope: Scope, token: str, session: Session | None) -> dict[str, str]:
    """Return the header that sets the cookie of a session or, without one, removes it."""
    seconds = 0.0 if session is None else (session.ends_at - session.last_used_at).total_seconds()
    return {"set-cookie": set_cookie(scope, cookie_name(scope), token, seconds=seconds)}


async def _input(request: Request[Any, Any, Any]) -> session_shapes.SessionInput:
    return decoded(await json_body(request, "a sign-in", BODY_BYTES_MAX), session_shapes.SessionInput)


_OPEN = Operation(
    "open_session",
    "sign-in",
    {201: json_answer("The session is open.", session_shapes.Session, _SESSION, _COOKIE_HEADER)},
    (*_RECORDED, *BODY_ERRORS, Code.CONFLICT),
    body={
        JSON: Media(
            session_shapes.SessionInput,
            examples={"credential": {}, "link": {"link": "q5v4Yt3m0u7mZ0Jp1b2c3d4e5f6g7h8i9j0kLmNoPqR"}},
        )
    },
    security=(BEARER, {}),
)


@post("/sessions", opt={"operation": _OPEN})
async def open_session(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Sign in: open a session for a credential, or for the identities of a one-time link.

    Send the credential as `Authorization: Bearer`, or `link` without one. The answer sets a cookie that other routes accept in place of the
    token. A sign-in with the cookie of a session adds the identities of that session, and ends it: the cookie is new after each sign-in.
    The session ends with its credentials.
    """
    scope = request.scope
    refuse_parameters(scope["query_string"])
    refuse_other_site(scope)
    services: ApiServices = request.app.state.services
    token, given = token_of(scope["headers"]), await _input(request)
    if token is not None and given.link is not None:
        raise invalid_parameter("link", "cannot be sent together with Authorization. Send one of them.")
    context = context_of(scope)
    if given.link is not None:
        made, session = await services.sign_in.open_by_link(given.link, context, await current(services, scope))
    elif token is not None:
        principal = scope["state"][PRINCIPAL] = await services.identity.authenticate(token)
        made, session = await services.sign_in.open([principal], context, await current(services, scope), "credential")
    else:
        raise DecklogError(
            Code.UNAUTHENTICATED,
            "A sign-in needs Authorization: Bearer <API key or JWT>, or `link` with the code of a one-time link.",
        )
    body = await session_json(services, session, made)
    return Response(body, media_type=JSON, status_code=201, headers=cookie_header(scope, made, session))


_GET = Operation(
    "get_session",
    "sign-in",
    {200: json_answer("The session.", session_shapes.Session, _SESSION)},
    _ERRORS,
    security=(SESSION,),
)


@get("/session", opt={"operation": _GET})
async def get_session(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the session of the cookie, with the identities whose credentials are valid."""
    refuse_parameters(request.scope["query_string"])
    services: ApiServices = request.app.state.services
    session, token = await _own(services, request.scope)
    return Response(await session_json(services, session, token), media_type=JSON)


async def _own(services: ApiServices, scope: Scope) -> tuple[Session, str]:
    """Return the session of a request that needs one, and its token. Raises `unauthenticated`, also where Authorization is sent."""
    token = session_token(scope)
    if token is None or token_of(scope["headers"]) is not None:
        raise DecklogError(
            Code.UNAUTHENTICATED,
            "This route needs the cookie of a session, without Authorization. Sign in with POST /api/v1/sessions.",
        )
    return await session_of(services.sessions, scope), token


_CLOSE = Operation(
    "close_session",
    "sign-in",
    {
        204: Answer(
            "The session has ended.", {}, {"Set-Cookie": {"description": "Removes the cookie.", "schema": {"type": "string"}}}
        )
    },
    _ERRORS,
    security=(SESSION_CHANGE,),
)


@delete("/session", opt={"operation": _CLOSE}, status_code=204)
async def close_session(request: Request[Any, Any, Any]) -> Response[None]:
    """Sign out: end the session of the cookie, in every process within two seconds."""
    refuse_parameters(request.scope["query_string"])
    services: ApiServices = request.app.state.services
    session, _ = await _own(services, request.scope)
    await services.sign_in.close(session, context_of(request.scope))
    return Response(None, status_code=204, headers=cookie_header(request.scope, "", None))


_LIST = Operation(
    "list_sessions",
    "sign-in",
    {200: json_answer("Sessions, the one used last first.", session_shapes.Sessions, {"items": [_LISTED]})},
    _RECORDED,
)


@get("/sessions", opt={"operation": _LIST})
async def list_sessions(request: Request[Any, Any, Any]) -> Response[bytes]:
    """List the sessions of the credential; an admin sees all of its tenant.

    Identities of other tenants are left out.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    found = await asked.services.sign_in.visible(asked.principal, asked.context)
    items = [
        {
            "id": each.id,
            "created_at": rfc3339(each.created_at),
            "last_used_at": rfc3339(each.last_used_at),
            "ends_at": rfc3339(min(each.idle_ends_at, each.ends_at)),
            "address": each.address,
            "user_agent": each.user_agent,
            "current": each.id == asked.principal.session,
            "identities": [_listed_identity(one) for one in each.identities],
        }
        for each in found
    ]
    return Response(msgspec.json.encode({"items": items}), media_type=JSON)


_END = Operation(
    "end_session",
    "sign-in",
    {204: Answer("The session has ended.", {})},
    (*_RECORDED, Code.NOT_FOUND),
    parameters=[
        parameter(
            "number",
            "Id of the session.",
            {"type": "string", "minLength": 1},
            place="path",
            example="5f0c2b7d91aa0c1c",
            required=True,
        )
    ],
)


@delete("/sessions/{number:str}", opt={"operation": _END}, status_code=204)
async def end_session(request: Request[Any, Any, Any], number: FromPath[str]) -> None:
    """End a session of the credential, or as an admin one of the tenant; in every process within two seconds."""
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    await asked.services.sign_in.end(asked.principal, asked.context, number)
