"""API keys of a tenant: list, make, revoke."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath

from decklog.api.limits import BODY_ERRORS, json_body
from decklog.api.openapi import JSON, Answer, Json, Media, Operation, json_answer, parameter
from decklog.api.request import ask, refuse_parameters
from decklog.domain.errors import Code
from decklog.domain.tenancy.api_keys import KeyInput, read_key, shown
from decklog.key_shapes import ApiKeys, MadeKey

KEY_BYTES_MAX = 4 * 1024
"""Bytes of the body of one key."""

_ERRORS = (
    Code.UNKNOWN_PARAMETER,
    Code.INVALID_PARAMETER,
    Code.FORBIDDEN,
    Code.TENANT_SUSPENDED,
    Code.STORAGE_UNAVAILABLE,
    Code.ACCESS_LOG_UNAVAILABLE,
    Code.OVERLOADED,
)
"""Errors of every request about keys."""
_INPUT: Json = {"role": "writer", "name": "Billing service", "expires_in": 7_776_000}
_KEY: Json = {
    "id": "7c1d5e0a93b8f642",
    "role": "writer",
    "name": "Billing service",
    "source": "api",
    "created_at": "2026-01-31T12:00:00.123456Z",
    "created_by": "api_key::0f3a9c51d2e4b687",
    "expires_at": "2026-05-01T12:00:00.123456Z",
    "revoked_at": None,
    "last_used_at": None,
}
_PROVISIONED: Json = {
    **_KEY,
    "id": "0f3a9c51d2e4b687",
    "role": "admin",
    "name": None,
    "source": "provisioned",
    "created_by": None,
    "expires_at": None,
    "last_used_at": "2026-01-31T12:01:00.456789Z",
}

_LIST = Operation(
    "list_keys",
    "keys",
    {200: json_answer("Keys in force, newest first, then others.", ApiKeys, {"items": [_KEY, _PROVISIONED]})},
    (*_ERRORS, Code.RATE_LIMITED),
)


@get("/keys", opt={"operation": _LIST})
async def list_keys(request: Request[Any, Any, Any]) -> Response[bytes]:
    """List the API keys of the tenant, without their secrets.

    Role: admin. The list has every key in force, newest first, and the 200 others that ended last. `source` says whether provisioning
    made the key, or an admin over the API. `last_used_at` is about a minute behind.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    found = await asked.services.keys.list(asked.principal, asked.context)
    return Response(msgspec.json.encode({"items": [shown(key) for key in found]}), media_type=JSON)


_MAKE = Operation(
    "make_key",
    "keys",
    {
        201: json_answer(
            "The key was made. No later answer repeats it.", MadeKey, {**_KEY, "key": f"dlk_7c1d5e0a93b8f642_{'0' * 64}"}
        )
    },
    (*_ERRORS, *BODY_ERRORS, Code.CONFLICT, Code.RATE_LIMITED),
    body={JSON: Media(KeyInput, examples={"ending": _INPUT, "smallest": {"role": "auditor", "name": "Audit 2026"}})},
)


@post("/keys", opt={"operation": _MAKE})
async def make_key(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Make an API key of the tenant.

    Role: admin. The answer shows the key in `key`, once. It works at once in every process, beside the provisioned keys, until it
    expires or is revoked, or the tenant is deleted. A tenant has 100 such keys in force at most, and makes 100 in an hour at most. If
    the answer is lost, revoke the key and make another one.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    wanted = read_key(await json_body(request, "a key", KEY_BYTES_MAX))
    given = await asked.services.keys.make(asked.principal, asked.context, wanted)
    return Response(msgspec.json.encode({**shown(given.listed), "key": given.token}), media_type=JSON, status_code=201)


_REVOKE = Operation(
    "revoke_key",
    "keys",
    {204: Answer("The key is revoked.", {})},
    (*_ERRORS, Code.NOT_FOUND, Code.CONFLICT),
    parameters=[
        parameter(
            "number",
            "Id of the key.",
            {"type": "string", "minLength": 1},
            place="path",
            example="7c1d5e0a93b8f642",
            required=True,
        )
    ],
)


@delete("/keys/{number:str}", opt={"operation": _REVOKE}, status_code=204)
async def revoke_key(request: Request[Any, Any, Any], number: FromPath[str]) -> None:
    """Revoke an API key that was made over the API.

    Role: admin. Every process refuses the key within two seconds. The request may be repeated. A provisioned key returns `conflict`:
    the annotation `decklog.dev/rotate` of the Tenant replaces those.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    await asked.services.keys.revoke(asked.principal, asked.context, number)
