"""Minting of viewer tokens, which is recorded in the tenant's access log before a token is returned."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, RequestContext
from decklog.domain.identity.scope import ViewerClaims, ViewerInput, scope_query
from decklog.domain.search.query import describe
from decklog.services.records.access_log import VIEWER_MINT, AccessLog

_ID_BYTES = 12
_minted = Counter("decklog_viewer_tokens_minted_total", "Viewer tokens minted.")


class Viewers:
    """Mints viewer tokens. `sign` returns the token with some claims, `now` seconds since 1970."""

    def __init__(
        self, access_log: AccessLog, sign: Callable[[ViewerClaims], str], *, now: Callable[[], float] = time.time
    ) -> None:
        self._access_log = access_log
        self._sign = sign
        self._now = now

    async def mint(self, principal: Principal, request: RequestContext, wanted: ViewerInput) -> tuple[str, datetime]:
        """Return a token, and when it ends: not after the API key that mints it.

        Raises:
            DecklogError: `forbidden` for anything but an API key that may mint, `invalid-query`, and what the access log raises.
        """
        tenant = self._access_log.admit_minting(principal)
        if principal.kind != "api_key":
            raise DecklogError(
                Code.FORBIDDEN, "Only an API key mints viewer tokens, as they end when it is revoked. Send one of an auditor."
            )
        now = int(self._now())
        query = scope_query(wanted.query, datetime.fromtimestamp(now, UTC))
        ends = now + wanted.expires_in
        token_id = secrets.token_hex(_ID_BYTES)
        claims = ViewerClaims(
            id=token_id,
            subject=wanted.subject or token_id,
            key=principal.subject,
            tenant=tenant.id,
            query=wanted.query,
            fields=wanted.fields,
            issued_at=now,
            expires_at=ends if principal.expires_at is None else min(ends, int(principal.expires_at)),
        )
        ends_at = datetime.fromtimestamp(claims.expires_at, UTC)
        details: dict[str, Any] = {"filter": describe(query), "subject": claims.subject, "expires_at": ends_at.isoformat()}
        if wanted.fields is not None:
            details["fields"] = wanted.fields
        await self._access_log.write(principal, request, VIEWER_MINT, resource=("viewer-token", token_id), details=details)
        _minted.inc()
        return self._sign(claims), ends_at
