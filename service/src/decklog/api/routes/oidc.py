"""Sign-in of the board by OpenID Connect, and what its page may know before anybody has signed in."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog
from litestar import Request, Response, get

from decklog import __version__
from decklog.api.cookies import base_url, cookie, is_secure, set_cookie
from decklog.api.openapi import JSON
from decklog.api.refusals import note_refused
from decklog.api.request import PRINCIPAL, context_of, query_parameters, refuse_parameters
from decklog.api.routes.session_codes import link_fragment
from decklog.api.services import ApiServices
from decklog.domain.errors import Code, DecklogError, invalid_parameter
from decklog.services.identity.oidc import BEGUN_SECONDS, OidcSignIn, checked_return, return_of
from decklog.services.records.list_options import Parameters

CALLBACK = "/board/oidc/callback"
COOKIE = "decklog_oidc"
_USED = ("code", "state", "error")
"""Parameters of the callback that are used; providers send others besides."""

_log = structlog.get_logger("decklog.oidc")


def _provider(services: ApiServices) -> OidcSignIn:
    if services.oidc is None:
        raise DecklogError(
            Code.NOT_FOUND, "This installation has no sign-in by OpenID Connect: DECKLOG_BOARD_OIDC_ISSUER is not set."
        )
    return services.oidc


def _name(request: Request[Any, Any, Any]) -> str:
    return f"__Host-{COOKIE}" if is_secure(request.scope) else COOKIE


def _sent(parameters: Parameters) -> dict[str, str]:
    """Return the parameters of the callback. Raises `invalid-parameter` for a repeated one."""
    found: dict[str, str] = {}
    for name, value in parameters:
        if name in found:
            raise invalid_parameter(name, "may be given only once.")
        if name in _USED:
            found[name] = value
    return found


def _redirect(status: int, location: str, set_cookie_header: str) -> Response[bytes]:
    return Response(b"", status_code=status, headers={"location": location, "set-cookie": set_cookie_header})


def _ended(request: Request[Any, Any, Any], location: str) -> Response[bytes]:
    """Send the browser to the board, with the cookie of its sign-in removed."""
    return _redirect(303, location, set_cookie(request.scope, _name(request), "", seconds=0, lax=True))


def _refused(request: Request[Any, Any, Any], error: DecklogError, return_to: str) -> Response[bytes]:
    """Send the browser to the sign-in page, as a person at a browser cannot use a problem document.

    The fragment has only the code: a text in it would let any link write on the page.
    """
    note_refused(request.app.state.services, request.scope, error)
    _log.info("sign-in refused", code=error.code.value, reason=error.detail)
    return _ended(request, f"{return_to}#refused={error.code.value}")


@get("/board/config.json")
async def board_config(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the version, and the name of the provider if there is one."""
    oidc = request.app.state.services.oidc
    found = {"version": __version__, "oidc": None if oidc is None else {"name": oidc.provider.name}}
    return Response(msgspec.json.encode(found), media_type=JSON)


@get("/board/oidc/start")
async def start_oidc(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Send the browser to the provider. `return` is the page of the board that it comes back to."""
    return_to = checked_return(refuse_parameters(request.scope["query_string"], "return").get("return"))
    provider = _provider(request.app.state.services)
    try:
        begun = await provider.begin(base_url(request.scope) + CALLBACK, return_to)
    except DecklogError as error:
        return _refused(request, error, return_to)
    kept = set_cookie(request.scope, _name(request), begun.kept, seconds=BEGUN_SECONDS, lax=True)
    return _redirect(302, begun.location, kept)


@get(CALLBACK)
async def finish_oidc(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Take the code of the provider and send the browser to the board with a one-time link, which opens the session there.

    The cookie of a session does not come along from another site, so only the page can add an identity to its session.
    """
    scope = request.scope
    services: ApiServices = request.app.state.services
    provider = _provider(services)
    sent = _sent(query_parameters(scope["query_string"]))
    kept = cookie(scope, _name(request)) or ""
    try:
        if "error" in sent:
            raise DecklogError(Code.UNAUTHENTICATED, f"The provider refused the sign-in: {sent['error'][:80]!r}.")
        principal = await provider.finish(
            kept, state=sent.get("state", ""), code=sent.get("code", ""), redirect_uri=base_url(scope) + CALLBACK
        )
        scope["state"][PRINCIPAL] = principal
        code, _ = await services.sign_in.link([principal], context_of(scope))
    except DecklogError as error:
        return _refused(request, error, return_of(kept))
    return _ended(request, return_of(kept) + link_fragment(code))
