"""The credential of a request: `Authorization: Bearer`, a subprotocol of a WebSocket, or the cookie of a session.

A request with a token ignores the cookie. No query parameter and no other header can carry a credential, a tenant or a role; the header
`Decklog-Identity` only chooses among the identities of a session. The one exception is the one-time ticket of a stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from litestar.types import Scope

from decklog.api.cookies import IDENTITY_HEADER, check_cookie_request, headers_of, session_token
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal
from decklog.domain.identity.session import Session
from decklog.domain.records.recorder import recorder
from decklog.services.identity.identity import Identity, unauthenticated
from decklog.services.identity.sessions import Sessions

SUBPROTOCOL = "decklog"
SUBPROTOCOL_TOKEN = "bearer."  # noqa: S105 - the prefix of an entry, not a secret
"""`new WebSocket(url, ["decklog", "bearer.<token>"])`: the server selects the first, so it never echoes the token."""


def recorder_of(principal: Principal, scope: Scope) -> bytes:
    """Return the member `recorded_by` of the records of a request."""
    client = scope.get("client")
    return recorder(principal.kind, principal.subject, principal.issuer, client[0] if client else None)


_SCHEMES = {name.lower(): name for name in ("Basic", "Token", "Digest", "Negotiate", "NTLM", "ApiKey", "Key", "AWS4-HMAC-SHA256")}
"""Other schemes that a refusal names. An unknown one may be a credential without its scheme, which no answer may repeat."""
_EXPECTED = "Send Authorization: Bearer <API key or JWT>."


def _missing() -> DecklogError:
    return DecklogError(Code.UNAUTHENTICATED, f"The request has no credential. {_EXPECTED}")


def _other_scheme(scheme: str) -> DecklogError:
    known = _SCHEMES.get(scheme.lower())
    if known is None:
        found = "The header Authorization has no scheme, or one that is not known here."
    else:
        found = f"The header Authorization has the scheme {known}, which is not supported."
    return DecklogError(Code.UNAUTHENTICATED, f"{found} {_EXPECTED}")


def bearer(value: bytes) -> str:
    """Return the token of an Authorization header. Raises `unauthenticated`."""
    scheme, _, token = value.partition(b" ")
    if scheme.lower() != b"bearer":
        raise _other_scheme(scheme.decode("latin-1")) if value.strip() else _missing()
    return token.strip(b" ").decode("latin-1")


def token_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the bearer token of a request, None without an Authorization header. Two such headers raise `unauthenticated`."""
    found = [value for name, value in headers if name == b"authorization"]
    if not found:
        return None
    if len(found) > 1:
        raise unauthenticated()
    return bearer(found[0])


async def authenticate(identity: Identity, sessions: Sessions, scope: Scope, subprotocols: Sequence[str] = ()) -> Principal:
    """Return the principal of a request. Raises `unauthenticated`, `registry-stale`, and for a cookie `csrf` and `forbidden`."""
    token = token_of(scope["headers"])
    if token is None:
        offered = [entry.removeprefix(SUBPROTOCOL_TOKEN) for entry in subprotocols if entry.startswith(SUBPROTOCOL_TOKEN)]
        if len(offered) > 1:
            raise _missing()
        if not offered:
            return await _by_cookie(sessions, scope)
        token = offered[0]
    return await identity.authenticate(token)


async def _by_cookie(sessions: Sessions, scope: Scope) -> Principal:
    """Return the principal of the identity that a request by cookie chooses."""
    session = await session_of(sessions, scope)
    chosen = headers_of(scope, IDENTITY_HEADER.lower().encode())
    if len(chosen) > 1:
        raise unauthenticated()
    return await sessions.principal(session, chosen[0].decode("latin-1") if chosen else None)


async def session_of(sessions: Sessions, scope: Scope) -> Session:
    """Return the session of a request by cookie. Raises `unauthenticated`, `registry-stale` and `csrf`."""
    token = session_token(scope)
    if token is None:
        raise _missing()
    check_cookie_request(scope, token)
    return await sessions.of(token)
