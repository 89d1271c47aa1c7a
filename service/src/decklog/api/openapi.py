"""The OpenAPI 3.1 document, made from the routes: each handler carries its `Operation` as `opt["operation"]`.

Summaries and descriptions are the handlers' docstrings. Schemas come from the types that decode and check. A route without
an operation is not documented.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.routes import BaseRoute, HTTPRoute

from decklog import __version__
from decklog.api.cookies import COOKIE, CSRF_HEADER, IDENTITY_HEADER, SECURE_COOKIE
from decklog.api.errors import PROBLEM_JSON, STATUSES, problem
from decklog.domain.errors import Code, DecklogError
from decklog.shapes import Problem

Json = dict[str, Any]
JSON = "application/json"

_DESCRIPTION = """\
Decklog is a multi-tenant audit log. Applications append records; auditors list, count, follow and export them.

**Authentication.** Send an API key (`dlk_…`), a JWT of a trusted issuer or a viewer token (`dlv_…`) as `Authorization: Bearer <token>`. A
credential belongs to exactly one tenant, or to the platform. No parameter, header or body can name another tenant. Browsers open a session
(`POST /api/v1/sessions`) and send its cookie instead.

**Errors.** Every error is an RFC 9457 problem document with a stable `code`. Answers with status 429 and 503 carry
`Retry-After`.

**Access log.** Every read is recorded in the tenant's `access` log before the answer is sent.

**Viewer tokens.** Their answers have fewer members: `x-viewer-schema` beside `schema` describes them.

