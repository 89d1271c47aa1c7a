"""Saved searches: list, save, get, replace, delete."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.params import FromPath

from decklog.api.limits import BODY_ERRORS, json_body
from decklog.api.openapi import JSON, Answer, Json, Media, Operation, json_answer, parameter
from decklog.api.reads import RECORDED_ERRORS
from decklog.api.request import ask, refuse_parameters
from decklog.domain.errors import Code
from decklog.domain.search.saved import PARAMETERS_BYTES_MAX, SearchInput, read_search, shown
from decklog.shapes import SavedSearch, SavedSearches

SEARCH_BYTES_MAX = 2 * PARAMETERS_BYTES_MAX
"""Bytes of the body of one search."""

_INPUT: Json = {"name": "Denied logins", "parameters": {"action": "user.login", "outcome": "denied"}, "shared": True}
_SEARCH: Json = {
    "id": "5f0c2b7d91aa0c1c",
    **_INPUT,
    "owner": "api_key::0f3a9c51d2e4b687",
    "saved_at": "2026-01-31T12:00:00.123456Z",
}
_ID = parameter(
    "number", "Id of the search.", {"type": "string", "minLength": 1}, place="path", example="5f0c2b7d91aa0c1c", required=True
)
_BODY = {JSON: Media(SearchInput, examples={"shared": _INPUT})}


async def _input(request: Request[Any, Any, Any]) -> SearchInput:
    return read_search(await json_body(request, "a search", SEARCH_BYTES_MAX))


_LIST = Operation(
    "list_searches",
    "read",
    {200: json_answer("Searches, ordered by name.", SavedSearches, {"items": [_SEARCH]})},
    RECORDED_ERRORS,
)


@get("/searches", opt={"operation": _LIST})
async def list_searches(request: Request[Any, Any, Any]) -> Response[bytes]:
    """List the saved searches that the credential may see.

    Roles: auditor, admin. An auditor sees shared searches and its own, an admin all of the tenant.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    found = await asked.services.searches.list(asked.principal, asked.context)
    return Response(msgspec.json.encode({"items": [shown(search) for search in found]}), media_type=JSON)


_SAVE = Operation(
    "save_search",
    "read",
    {201: json_answer("The search was saved.", SavedSearch, _SEARCH)},
    (*RECORDED_ERRORS, *BODY_ERRORS, Code.INVALID_QUERY, Code.CONFLICT),
    body=_BODY,
)


@post("/searches", opt={"operation": _SAVE})
async def save_search(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Save a search: parameters of `GET /api/v1/logs` under a name.

    Roles: auditor, admin. `parameters` are filters, `sort` and `order`, checked as a list checks them; a repeated one has a list of
    values. The search belongs to the credential; with `shared` all readers of the tenant see it. A tenant has 200 searches at most.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    saved = await asked.services.searches.save(asked.principal, asked.context, await _input(request))
    return Response(msgspec.json.encode(shown(saved)), media_type=JSON, status_code=201)


_GET = Operation(
    "get_search",
    "read",
    {200: json_answer("The search.", SavedSearch, _SEARCH)},
    (*RECORDED_ERRORS, Code.NOT_FOUND),
    parameters=[_ID],
)


@get("/searches/{number:str}", opt={"operation": _GET})
async def get_search(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[bytes]:
    """Get one saved search. Roles: auditor, admin."""
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    return Response(
        msgspec.json.encode(shown(await asked.services.searches.get(asked.principal, asked.context, number))), media_type=JSON
    )


_REPLACE = Operation(
    "replace_search",
    "read",
    {200: json_answer("The search was replaced.", SavedSearch, _SEARCH)},
    (*RECORDED_ERRORS, *BODY_ERRORS, Code.INVALID_QUERY, Code.NOT_FOUND),
    parameters=[_ID],
    body=_BODY,
)


@put("/searches/{number:str}", opt={"operation": _REPLACE})
async def replace_search(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[bytes]:
    """Replace name, parameters and sharing of a saved search.

    Roles: auditor for its own searches, admin for all of the tenant. The owner stays.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    saved = await asked.services.searches.save(asked.principal, asked.context, await _input(request), number)
    return Response(msgspec.json.encode(shown(saved)), media_type=JSON)


_DELETE = Operation(
    "delete_search", "read", {204: Answer("The search was deleted.", {})}, (*RECORDED_ERRORS, Code.NOT_FOUND), parameters=[_ID]
)


@delete("/searches/{number:str}", opt={"operation": _DELETE}, status_code=204)
async def delete_search(request: Request[Any, Any, Any], number: FromPath[str]) -> None:
    """Delete a saved search. Roles: auditor for its own searches, admin for all of the tenant."""
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    await asked.services.searches.delete(asked.principal, asked.context, number)
