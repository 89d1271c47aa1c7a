"""The one table of fields that records are searched and counted by.

Parsing, matching, the SQL of a cell, the mapping and the queries of an index, the groups of statistics and the parameters of the
OpenAPI document are derived from `FIELDS`. A new filter is one row here, with its attribute of `Terms`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from decklog.domain.records.record import OUTCOMES, SEVERITIES

CONTENT = "content"
"""The column that holds a record as it was hashed. SQL narrows by it; the matcher of `query.py` decides."""


class Kind(StrEnum):
    """How a filter compares a field."""

    SINCE = "since"
    """At this time or later."""
    UNTIL = "until"
    """Before this time."""
    KEYWORD = "keyword"
    """The whole value; or its prefix, where the field has `prefixes`."""
    KEYWORDS = "keywords"
    """One of the record's values, as a whole."""
    TEXT = "text"
    """Words of one text, all of them."""
    CHOICE = "choice"
    """One of `choices`, which Postgres stores as its index there."""
    CHOICES = "choices"
    """Any of several `choices`; the parameter may be repeated."""
    NETWORK = "network"
    """An address within a network."""
    LEAVES = "leaves"
    """Leaves of a JSON value, each by its path: the parameter is the path, as in `metadata.reason`."""
    WORDS = "words"
    """Words of all texts of a record, all of them."""
    SEQ = "seq"
    """A number of a record, or a range of them."""
    RECEIPT = "receipt"
    """A range of receipt times."""


class Field(msgspec.Struct, frozen=True):
    """One filter.

    `parameter` is its name in a query string, `path` the place of its value in a record, with dots between keys. `term` names its
    value in `Terms`, `indexed` in a document of the index, and `column` in `records` of Postgres: `CONTENT` where no column holds the
    value.
    """

    parameter: str
    path: str
    kind: Kind
    example: str
    term: str
    column: str
    indexed: str
    choices: tuple[str, ...] = ()
    prefixes: bool = False
    countable: bool = False
    """Whether statistics group by it."""


def _keyword(name: str, path: str, example: str, *, column: str = "", prefixes: bool = False, countable: bool = False) -> Field:
    return Field(name, path, Kind.KEYWORD, example, name, column or name, name, prefixes=prefixes, countable=countable)


def _without_column(name: str, path: str, kind: Kind, example: str) -> Field:
    return Field(name, path, kind, example, name, CONTENT, name)


def _leaves(name: str, example: str) -> Field:
    return Field(name, name, Kind.LEAVES, example, "leaves", CONTENT, "leaves")


def _time(parameter: str, kind: Kind, example: str) -> Field:
    return Field(parameter, "occurred_at", kind, example, "occurred_at", "occurred_at", "occurred_at")


_SEVERITIES, _OUTCOMES = tuple(map(str, SEVERITIES)), tuple(map(str, OUTCOMES))

FIELDS = (
    _time("from", Kind.SINCE, "2026-01-01T00:00:00Z"),
    _time("to", Kind.UNTIL, "2026-02-01T00:00:00Z"),
    _keyword("actor", "actor.id", "alice", column="actor_id", countable=True),
    _keyword("actor_type", "actor.type", "user"),
    _without_column("actor_name", "actor.name", Kind.TEXT, "alice ng"),
    _keyword("action", "action", "document.*", prefixes=True, countable=True),
    _keyword("resource_type", "resource.type", "document", countable=True),
    _keyword("resource_id", "resource.id", "d-17"),
    _without_column("resource_name", "resource.name", Kind.TEXT, "forecast"),
    _without_column("related", "related.id", Kind.KEYWORDS, "folder-3"),
    _without_column("related_type", "related.type", Kind.KEYWORDS, "folder"),
    _without_column("related_name", "related.name", Kind.KEYWORDS, "Plans"),
    Field(
        "severity",
        "severity",
        Kind.CHOICES,
        "ERROR",
        "severity",
        "severity",
        "severity",
        _SEVERITIES,
        countable=True,
    ),
    Field("outcome", "outcome", Kind.CHOICE, "denied", "outcome", "outcome", "outcome", _OUTCOMES, countable=True),
    Field("ip", "source.ip", Kind.NETWORK, "192.0.2.0/24", "ip", "ip", "ip"),
    _without_column("user_agent", "source.user_agent", Kind.TEXT, "firefox"),
    _keyword("session_id", "session_id", "s-9"),
    _keyword("correlation_id", "correlation_id", "req-7"),
    _keyword("id", "id", "evt-2041"),
    _without_column("message", "message", Kind.TEXT, "sign-in failed"),
    _without_column("recorded_by", "recorded_by.id", Kind.KEYWORD, "0f3a9c51d2e4b687"),
    _without_column("recorded_by_type", "recorded_by.type", Kind.KEYWORD, "api_key"),
    _without_column("masked", "masked", Kind.KEYWORDS, "/metadata/password"),
    Field("q", "", Kind.WORDS, "forecast alice", "texts", CONTENT, "words"),
    _leaves("metadata", "metadata.reason=retention"),
    _leaves("before", "before.role=viewer"),
    _leaves("after", "after.role=admin"),
)
"""Every filter, in the order of the documentation."""

PLACES = (
    Field("seq", "seq", Kind.SEQ, "2041", "seq", "seq", "seq"),
    Field("received_at", "received_at", Kind.RECEIPT, "2026-01-31", "received_at", "received_at", "seq"),
)
"""Fields of the query language without a parameter: the place of a record in its log.

An index holds no receipt time. It never decreases along `seq`, so a range of it is a range of `seq`.
"""

COUNTABLE = {field.parameter: field for field in FIELDS if field.countable}
"""The fields that statistics group by, by name."""

_BY_PARAMETER = {field.parameter: field for field in FIELDS if field.kind is not Kind.LEAVES}
_BY_PREFIX = {f"{field.parameter}.": field for field in FIELDS if field.kind is Kind.LEAVES}
NAMES = tuple(_BY_PARAMETER)
"""Names of the parameters, besides those of leaves."""
PATHS = tuple(f"{prefix}<path>" for prefix in _BY_PREFIX)
"""Forms of the parameters that name a leaf by its dotted path."""


def find(parameter: str) -> Field | None:
    """Return the field of a query parameter, or None for an unknown name."""
    prefix = parameter[: parameter.find(".") + 1]
    if prefix and prefix != parameter:
        return _BY_PREFIX.get(prefix)
    return _BY_PARAMETER.get(parameter)