**Compatibility.** New members may be added to answers at any time. Clients must ignore members that they do not know.
"""

_TAGS = [
    {"name": "append", "description": "Append records. Roles: writer, admin."},
    {"name": "read", "description": "Read records. Roles: auditor, admin."},
    {"name": "keys", "description": "Manage the API keys of a tenant. Role: admin."},
    {"name": "platform", "description": "Manage tenants, and inspect credentials."},
    {"name": "sign-in", "description": "Sessions of browsers, one-time links and tickets."},
    {"name": "operate", "description": "Probes for Kubernetes and metrics for Prometheus. No credential is needed."},
]

VIEWER_SCHEMA = "x-viewer-schema"
"""Member beside `schema`: the schema of the answer to a viewer token."""

_REQUEST_ID: Json = {
    "X-Request-Id": {
        "description": "Id of the request: the value that the client sent, or a new one.",
        "schema": {"type": "string"},
    }
}
_PROBLEM_HEADERS: dict[int, Json] = {
    401: {"WWW-Authenticate": {"description": "Authentication scheme: `Bearer`.", "schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": {"type": "integer"}}},
    503: {"Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": {"type": "integer"}}},
}


@dataclass(frozen=True)
class Media:
    """One representation of a body. `schema` is a JSON Schema, or the type whose schema it has; `viewer` that of a viewer token's answer.

    A choice between both would leave every client of the document without types, so that of viewers is a member of its own.
    """

    schema: Any
    example: Any = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    viewer: Any = None


@dataclass(frozen=True)
class Answer:
    """One successful answer: its representations by media type, and its headers beside `X-Request-Id`."""

    description: str
    content: Mapping[str, Media]
    headers: Mapping[str, Json] = field(default_factory=dict)


CONNECTION_ERRORS = (
    Code.MALFORMED_REQUEST,
    Code.REQUEST_TIMEOUT,
    Code.URI_TOO_LONG,
    Code.TOO_MANY_CONNECTIONS,
    Code.HEADERS_TOO_LARGE,
    Code.OVERLOADED,
)
"""Errors of a connection, before the route is known."""


AUTHENTICATION_ERRORS = (Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.CSRF, Code.REGISTRY_STALE, Code.ISSUER_UNAVAILABLE)
"""Errors of every route that needs a credential."""
_SAFE = frozenset({"get", "head"})
BEARER: Json = {"bearer": []}
SESSION: Json = {"session": []}
SESSION_CHANGE: Json = {"session": [], "csrf": []}


def _security(operation: Operation, method: str) -> list[Json]:
    if operation.security is not None:
        return list(operation.security)
    return [BEARER, SESSION if method in _SAFE else SESSION_CHANGE] if operation.secured else []


@dataclass(frozen=True)
class Operation:
    """What the document says of one route, beside its handler.

    `errors` are all codes that the route answers with; tests hold the running API to them. `internal` and the errors of a
    connection are always among them, and where `secured` so are the errors of authentication. `security` takes the place of what a secured
    route usually accepts: a token, or the cookie of a session.
    """

    identifier: str
    tag: str
    answers: Mapping[int, Answer]
    errors: Sequence[Code] = ()
    parameters: Sequence[Json] = ()
    body: Mapping[str, Media] | None = None
    body_required: bool = True
    secured: bool = True
    security: Sequence[Json] | None = None

    @property
    def codes(self) -> list[Code]:
        """Every code that the route may answer with, ordered by name."""
        secured = AUTHENTICATION_ERRORS if self.secured else ()
        return sorted({*self.errors, *secured, *CONNECTION_ERRORS, Code.INTERNAL})

    def __deepcopy__(self, memo: dict[int, Any]) -> Operation:
        return self  # Litestar copies routes when it registers them

    def media(self) -> Iterable[Media]:
        """All representations of the bodies of requests and answers."""
        yield from (self.body or {}).values()
        for answer in self.answers.values():
            yield from answer.content.values()


def json_answer(
    description: str, shape: Any, example: Any, headers: Mapping[str, Json] | None = None, *, viewer: Any = None
) -> Answer:
    """Return an answer in JSON of this shape; `viewer` is that of the answer to a viewer token."""
    return Answer(description, {JSON: Media(shape, example, viewer=viewer)}, headers or {})


def parameter(name: str, description: str, schema: Json, *, place: str = "query", example: Any = None, **more: Any) -> Json:
    """Return a parameter object. `place` is query, path or header."""
    made: Json = {"name": name, "in": place, "description": description, "schema": schema, **more}
    if example is not None:
        made["example"] = example
    return made


def _problems(codes: Sequence[Code]) -> Json:
    """Responses for error codes: one for each status, with an example for each code."""
    by_status: dict[int, list[Code]] = {}
    for code in codes:
        by_status.setdefault(STATUSES[code][0], []).append(code)
    return {str(status): _problem_answer(status, found) for status, found in sorted(by_status.items())}


def _problem_answer(status: int, codes: Sequence[Code]) -> Json:
    examples = {code.value: {"value": problem(DecklogError(code, STATUSES[code][1] + "."), "5f0c2b7d91aa-1c")} for code in codes}
    return {
        "description": "; ".join(f"`{code.value}`: {STATUSES[code][1]}" for code in codes),
        "headers": {**_REQUEST_ID, **_PROBLEM_HEADERS.get(status, {})},
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}},
    }


def _content(content: Mapping[str, Media], schema_of: Callable[[Any], Json]) -> Json:
    return {media_type: _represented(media, schema_of) for media_type, media in content.items()}


def _represented(media: Media, schema_of: Callable[[Any], Json]) -> Json:
    made: Json = {"schema": schema_of(media.schema)}
    if media.viewer is not None:
        made[VIEWER_SCHEMA] = schema_of(media.viewer)
    if media.example is not None:
        made["example"] = media.example
    if media.examples:
        made["examples"] = {name: {"value": value} for name, value in media.examples.items()}
    return made


def _operation(handler: HTTPRouteHandler, method: str, schema_of: Callable[[Any], Json]) -> Json:
    operation: Operation = handler.opt["operation"]
    summary, _, description = inspect.cleandoc(inspect.getdoc(handler.fn) or "").partition("\n")
    answers = {
        str(status): {
            "description": answer.description,
            "headers": {**_REQUEST_ID, **answer.headers},
            "content": _content(answer.content, schema_of),
        }
        for status, answer in operation.answers.items()
    }
    made: Json = {
        "operationId": operation.identifier,
        "tags": [operation.tag],
        "summary": summary.rstrip("."),
        "responses": {**_problems(operation.codes), **answers},
        "security": _security(operation, method),
    }
    if description.strip():
        made["description"] = description.strip()
    if operation.parameters:
        made["parameters"] = list(operation.parameters)
    if operation.body is not None:
        made["requestBody"] = {"required": operation.body_required, "content": _content(operation.body, schema_of)}
    return made


def _schemas(handlers: Iterable[HTTPRouteHandler]) -> tuple[Callable[[Any], Json], Json]:
    """A function from a shape to its schema, and the components that those schemas refer to."""
    medias = [media for handler in handlers for media in handler.opt["operation"].media()]
    named = [shape for media in medias for shape in (media.schema, media.viewer)]
    shapes = [*(shape for shape in named if shape is not None and not isinstance(shape, dict)), Problem]
    found, components = msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")
    _drop_null_defaults(components)
    by_shape = {id(shape): schema for shape, schema in zip(shapes, found, strict=True)}

    def schema_of(shape: Any) -> Json:
        return shape if isinstance(shape, dict) else by_shape[id(shape)]

    return schema_of, components


def _drop_null_defaults(schema: Any) -> None:
    """Remove `default: null`, which says what absence says: generators make a member with a default a required one."""
    if isinstance(schema, dict):
        if schema.get("default", ...) is None:
            del schema["default"]
        for value in schema.values():
            _drop_null_defaults(value)
    elif isinstance(schema, list):
        for value in schema:
            _drop_null_defaults(value)


def document(routes: Iterable[BaseRoute]) -> Json:
    """Return the OpenAPI document of these routes."""
    found = [
        (route.path_format, handler)
        for route in routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if "operation" in handler.opt
    ]
    schema_of, components = _schemas(handler for _, handler in found)
    paths: dict[str, Json] = {}
    for path, handler in found:
        (method,) = handler.http_methods
        paths.setdefault(path, {})[method.lower()] = _operation(handler, method.lower(), schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Decklog",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": _TAGS,
        "paths": {path: dict(sorted(methods.items())) for path, methods in sorted(paths.items())},
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key `dlk_<id>_<secret>`, a JWT (EdDSA, ES256, RS256) of a trusted issuer, or a viewer token `dlv_…`.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": f"Cookie of a session; over HTTPS its name is `{SECURE_COOKIE}`. The header `{IDENTITY_HEADER}` chooses "
                    "among the identities of the session, by default the first one. A request with `Authorization` ignores the cookie.",
                },
                "csrf": {
                    "type": "apiKey",
                    "in": "header",
                    "name": CSRF_HEADER,
                    "description": "`csrf` of the session, for every change by its cookie.",
                },
            },
        },
    }
