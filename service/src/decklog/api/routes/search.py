"""Search with the query in the body, for queries that are too long for an address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from litestar import Request, post
from litestar.types import ASGIApp

from decklog.api.limits import BODY_ERRORS, json_body
from decklog.api.openapi import JSON, Json, Media, Operation
from decklog.api.request import PARAMETERS_MAX, ask, refuse_parameters
from decklog.api.routes.logs import LIST, Listing
from decklog.domain.errors import Code, DecklogError, invalid_parameter
from decklog.domain.search.grammar import QUERY_CHARS_MAX
from decklog.domain.unique_names import repeated
from decklog.services.records.list_options import Parameters

BODY_BYTES_MAX = 96 * 1024
"""Bytes of a body: a query of the maximum length, and other members."""
_QUERY, _PARAMETER = "query", "q"
"""Name of the query in a body, and of the parameter that it stands for."""


_TEXT: Json = {"type": "string", "minLength": 1}


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        members = json.loads(body.decode())
        twice = repeated(body)
    except (ValueError, RecursionError) as error:
        raise DecklogError(Code.INVALID_JSON, f"The body is not valid JSON in UTF-8: {str(error)[:200]}.") from None
    if twice:
        raise DecklogError(Code.INVALID_JSON, f"The body: {twice[0]}; each name may occur once.")
    if not isinstance(members, dict):
        raise DecklogError(Code.INVALID_JSON, 'The body must be an object, like {"query": "alice"}.')
    return members


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a member as parameters: a list as several of the same name, an object as one for each of its paths."""
    if isinstance(value, list):
        for item in value:
            yield from _texts(name, None if isinstance(item, list | dict) else item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(f"{name}.{key}", None if isinstance(item, list) else item)
    elif isinstance(value, str):
        yield name, value
    elif isinstance(value, bool | int):
        yield name, json.dumps(value)
    else:
        raise invalid_parameter(name, "must be a string, a whole number, true, false, or a list of such values.")


def parameters_of(body: bytes) -> Parameters:
    """Return the members of a body as parameters. Raises `invalid-json` and `invalid-parameter`."""
    members = _decoded(body)
    if _QUERY in members and _PARAMETER in members:
        raise invalid_parameter(_QUERY, f"is the same as `{_PARAMETER}`; one of them may be given.")
    found = [
        (_PARAMETER if name == _QUERY else name, text)
        for member, value in members.items()
        for name, text in _texts(member, value)
    ]
    if len(found) > PARAMETERS_MAX:
        raise invalid_parameter(_QUERY, f"A search has at most {PARAMETERS_MAX} parameters.")
    return found


def _schema() -> Json:
    """Return the schema of a body: the parameters of a list, by the same names."""
    properties: Json = {_QUERY: {**_TEXT, "maxLength": QUERY_CHARS_MAX, "description": "Query in the query language."}}
    for each in LIST.parameters:
        name, _, path = each["name"].partition(".")
        schema = {"type": "object", "additionalProperties": _TEXT} if path else each["schema"]
        properties[name] = {"anyOf": [properties[name], schema]} if name in properties else schema
    del properties[_PARAMETER]
    return {"type": "object", "properties": properties, "additionalProperties": False}


_SEARCH = Operation(
    "search_records",
    "read",
    LIST.answers,
    (*LIST.errors, *BODY_ERRORS),
    body={
        JSON: Media(
            _schema(),
            examples={
                "query": {"query": 'action:user.* AND NOT outcome:success since:24h "sign-in"', "limit": 50},
                "parameters": {
                    "severity": ["ERROR", "CRITICAL"],
                    "from": "2026-01-01T00:00:00Z",
                    "metadata": {"reason": "retention"},
                },
            },
        )
    },
)


@post("/logs/search", opt={"operation": _SEARCH}, status_code=200)
async def search_records(request: Request[Any, Any, Any]) -> ASGIApp:
    """Search records with the query in the body.

    The same as the list of records, for queries that are too long for an address. `query` stands for the parameter `q`; the other
    members have the names of the parameters of the list. A list of values repeats a parameter.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    body = await json_body(request, "a search", BODY_BYTES_MAX)
    return Listing(asked._replace(parameters=parameters_of(body)))
