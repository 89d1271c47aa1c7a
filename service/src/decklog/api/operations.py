"""What the OpenAPI document says of each route: parameters, bodies, answers and every error code, with examples.

Each route carries its description as `opt["operation"]`; `openapi.py` puts them together. Plain OpenAPI 3.1 objects,
because that is what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from decklog.api.errors import PROBLEM_JSON, STATUSES, problem
from decklog.domain.errors import Code, DecklogError
from decklog.domain.search.fields import COUNTABLE, FIELDS, METADATA_PREFIX, Field, Kind
from decklog.domain.search.query import PARAMETER_CHARS_MAX

Json = dict[str, Any]

_ANY = (Code.UNAUTHENTICATED, Code.UNKNOWN_PARAMETER, Code.INVALID_PARAMETER, Code.REGISTRY_STALE, Code.INTERNAL)
_TENANT = (*_ANY, Code.FORBIDDEN, Code.TENANT_SUSPENDED, Code.STORAGE_UNAVAILABLE)
_APPENDING = (
    *_TENANT,
    Code.INVALID_JSON,
    Code.REQUEST_TIMEOUT,
    Code.BODY_TOO_LARGE,
    Code.UNSUPPORTED_ENCODING,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.RATE_LIMITED,
    Code.QUOTA_EXCEEDED,
    Code.OVERLOADED,
    Code.OUTCOME_UNKNOWN,
    Code.CLOCK_BEHIND,
)
_READING = (*_TENANT, Code.RATE_LIMITED, Code.ACCESS_LOG_UNAVAILABLE)
_SEARCHING = (*_READING, Code.SEARCH_UNAVAILABLE)

RECORD_EXAMPLE: Json = {
    "id": "evt-2041",
    "action": "document.delete",
    "actor": {"type": "user", "id": "alice", "name": "Alice Ng"},
    "resource": {"type": "document", "id": "d-17", "name": "Q3 forecast"},
    "occurred_at": "2026-01-31T11:59:58Z",
    "outcome": "success",
    "source": {"ip": "192.0.2.17"},
    "metadata": {"reason": "retention"},
}
_SERVER_FIELDS: Json = {
    "tenant": "acme",
    "log": "events",
    "epoch": 1,
    "seq": 2041,
    "received_at": "2026-01-31T12:00:00.123456Z",
    "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
_STORED_EXAMPLE: Json = {**_SERVER_FIELDS, **RECORD_EXAMPLE, "severity": "INFO"}
_POSITION = "1.1769860800123456.2041"


def _parameter(name: str, description: str, schema: Json, *, place: str = "query", example: Any = None, **more: Any) -> Json:
    made: Json = {"name": name, "in": place, "description": description, "schema": schema, **more}
    if example is not None:
        made["example"] = example
    return made


def _text(name: str, description: str, example: str) -> Json:
    return _parameter(name, description, {"type": "string", "minLength": 1, "maxLength": PARAMETER_CHARS_MAX}, example=example)


_TIME: Json = {"type": "string", "format": "date-time"}
_LOG = _parameter("log", "Which of the tenant's two logs.", {"type": "string", "enum": ["events", "access"], "default": "events"})


def _filter(field: Field) -> Json:
    """The parameter of one filter."""
    name, value = field.parameter, f"`{field.path}`"
    match field.kind:
        case Kind.SINCE:
            return _parameter(name, f"Lower bound of {value}, inclusive.", _TIME, example=field.example)
        case Kind.UNTIL:
            return _parameter(name, f"Upper bound of {value}, exclusive.", _TIME, example=field.example)
        case Kind.KEYWORD if field.prefixes:
            return _text(name, f"Exact value of {value}, or a prefix of it followed by `*`.", field.example)
        case Kind.KEYWORD:
            return _text(name, f"Exact value of {value}.", field.example)
        case Kind.CHOICE:
            return _parameter(name, f"Exact value of {value}.", {"type": "string", "enum": list(field.choices)})
        case Kind.CHOICES:
            choices = {"type": "string", "enum": list(field.choices)}
            schema = {"type": "array", "items": choices, "maxItems": len(field.choices)}
            return _parameter(name, f"Any of these values of {value}; may be repeated.", schema, style="form", explode=True)
        case Kind.NETWORK:
            return _text(name, f"Address, or network in CIDR notation, that contains {value}.", field.example)
        case Kind.WORDS:
            return _text(name, "Words that must all occur in the texts of the record, in any order.", field.example)
        case Kind.LEAVES:
            path, _, leaf = field.example.partition("=")
            return _parameter(
                name,
                f"Exact value of one leaf of {value}: `{METADATA_PREFIX}<path>=<value>`, with dots between keys. Example: `{field.example}`.",
                {
                    "type": "object",
                    "patternProperties": {r"^metadata\..+$": {"type": "string", "minLength": 1}},
                    "additionalProperties": False,
                },
                style="form",
                explode=True,
                example={path: leaf},
            )


_FILTERS = [_LOG, *map(_filter, FIELDS)]
_SEQ_PATH = _parameter(
    "seq", "The record's sequence number.", {"type": "integer", "minimum": 0}, place="path", example=2041, required=True
)
_KEY = _parameter(
    "Idempotency-Key",
    "Stands for the record's `id` where it has none; in a bulk item *i* gets `key/i`.",
    {"type": "string", "minLength": 1, "maxLength": 240, "pattern": "^[ -~]+$"},
    place="header",
    example="order-77",
)
_ENCODING = _parameter(
    "Content-Encoding", "How the body is packed.", {"type": "string", "enum": ["identity", "gzip", "zstd"]}, place="header"
)
_LAST_EVENT = _parameter(
    "Last-Event-ID",
    "As `after`, and stronger; an EventSource sends it by itself.",
    {"type": "string", "pattern": r"^(\d{1,9}\.)?(\d{1,18}\.)?-?\d{1,18}$"},
    place="header",
    example=_POSITION,
)

_REQUEST_ID: Json = {
    "X-Request-Id": {"description": "The request's id: the client's own where it sent one.", "schema": {"type": "string"}}
}
_RATE: Json = {
    "RateLimit": {"description": "What may still be appended.", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "The tenant's burst and how long it takes to fill.", "schema": {"type": "string"}},
}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(media_type: str, schema: Json, example: Any = None) -> Json:
    made: Json = {"schema": schema}
    if example is not None:
        made["example"] = example
    return {media_type: made}


def _answer(description: str, content: Json, **headers: Any) -> Json:
    return {"description": description, "headers": {**_REQUEST_ID, **headers}, "content": content}


def _json_answer(description: str, schema: str, example: Any, **headers: Any) -> Json:
    return _answer(description, _content("application/json", ref(schema), example), **headers)


def problems(codes: Sequence[Code]) -> Json:
    """Responses for error codes, one per status, with an example per code."""
    by_status: dict[int, list[Code]] = {}
    for code in sorted(set(codes)):
        by_status.setdefault(STATUSES[code][0], []).append(code)
    responses: Json = {}
    for status, found in sorted(by_status.items()):
        headers = dict(_REQUEST_ID)
        if status in (429, 503):
            headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        if status == 401:
            headers["WWW-Authenticate"] = {"description": "How to authenticate.", "schema": {"type": "string"}}
        examples = {
            code.value: {"value": problem(DecklogError(code, STATUSES[code][1] + "."), "5f0c2b7d91aa-1c")} for code in found
        }
        responses[str(status)] = {
            "description": "; ".join(f"`{code.value}`: {STATUSES[code][1]}" for code in found),
            "headers": headers,
            "content": {PROBLEM_JSON: {"schema": ref("Problem"), "examples": examples}},
        }
    return responses


def _operation(
    identifier: str,
    tag: str,
    answers: Json,
    codes: Sequence[Code],
    *,
    parameters: Sequence[Json] = (),
    body: Json | None = None,
    secured: bool = True,
) -> Json:
    made: Json = {"operationId": identifier, "tags": [tag], "responses": {**answers, **problems(codes)}}
    if parameters:
        made["parameters"] = list(parameters)
    if body is not None:
        made["requestBody"] = {"required": True, "content": body}
    made["security"] = [{"bearer": []}] if secured else []
    return {"operation": made}


_RECEIPT: Json = {**_SERVER_FIELDS, "status": "stored"}
APPEND = _operation(
    "append",
    "append",
    {
        "201": _json_answer("The record is durable.", "Receipt", _RECEIPT, **_RATE),
        "200": _json_answer("It was stored before, here.", "Receipt", {**_RECEIPT, "status": "duplicate"}, **_RATE),
    },
    (*_APPENDING, Code.INVALID_RECORD, Code.ID_CONFLICT),
    parameters=[_KEY],
    body={
        "application/json": {
            "schema": ref("RecordInput"),
            "examples": {
                "smallest": {"value": {"action": "login", "actor": {"id": "alice"}}},
                "usual": {"value": RECORD_EXAMPLE},
            },
        }
    },
)

_BULK_EXAMPLE: Json = {
    "stored": 1,
    "duplicates": 1,
    "rejected": 1,
    "items": [
        {"status": "stored", "seq": 2042},
        {"status": "duplicate", "seq": 2041},
        {"status": "rejected", "error": {"code": "invalid-record", "detail": "Object missing required field `actor`."}},
    ],
}
APPEND_BULK = _operation(
    "append_bulk",
    "append",
    {"200": _json_answer("What became of each record, in order.", "BulkAnswer", _BULK_EXAMPLE, **_RATE)},
    (*_APPENDING, Code.TOO_MANY_RECORDS, Code.BATCH_REJECTED, Code.BATCH_EXCEEDS_BURST),
    parameters=[
        _parameter("atomic", "Store all records or none.", {"type": "boolean", "default": False}),
        _KEY,
        _ENCODING,
    ],
    body={
        "application/json": {
            "schema": {"type": "array", "items": ref("RecordInput"), "maxItems": 10_000},
            "example": [RECORD_EXAMPLE, {"action": "login", "actor": {"id": "bob"}}],
        },
        "application/x-ndjson": {
            "schema": {"type": "string", "description": "One record on each line."},
            "example": '{"action": "login", "actor": {"id": "alice"}}\n{"action": "login", "actor": {"id": "bob"}}\n',
        },
    },
)

LIST = _operation(
    "list_records",
    "read",
    {
        "200": _json_answer(
            "A page of records.",
            "PageAnswer",
            {"items": [_STORED_EXAMPLE], "next": None, "head": 2042, "indexed_from": 0, "indexed": 2042, "engine": "opensearch"},
        )
    },
    (*_SEARCHING, Code.INVALID_CURSOR),
    parameters=[
        *_FILTERS,
        _parameter(
            "limit",
            "Records of the page. It has fewer where they are large, as it ends with what fills 8 MiB: go on while there is a `next`.",
            {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
        ),
        _parameter("cursor", "`next` of the page before.", {"type": "string"}),
    ],
)

GET_RECORD = _operation(
    "get_record",
    "read",
    {"200": _json_answer("The record.", "Record", _STORED_EXAMPLE)},
    (*_READING, Code.NOT_FOUND),
    parameters=[_SEQ_PATH, _LOG],
)

STATS = _operation(
    "count_records",
    "read",
    {
        "200": _json_answer(
            "Exact counts.",
            "StatsAnswer",
            {
                "buckets": [{"key": ["login"], "from": "2026-01-31T00:00:00Z", "count": 17}],
                "total": 17,
                "by": ["action"],
                "interval": "day",
                "head": 2042,
                "indexed_from": 0,
                "indexed": 2042,
                "engine": "opensearch",
            },
        )
    },
    (*_SEARCHING, Code.TOO_MANY_BUCKETS),
    parameters=[
        *_FILTERS,
        _parameter(
            "by",
            "Group by one or two of these.",
            {
                "type": "array",
                "items": {"type": "string", "enum": list(COUNTABLE)},
                "maxItems": 2,
                "uniqueItems": True,
            },
            style="form",
            explode=False,
            example=["action"],
        ),
        _parameter(
            "interval",
            "And by time, by `occurred_at` in UTC; weeks begin on Monday.",
            {"type": "string", "enum": ["minute", "hour", "day", "week", "month"]},
        ),
    ],
)

EXPORT = _operation(
    "export_records",
    "read",
    {
        "200": _answer(
            "The file. Broken off where something fails midway.",
            {
                "application/x-ndjson": {"schema": {"type": "string"}},
                "application/json": {"schema": {"type": "array", "items": ref("Record")}},
                "text/csv": {"schema": {"type": "string"}},
            },
            **{"Content-Disposition": {"description": "A name for the file.", "schema": {"type": "string"}}},
        )
    },
    (*_SEARCHING, Code.OVERLOADED),
    parameters=[
        *_FILTERS,
        _parameter(
            "format",
            "The file's format. CSV cells are never formulas.",
            {"type": "string", "enum": ["ndjson", "json", "csv"], "default": "ndjson"},
        ),
    ],
)

STREAM = _operation(
    "follow",
    "read",
    {
        "200": _answer(
            "Events until the client leaves.",
            {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": f'id: {_POSITION}\nevent: heartbeat\ndata: {{"position":"{_POSITION}"}}\n\n',
                }
            },
        )
    },
    (*_READING, Code.TOO_MANY_STREAMS, Code.UNSUPPORTED_MEDIA_TYPE, Code.OVERLOADED),
    parameters=[
        *_FILTERS,
        _parameter(
            "after",
            "Go on after this position, or after this sequence number; -1 is before the first. From now on without it.",
            {"type": "string", "pattern": r"^(\d{1,9}\.)?(\d{1,18}\.)?-?\d{1,18}$"},
            example=_POSITION,
        ),
        _LAST_EVENT,
    ],
)

_TENANT_EXAMPLE: Json = {
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
            "message": "The tenant can be used.",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:05Z",
        }
    ],
}
TENANTS = _operation(
    "list_tenants",
    "platform",
    {"200": _json_answer("All tenants.", "TenantsAnswer", {"items": [_TENANT_EXAMPLE]})},
    (*_ANY, Code.FORBIDDEN, Code.STORAGE_UNAVAILABLE, Code.ACCESS_LOG_UNAVAILABLE),
)

_MANIFEST_EXAMPLE: Json = {
    "apiVersion": "decklog.dev/v1",
    "kind": "Tenant",
    "metadata": {"name": "acme"},
    "spec": {"displayName": "Acme Ltd", "retention": {"days": 365}},
}
_KEYS_EXAMPLE: Json = {role: f"dlk_{number:016d}_{'0' * 64}" for number, role in enumerate(("writer", "auditor", "admin"))}
_LOCATION: Json = {"Location": {"description": "Where the tenant is.", "schema": {"type": "string"}}}
CREATE_TENANT = _operation(
    "create_tenant",
    "platform",
    {
        "201": _json_answer(
            "The tenant is new.", "TenantAnswer", {"tenant": _TENANT_EXAMPLE, "keys": _KEYS_EXAMPLE}, **_LOCATION
        ),
        "200": _json_answer(
            "It was there, with this spec.", "TenantAnswer", {"tenant": _TENANT_EXAMPLE, "keys": None}, **_LOCATION
        ),
    },
    (
        *_READING,
        Code.INVALID_JSON,
        Code.REQUEST_TIMEOUT,
        Code.BODY_TOO_LARGE,
        Code.UNSUPPORTED_ENCODING,
        Code.UNSUPPORTED_MEDIA_TYPE,
        Code.INVALID_TENANT,
        Code.CONFLICT,
        Code.MANAGED_BY_KUBERNETES,
        Code.OVERLOADED,
        Code.MISCONFIGURED,
    ),
    body={
        "application/json": {
            "schema": ref("TenantManifest"),
            "examples": {
                "smallest": {"value": {**_MANIFEST_EXAMPLE, "spec": {"retention": {"days": 30}}}},
                "usual": {"value": _MANIFEST_EXAMPLE},
            },
        }
    },
)
_NAME_PATH = _parameter(
    "name", "The tenant's name.", {"type": "string", "minLength": 1}, place="path", example="acme", required=True
)
GET_TENANT = _operation(
    "get_tenant",
    "platform",
    {"200": _json_answer("The tenant.", "TenantItem", _TENANT_EXAMPLE)},
    (*_READING, Code.NOT_FOUND),
    parameters=[_NAME_PATH],
)

WHOAMI = _operation(
    "whoami",
    "platform",
    {
        "200": _json_answer(
            "Who you are.",
            "WhoAmI",
            {
                "kind": "api_key",
                "subject": "0f3a9c51d2e4b687",
                "issuer": None,
                "tenant": "acme",
                "state": "active",
                "role": "auditor",
                "permissions": ["read"],
                "expires_at": None,
            },
        )
    },
    _ANY,
)

HEALTHZ = _operation(
    "healthz", "operate", {"200": _json_answer("Alive.", "Health", {"status": "ok"})}, (Code.INTERNAL,), secured=False
)
_READY: Json = {"status": "ready", "checks": {"database": "ok"}}
READYZ = _operation(
    "readyz",
    "operate",
    {
        "200": _json_answer("Ready, or degraded.", "ReadinessAnswer", _READY),
        "503": _json_answer(
            "Not ready.", "ReadinessAnswer", {"status": "unready", "checks": {"database": "storage-unavailable"}}
        ),
    },
    (Code.INTERNAL,),
    secured=False,
)
METRICS = _operation(
    "metrics",
    "operate",
    {"200": _answer("Metrics.", _content("text/plain", {"type": "string"}))},
    (Code.INTERNAL,),
    secured=False,
)
