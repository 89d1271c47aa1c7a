"""Tenants: list, get, create."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath

from decklog.api.limits import BODY_ERRORS, json_body
from decklog.api.openapi import JSON, Json, Media, Operation, json_answer, parameter
from decklog.api.request import ask, refuse_parameters
from decklog.domain.errors import Code
from decklog.domain.tenancy.manifest import TenantManifest, decode_manifest
from decklog.shapes import CreatedTenant, DescribedTenant, Tenants

TENANT_BYTES_MAX = 64 * 1024
"""Bytes of a manifest; the largest valid one has less than a tenth of this."""

_ERRORS = (
    Code.UNKNOWN_PARAMETER,
    Code.INVALID_PARAMETER,
    Code.FORBIDDEN,
    Code.STORAGE_UNAVAILABLE,
    Code.ACCESS_LOG_UNAVAILABLE,
)
"""Errors of every request about tenants: of its permission, the registry and the access log."""
_TENANT: Json = {
    "name": "acme",
    "isolation": "Dedicated",
    "retention_days": 365,
    "state": "active",
    "display_name": "Acme Ltd",
    "generation": 1,
    "created_at": "2026-01-01T00:00:00Z",
    "deleted_at": None,
    "spec": {"retention": {"days": 365}, "displayName": "Acme Ltd"},
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Ready",
            "message": "All parts of the tenant are ready.",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:05Z",
        }
    ],
}

_USAGE: Json = {
    "records": {"events": 120_000, "access": 340},
    "bytes": 98_304_000,
    "rejected": {"records": 2, "at": "2026-01-31T12:00:00Z", "code": "invalid-record"},
}

_LIST = Operation(
    "list_tenants", "platform", {200: json_answer("All tenants, ordered by name.", Tenants, {"items": [_TENANT]})}, _ERRORS
)


@get("/tenants", opt={"operation": _LIST})
async def list_tenants(request: Request[Any, Any, Any]) -> Response[bytes]:
    """List all tenants with their conditions.

    Role: platform. The request is recorded in the access log of the platform.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    listings = await asked.services.tenants.list(asked.principal, asked.context)
    return Response(msgspec.json.encode({"items": [listing.shown() for listing in listings]}), media_type=JSON)


_GET = Operation(
    "get_tenant",
    "platform",
    {200: json_answer("The tenant.", DescribedTenant, {**_TENANT, "usage": _USAGE})},
    (*_ERRORS, Code.TENANT_SUSPENDED, Code.NOT_FOUND),
    parameters=[
        parameter("name", "Name of the tenant.", {"type": "string", "minLength": 1}, place="path", example="acme", required=True)
    ],
)


@get("/tenants/{name:str}", opt={"operation": _GET})
async def get_tenant(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """Get one tenant with its conditions and its usage.

    Roles: platform for every tenant; auditor and admin for their own tenant. Any other name returns `not-found`. The request
    is recorded in the access log of the caller's tenant, or of the platform.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    listing, used = await asked.services.tenants.get(asked.principal, asked.context, name)
    answer = {**listing.shown(), "usage": None if used is None else used.shown()}
    return Response(msgspec.json.encode(answer), media_type=JSON)


_MANIFEST: Json = {
    "apiVersion": "decklog.dev/v1",
    "kind": "Tenant",
    "metadata": {"name": "acme"},
    "spec": {"displayName": "Acme Ltd", "retention": {"days": 365}},
}
_KEYS: Json = {role: f"dlk_{number:016d}_{'0' * 64}" for number, role in enumerate(("writer", "auditor", "admin"))}
_LOCATION: Json = {"Location": {"description": "Path of the tenant.", "schema": {"type": "string"}}}
_CREATE = Operation(
    "create_tenant",
    "platform",
    {
        201: json_answer("The tenant was created.", CreatedTenant, {"tenant": _TENANT, "keys": _KEYS}, _LOCATION),
        200: json_answer("The tenant exists, with this spec.", CreatedTenant, {"tenant": _TENANT, "keys": None}, _LOCATION),
    },
    (
        *_ERRORS,
        *BODY_ERRORS,
        Code.INVALID_TENANT,
        Code.CONFLICT,
        Code.MANAGED_BY_KUBERNETES,
        Code.OVERLOADED,
        Code.MISCONFIGURED,
    ),
    body={
        JSON: Media(
            TenantManifest,
            examples={"smallest": {**_MANIFEST, "spec": {"retention": {"days": 30}}}, "usual": _MANIFEST},
        )
    },
)


@post("/tenants", opt={"operation": _CREATE})
async def create_tenant(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Create a tenant.

    Role: platform. The body is the manifest that `kubectl apply` accepts, as JSON. If Decklog manages its tenants itself, the
    answer contains the API keys of the new tenant; no later answer repeats them. The same request may be repeated: it
    completes what an earlier one could not, as `conditions` show, and creates no keys that exist. It does not change the spec
    of an existing tenant: another spec returns `conflict`. A new value of the annotation `decklog.dev/rotate` requests new
    keys, for example if the answer with the first keys was lost.

    If Kubernetes manages the tenants, the request returns `managed-by-kubernetes` with the manifest to apply.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    manifest = decode_manifest(await json_body(request, "a Tenant", TENANT_BYTES_MAX))
    made = await asked.services.tenants.create(asked.principal, asked.context, manifest)
    answer = {"tenant": made.listing.shown(), "keys": dict(made.keys) or None}
    location = {"Location": f"/api/v1/tenants/{made.listing.name}"}
    return Response(msgspec.json.encode(answer), media_type=JSON, status_code=201 if made.new else 200, headers=location)
