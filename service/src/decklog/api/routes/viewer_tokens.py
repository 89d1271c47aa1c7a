"""Mint viewer tokens: short-lived credentials for a part of the records, for the customers of a product."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, post

from decklog.api.limits import BODY_ERRORS, json_body
from decklog.api.openapi import JSON, Media, Operation, json_answer
from decklog.api.request import ask, refuse_parameters
from decklog.domain.errors import Code
from decklog.domain.identity.scope import SCOPE_BYTES_MAX, ViewerInput, read_viewer_input
from decklog.domain.log import rfc3339_seconds
from decklog.viewer_shapes import ViewerToken

BODY_BYTES_MAX = 4 * SCOPE_BYTES_MAX
"""Bytes of a body: a scope, with blanks and characters that are written in longer ways."""

_MINT = Operation(
    "mint_viewer_token",
    "read",
    {
        201: json_answer(
            "The token, shown only in this answer.",
            ViewerToken,
            {"token": "dlv_eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl", "expires_at": "2026-01-31T12:15:00Z"},
        )
    },
    (
        Code.UNKNOWN_PARAMETER,
        Code.INVALID_PARAMETER,
        Code.INVALID_QUERY,
        Code.FORBIDDEN,
        Code.TENANT_SUSPENDED,
        Code.RATE_LIMITED,
        Code.ACCESS_LOG_UNAVAILABLE,
        *BODY_ERRORS,
    ),
    body={
        JSON: Media(
            ViewerInput,
            examples={
                "customer": {
                    "query": "metadata.customer:c-42",
                    "fields": ["occurred_at", "action", "actor.name", "resource", "outcome", "message"],
                    "expires_in": 900,
                    "subject": "c-42/u-7",
                }
            },
        )
    },
)


@post("/viewer-tokens", opt={"operation": _MINT})
async def mint_viewer_token(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Mint a viewer token: a credential that reads some records of the `events` log, and nothing else.

    Roles: auditor, admin, by API key. The token shows the records that satisfy `query`, with the chosen `fields`, to lists, searches, counts,
    exports and streams. It ends at `expires_at`, within 2 seconds after its API key is revoked, and with its tenant. Its holder can
    read its query. Its reads are recorded in the access log with `subject`.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    wanted = read_viewer_input(await json_body(request, "the scope of a viewer token", BODY_BYTES_MAX))
    token, expires_at = await asked.services.viewers.mint(asked.principal, asked.context, wanted)
    answer = {"token": token, "expires_at": rfc3339_seconds(expires_at)}
    return Response(msgspec.json.encode(answer), media_type=JSON, status_code=201)
