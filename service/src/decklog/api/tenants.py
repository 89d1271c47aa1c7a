"""Who exists, and who is asking."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from decklog.api.operations import GET_TENANT, TENANTS, WHOAMI
from decklog.api.request import ask, refuse_parameters
from decklog.domain.log import from_microseconds, rfc3339

JSON = "application/json"


@get("/tenants", opt=TENANTS)
async def list_tenants(request: Request[Any, Any, Any]) -> Response[bytes]:
    """List all tenants with their conditions. For the platform; recorded like every reading."""
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    listings = await asked.service.tenants.list(asked.principal, asked.context)
    return Response(msgspec.json.encode({"items": [listing.shown() for listing in listings]}), media_type=JSON)


@get("/tenants/{name:str}", opt=GET_TENANT)
async def get_tenant(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """Get one tenant with its conditions, the same that kubectl shows.

    The platform may ask for any tenant, a tenant's auditors and admins for their own; any other name is answered as one
    that does not exist. Recorded like every reading.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    listing = await asked.service.tenants.get(asked.principal, asked.context, name)
    return Response(msgspec.json.encode(listing.shown()), media_type=JSON)


@get("/whoami", opt=WHOAMI)
async def whoami(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Say what the credential proves and allows. Any valid credential may ask."""
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
    }
    return Response(msgspec.json.encode(answer), media_type=JSON)
