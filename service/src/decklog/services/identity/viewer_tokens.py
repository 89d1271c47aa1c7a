"""Viewer tokens: signed scopes of one tenant's records, for the customers of a product that embeds its audit log.

A token is `dlv_` and a JSON Web Signature (RFC 7515) in compact form, by HMAC-SHA-256 with a key derived from the fingerprint key. This
module alone signs and verifies; `identity` decides whether the API key that minted a token is still valid. The holder of a token can
read its query.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from joserfc import jws
from joserfc.jwk import OctKey

from decklog.domain.errors import DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.identity.scope import Scope, ViewerClaims, checked_fields, scope_query
from decklog.services.identity.issuers import UntrustedError
from decklog.services.sealing import derived_key

VIEWER_PREFIX = "dlv_"
PURPOSE = "viewer tokens 1"
MINTERS = frozenset({Role.AUDITOR, Role.ADMIN})
"""Roles of the API keys that may mint: both read all that a token may show."""
_ALGORITHM = "HS256"
_HEADER = {"alg": _ALGORITHM, "typ": "decklog-viewer+jwt"}
_VERIFIER = jws.JWSRegistry(algorithms=[_ALGORITHM])


def scope_of(claims: ViewerClaims) -> Scope:
    """Return the scope of a verified token. Raises `UntrustedError` where this version of Decklog does not read it."""
    try:
        query = scope_query(claims.query, datetime.fromtimestamp(claims.issued_at, UTC))
        return Scope(claims.id, claims.key, query, checked_fields(claims.fields))
    except DecklogError as error:
        raise UntrustedError(f"scope: {error.detail}"[:300]) from None


class ViewerTokens:
    """Signs and verifies the tokens of all processes with the same secret, which is the fingerprint key."""

    def __init__(self, secret: str) -> None:
        self._key = OctKey.import_key(derived_key(secret, PURPOSE))

    def sign(self, claims: ViewerClaims) -> str:
        """Return the token with these claims."""
        return VIEWER_PREFIX + jws.serialize_compact(_HEADER, msgspec.json.encode(claims), self._key, registry=_VERIFIER)

    def verify(self, token: str) -> ViewerClaims:
        """Return the claims of a token whose signature is right; it may have expired. Raises `UntrustedError`."""
        try:
            verified = jws.deserialize_compact(token.removeprefix(VIEWER_PREFIX), self._key, registry=_VERIFIER)
            claims = msgspec.json.decode(verified.payload or b"", type=ViewerClaims)
        except Exception as error:  # noqa: BLE001 - whatever the library stumbles over, the token is not verified
            raise UntrustedError(f"viewer token: {error!r}"[:300]) from None
        if verified.headers() != _HEADER:
            raise UntrustedError("viewer token: its header is another one")
        return claims
