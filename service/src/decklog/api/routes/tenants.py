"""Who exists, and who is asking."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath

from decklog.api.limits import check_length, read_body
from decklog.api.operations import CREATE_TENANT, GET_TENANT, TENANTS, WHOAMI
from decklog.api.request import ask, media_type, refuse_parameters
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, require
from decklog.domain.log import from_microseconds, rfc3339
from decklog.domain.tenancy.manifest import TenantManifest

JSON = "application/json"
TENANT_BYTES_MAX = 64 * 1024
"""Of a manifest; the largest possible has less than a tenth of it."""


@get("/tenants", opt=TENANTS)
async def list_tenants(request: Request[Any, Any, Any]) -> Response[bytes]:
    """List all tenants with their conditions. For the platform; recorded like every reading."""
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    listings = await asked.services.tenants.list(asked.principal, asked.context)
    return Response(msgspec.json.encode({"items": [listing.shown() for listing in listings]}), media_type=JSON)


def _sent(body: bytes) -> TenantManifest:
    """Raises `invalid-json`, and `invalid-tenant` naming the field."""
    try:
        return msgspec.json.decode(body, type=TenantManifest)
    except msgspec.ValidationError as error:
        raise DecklogError(Code.INVALID_TENANT, f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecklogError(Code.INVALID_JSON, f"The body is not valid JSON in UTF-8: {error}.") from None


@post("/tenants", opt=CREATE_TENANT)
async def create_tenant(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Make a tenant.

    The body is the manifest that `kubectl apply` takes, as JSON. Where Decklog owns its tenants, the answer has the keys
    of the new tenant: they are told this once. Sending the same again is safe: it makes up for what could not be done
    before, as `conditions` tell, and makes no keys that are there. A tenant is not changed by it. A new value of the
    annotation `decklog.dev/rotate` asks for new keys, for example where the answer with the first ones was lost.

    Where Kubernetes owns the tenants, the manifest comes back, ready to be applied.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    require(asked.principal, Permission.CREATE_TENANTS)
    headers = dict(request.scope["headers"])
    if media_type(headers) != JSON:
        raise DecklogError(Code.UNSUPPORTED_MEDIA_TYPE, "A Tenant is sent as application/json.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise DecklogError(Code.UNSUPPORTED_ENCODING, "A Tenant is sent without Content-Encoding.")
    check_length(headers.get(b"content-length"), TENANT_BYTES_MAX)
    sent = _sent(await read_body(request.receive, TENANT_BYTES_MAX))
    made = await asked.services.tenants.create(asked.principal, asked.context, sent)
    answer = {"tenant": made.listing.shown(), "keys": dict(made.keys) or None}
    location = {"Location": f"/api/v1/tenants/{made.listing.name}"}
    return Response(msgspec.json.encode(answer), media_type=JSON, status_code=201 if made.new else 200, headers=location)


@get("/tenants/{name:str}", opt=GET_TENANT)
async def get_tenant(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """Get one tenant with its conditions, the same that kubectl shows.

    The platform may ask for any tenant, a tenant's auditors and admins for their own; any other name is answered as one
    that does not exist. Recorded like every reading.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    listing = await asked.services.tenants.get(asked.principal, asked.context, name)
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
