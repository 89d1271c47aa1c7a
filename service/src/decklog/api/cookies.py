"""The cookie of a session, and the checks that a request which is authenticated by it must pass.

A browser adds the cookie to requests that another site caused, so the cookie alone proves nothing. `SameSite=Strict` keeps browsers from
that; `Sec-Fetch-Site`, the header `Decklog-Csrf` and the `Origin` of a WebSocket are checked besides.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

from litestar.types import Scope

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.session import csrf_of
from decklog.services.identity.sessions import REFUSED

COOKIE = "decklog_session"
SECURE_COOKIE = f"__Host-{COOKIE}"
"""The name over HTTPS: browsers take such a cookie from this host alone, with Secure and Path=/."""
CSRF_HEADER = "Decklog-Csrf"
IDENTITY_HEADER = "Decklog-Identity"

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SAME_SITE = frozenset({b"same-origin", b"none"})
"""Values of Sec-Fetch-Site: the page itself, and what a person typed or opened from a bookmark."""
_PORTS = {"http": 80, "https": 443}


def is_secure(scope: Scope) -> bool:
    """Return whether the request came by HTTPS, also where a trusted proxy says so."""
    return scope.get("scheme") in ("https", "wss")


def cookie_name(scope: Scope) -> str:
    """Return the name of the cookie. The one without a prefix counts for nothing over HTTPS: a neighbour's page could plant it."""
    return SECURE_COOKIE if is_secure(scope) else COOKIE


def headers_of(scope: Scope, name: bytes) -> list[bytes]:
    """Return the values of a header in the order sent."""
    return [value for each, value in cast("list[tuple[bytes, bytes]]", scope["headers"]) if each == name]


def _cookies(scope: Scope) -> Iterator[tuple[str, str]]:
    for value in headers_of(scope, b"cookie"):
        for pair in value.decode("latin-1").split(";"):
            name, _, content = pair.strip().partition("=")
            yield name, content


def cookie(scope: Scope, name: str) -> str | None:
    """Return the value of a cookie, None without one. Two of one name are none: their order says nothing about their origin."""
    found = [content for each, content in _cookies(scope) if each == name]
    return found[0] if len(found) == 1 else None


def session_token(scope: Scope) -> str | None:
    """Return the token in the cookie of a session, None without one."""
    return cookie(scope, cookie_name(scope))


def set_cookie(scope: Scope, name: str, value: str, *, seconds: float, lax: bool = False) -> str:
    """Return a Set-Cookie header. `lax`: the cookie comes along when another site sends the browser here."""
    site = "Lax" if lax else "Strict"
    secure = "; Secure" if is_secure(scope) else ""
    return f"{name}={value}; Path=/; Max-Age={max(0, int(seconds))}; HttpOnly; SameSite={site}{secure}"


def _refused(detail: str) -> DecklogError:
    REFUSED.labels("request").inc()
    return DecklogError(Code.CSRF, detail)


def refuse_other_site(scope: Scope) -> None:
    """Refuse a request that a page of another site caused, as far as the browser says so. Raises `csrf`."""
    if any(value not in _SAME_SITE for value in headers_of(scope, b"sec-fetch-site")):
        raise _refused(
            "The page of another site caused this request, so the cookie of the session does not count. Send Authorization."
        )


def check_cookie_request(scope: Scope, token: str) -> None:
    """Check a request, or a WebSocket, which has no method, that is authenticated by the cookie of a session. Raises `csrf`."""
    refuse_other_site(scope)
    method = scope.get("method")
    if method is None:
        _check_origin(scope)
    elif method not in _SAFE:
        sent = headers_of(scope, CSRF_HEADER.lower().encode())
        if len(sent) != 1 or not hmac.compare_digest(sent[0], csrf_of(token).encode()):
            raise _refused(
                f"A change by the cookie of a session needs the header {CSRF_HEADER} with `csrf` of GET /api/v1/session."
            )


def _check_origin(scope: Scope) -> None:
    """Check that a page of this origin opens the WebSocket: browsers let any page open one, and send the cookie."""
    origins, hosts = headers_of(scope, b"origin"), headers_of(scope, b"host")
    if len(origins) != 1 or len(hosts) != 1 or _place(origins[0], scope) != _place(b"//" + hosts[0], scope):
        raise _refused("A WebSocket by the cookie of a session needs an Origin that is the host of the request.")


def _place(address: bytes, scope: Scope) -> tuple[str | None, int | None] | None:
    """Return host and port of an origin; None for one that is malformed or of plain HTTP where the request came by HTTPS."""
    try:
        parts = urlsplit(address.decode("ascii"))
        scheme = parts.scheme or ("https" if is_secure(scope) else "http")
        port = parts.port or _PORTS.get(scheme)
    except ValueError:
        return None
    return None if is_secure(scope) and scheme != "https" else (parts.hostname, port)


def base_url(scope: Scope) -> str:
    """Return the address by which the client reached this server."""
    hosts = headers_of(scope, b"host")
    scheme = "https" if is_secure(scope) else "http"
    if len(hosts) == 1:
        return f"{scheme}://{hosts[0].decode('latin-1')}"
    server = cast("Any", scope.get("server")) or ("127.0.0.1", None)
    return f"{scheme}://{server[0]}:{server[1]}"
