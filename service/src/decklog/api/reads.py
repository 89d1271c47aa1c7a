"""What the routes that read records have in common: their filter parameters, their errors and an example record."""

from __future__ import annotations

from decklog.api.openapi import Json, parameter
from decklog.domain.errors import Code
from decklog.domain.search.fields import FIELDS, Field, Kind
from decklog.domain.search.grammar import QUERY_CHARS_MAX
from decklog.domain.search.query import PARAMETER_CHARS_MAX

RECORDED_ERRORS = (
    Code.UNKNOWN_PARAMETER,
    Code.INVALID_PARAMETER,
    Code.FORBIDDEN,
    Code.TENANT_SUSPENDED,
    Code.RATE_LIMITED,
    Code.STORAGE_UNAVAILABLE,
    Code.ACCESS_LOG_UNAVAILABLE,
    Code.OVERLOADED,
)
"""Errors of every request whose access record counts as a query: of its parameters, of `AccessLog.admit` and of `AccessLog.write`."""
READ_ERRORS = (*RECORDED_ERRORS, Code.INVALID_QUERY, Code.RECORD_DAMAGED)
"""Errors of every read of a tenant's records."""
SEARCH_ERRORS = (*READ_ERRORS, Code.SEARCH_UNAVAILABLE)
"""Errors of every read that evaluates filters by the search engine."""

POSITION = "1.1769860800123456.2041"
"""Example of a position: `epoch.microseconds.seq`."""
PLACE: Json = {"type": "string", "pattern": r"^(\d{1,9}\.)?(\d{1,18}\.)?-?\d{1,18}$"}
"""Schema of a position, or of a sequence number alone."""
RECORD_INPUT: Json = {
    "id": "evt-2041",
    "action": "document.delete",
    "actor": {"type": "user", "id": "alice", "name": "Alice Ng"},
    "resource": {"type": "document", "id": "d-17", "name": "Q3 forecast"},
    "occurred_at": "2026-01-31T11:59:58Z",
    "outcome": "success",
    "source": {"ip": "192.0.2.17"},
    "metadata": {"reason": "retention"},
}
SERVER_FIELDS: Json = {
    "tenant": "acme",
    "log": "events",
    "epoch": 1,
    "seq": 2041,
    "received_at": "2026-01-31T12:00:00.123456Z",
    "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
RECORD: Json = {
    **SERVER_FIELDS,
    **RECORD_INPUT,
    "severity": "INFO",
    "recorded_by": {"type": "api_key", "id": "0f3a9c51d2e4b687", "ip": "192.0.2.40"},
}

_TIME: Json = {"type": "string", "format": "date-time"}


def _text(name: str, description: str, example: str, most: int = PARAMETER_CHARS_MAX) -> Json:
    return parameter(name, description, {"type": "string", "minLength": 1, "maxLength": most}, example=example)


LOG = parameter(
    "log",
    "Log to read: `events` (records that applications appended) or `access` (who read, exported or changed what).",
    {"type": "string", "enum": ["events", "access"], "default": "events"},
)


def _filter(found: Field) -> Json:
    """The parameter of one filter."""
    name, value = found.parameter, f"`{found.path}`"
    match found.kind:
        case Kind.SINCE:
            return parameter(name, f"Lower bound of {value}, inclusive. RFC 3339 with offset.", _TIME, example=found.example)
        case Kind.UNTIL:
            return parameter(name, f"Upper bound of {value}, exclusive. RFC 3339 with offset.", _TIME, example=found.example)
        case Kind.KEYWORD if found.prefixes:
            return _text(name, f"Exact value of {value}, or a prefix of it followed by `*`.", found.example)
        case Kind.KEYWORD:
            return _text(name, f"Exact value of {value}.", found.example)
        case Kind.KEYWORDS:
            return _text(name, f"Exact value of one {value}.", found.example)
        case Kind.TEXT:
            return _text(name, f"Words that occur in {value} next to each other.", found.example)
        case Kind.CHOICE:
            return parameter(name, f"Exact value of {value}.", {"type": "string", "enum": list(found.choices)})
        case Kind.CHOICES:
            choices = {"type": "string", "enum": list(found.choices)}
            schema = {"type": "array", "items": choices, "maxItems": len(found.choices)}
            return parameter(name, f"Any of these values of {value}; may be repeated.", schema, style="form", explode=True)
        case Kind.NETWORK:
            return _text(name, f"IP address, or network in CIDR notation, that contains {value}.", found.example)
        case Kind.WORDS:
            query = "Query in the query language: words that must all occur, phrases, `field:value`, AND, OR, NOT."
            return _text(name, query, found.example, QUERY_CHARS_MAX)
        case Kind.LEAVES:
            return _leaves(found)
        case Kind.SEQ | Kind.RECEIPT:
            raise ValueError(f"{name} is no parameter")


def _leaves(found: Field) -> Json:
    path, _, value = found.example.partition("=")
    inner, leaf = path.removeprefix(f"{found.parameter}."), {"type": "string", "minLength": 1}
    deep = found.parameter != "after"  # which is the name of a position, and a name may be there once
    return parameter(
        found.parameter if deep else f"{found.parameter}.<path>",
        f"Exact value of one leaf of `{found.path}`, as `{found.parameter}.<path>=<value>` or `{found.parameter}[<path>]=<value>`. Dots "
        f"separate the keys of the path. Example: `{found.example}`.",
        {"type": "object", "additionalProperties": leaf},
        style="deepObject" if deep else "form",
        explode=True,
        example={inner if deep else path: value},
    )


WAIT_FOR = parameter(
    "wait",
    "Wait until the search index finds the record with this `seq`, but at most 5 seconds. The answer is whole in any case: PostgreSQL "
    "finds what the index does not find yet.",
    {"type": "integer", "minimum": 0},
    example=2041,
)
FILTERS = [LOG, *map(_filter, FIELDS)]
"""Parameters of every route that filters records, made from the table of fields."""
