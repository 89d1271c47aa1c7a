"""Identity and permissions of the caller's credential."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get

from decklog.api.openapi import JSON, Operation, json_answer
from decklog.api.request import ask, refuse_parameters
from decklog.domain.errors import Code
from decklog.domain.log import from_microseconds, rfc3339
from decklog.shapes import WhoAmI

_OPERATION = Operation(
    "whoami",
    "platform",
    {
        200: json_answer(
            "Identity and permissions.",
            WhoAmI,
            {
                "kind": "api_key",
                "subject": "0f3a9c51d2e4b687",
                "issuer": None,
                "tenant": "acme",
                "state": "active",
                "role": "auditor",
                "permissions": ["mint-viewer-tokens", "read"],
                "expires_at": None,
                "fields": None,
            },
        )
    },
    (Code.UNKNOWN_PARAMETER, Code.INVALID_PARAMETER),
)


@get("/whoami", opt={"operation": _OPERATION})
async def whoami(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the identity and the permissions of the credential. Every valid credential may call this."""
    refuse_parameters(request.scope["query_string"])
    principal = (await ask(request)).principal
    tenant = principal.tenant
    expires = principal.expires_at
    answer = {
        "kind": principal.kind,
        "subject": principal.subject,
        "issuer": principal.issuer,
        "tenant": None if tenant is None else tenant.name,
        "state": None if tenant is None else tenant.state.name.lower(),
        "role": principal.role.value,
        "permissions": sorted(principal.permissions),
        "expires_at": None if expires is None else rfc3339(from_microseconds(int(expires * 1_000_000))),
        "fields": list(principal.scope.fields) or None if principal.scope is not None else None,
    }
    return Response(msgspec.json.encode(answer), media_type=JSON)
