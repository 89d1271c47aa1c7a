"""The one table of fields that records are searched and counted by.

Parsing, matching, the SQL of a cell, the mapping and the queries of an index, the groups of statistics and the parameters of the
OpenAPI document are derived from `FIELDS`. A new filter is one row here, with its attributes of `Query` and `Terms`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from decklog.domain.records.record import OUTCOMES, SEVERITIES

CONTENT = "content"
"""The column that holds a record as it was hashed. SQL narrows by it; the matcher of `query.py` decides."""
METADATA_PREFIX = "metadata."
"""A parameter that begins with this names a leaf of `metadata` by its dotted path."""


class Kind(StrEnum):
    """How a filter compares a field."""

    SINCE = "since"
    """At this time or later."""
    UNTIL = "until"
    """Before this time."""
    KEYWORD = "keyword"
    """The whole value, cut at `terms.KEYWORD_CHARS_MAX`; or its prefix, where the field has `prefixes`."""
    CHOICE = "choice"
    """One of `choices`, which Postgres stores as its index there."""
    CHOICES = "choices"
    """Any of several `choices`; the parameter may be repeated."""
    NETWORK = "network"
    """An address within a network."""
    LEAVES = "leaves"
    """Leaves of a JSON value, each by its path."""
    WORDS = "words"
    """Words of full text, all of them."""


class Field(msgspec.Struct, frozen=True):
    """One filter.

    `parameter` is its name in a query string, `path` the place of its value in a record, with dots between keys. `term` names its
    value in `Terms` and in a document of the index, `column` in `records` of Postgres, and `attribute` in `Query`.
    """

    parameter: str
    path: str
    kind: Kind
    example: str
    term: str
    column: str
    attribute: str
    choices: tuple[str, ...] = ()
    prefixes: bool = False
    countable: bool = False
    """Whether statistics group by it."""


def _keyword(name: str, path: str, example: str, *, column: str = "", prefixes: bool = False, countable: bool = False) -> Field:
    return Field(name, path, Kind.KEYWORD, example, name, column or name, name, prefixes=prefixes, countable=countable)


def _time(parameter: str, kind: Kind, example: str) -> Field:
    return Field(parameter, "occurred_at", kind, example, "occurred_at", "occurred_at", kind.value)


_SEVERITIES, _OUTCOMES = tuple(map(str, SEVERITIES)), tuple(map(str, OUTCOMES))

FIELDS = (
    _time("from", Kind.SINCE, "2026-01-01T00:00:00Z"),
    _time("to", Kind.UNTIL, "2026-02-01T00:00:00Z"),
    _keyword("actor", "actor.id", "alice", column="actor_id", countable=True),
    _keyword("action", "action", "document.*", prefixes=True, countable=True),
    _keyword("resource_type", "resource.type", "document", countable=True),
    _keyword("resource_id", "resource.id", "d-17"),
    Field("severity", "severity", Kind.CHOICES, "ERROR", "severity", "severity", "severities", _SEVERITIES, countable=True),
    Field("outcome", "outcome", Kind.CHOICE, "denied", "outcome", "outcome", "outcome", _OUTCOMES, countable=True),
    Field("ip", "source.ip", Kind.NETWORK, "192.0.2.0/24", "ip", "ip", "ip"),
    _keyword("session_id", "session_id", "s-9"),
    _keyword("correlation_id", "correlation_id", "req-7"),
    _keyword("id", "id", "evt-2041"),
    Field("q", "", Kind.WORDS, "forecast alice", "words", CONTENT, "words"),
    Field("metadata", "metadata", Kind.LEAVES, "metadata.reason=retention", "fields", CONTENT, "fields"),
)
"""Every filter, in the order of the documentation."""

COUNTABLE = {field.parameter: field for field in FIELDS if field.countable}
"""The fields that statistics group by, by name."""

_BY_PARAMETER = {field.parameter: field for field in FIELDS if field.kind is not Kind.LEAVES}
_METADATA = next(field for field in FIELDS if field.kind is Kind.LEAVES)
NAMES = tuple(_BY_PARAMETER)
"""Names of the parameters, besides `metadata.<path>`."""


def find(parameter: str) -> Field | None:
    """Return the field of a query parameter, or None for an unknown name."""
    if parameter.startswith(METADATA_PREFIX) and parameter != METADATA_PREFIX:
        return _METADATA
    return _BY_PARAMETER.get(parameter)
