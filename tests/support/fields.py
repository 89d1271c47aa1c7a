"""For each field of `decklog.domain.search.fields`: a query, a record that it finds, and one that it does not find."""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple

import msgspec

from decklog.domain.records.record import Prepared
from decklog.domain.search import decided, tree
from decklog.domain.search.fields import Field, Kind
from decklog.domain.search.query import Query, parse
from tests.support.strategies import prepared

_PLAIN: dict[str, Any] = {"action": "other", "actor": {"id": "somebody"}, "occurred_at": "2026-01-15T00:00:00Z"}
_TOO_EARLY, _TOO_LATE = "2025-12-31T23:59:59.999999Z", "2026-02-01T00:00:00Z"


class Example(NamedTuple):
    """A query for one field, and two records that differ in that field alone."""

    query: Query
    found: Prepared
    other: Prepared


def _at(path: str, value: Any) -> dict[str, Any]:
    """Return record fields with this value at a dotted path, and with the required members of the object there."""
    name, _, key = path.partition(".")
    if name == "masked":
        return {"metadata": {value.removeprefix("/metadata/"): "-"}}
    if not key:
        return {name: value}
    if name == "related":
        return {name: [{"type": "-"}, {"type": "-", key: value}]}
    return {name: {"type": "-", key: value} if name in ("resource", "recorded_by") else {key: value}}


def example(field: Field) -> Example:
    """Return the example for a field, built from `field.example` in the table of fields."""
    name, text = field.parameter, field.example
    found, other = {}, {}
    match field.kind:
        case Kind.SINCE:
            found, other = _at(field.path, text), _at(field.path, _TOO_EARLY)
        case Kind.UNTIL:
            found, other = {}, _at(field.path, _TOO_LATE)
        case Kind.KEYWORD | Kind.KEYWORDS:
            found = _at(field.path, text.replace("*", "more"))
        case Kind.CHOICE | Kind.CHOICES:
            found = _at(field.path, text)
        case Kind.NETWORK:
            found = _at(field.path, str(ipaddress.ip_network(text)[-1]))
        case Kind.TEXT:
            found, other = _at(field.path, f"The {text.upper()}."), _at(field.path, "The rest.")
        case Kind.WORDS:
            found, other = {"message": f"The {text.upper()}."}, {"message": text.split()[0]}
        case Kind.LEAVES:
            name, _, text = text.partition("=")
            key = name.removeprefix(f"{field.path}.")
            found, other = _at(field.path, {key: text}), _at(field.path, {key: text + text})
    return Example(parse([(name, text)])[1], _prepared(found), _prepared(other))


def _prepared(value: dict[str, Any]) -> Prepared:
    recorder = value.pop("recorded_by", None)
    return prepared(
        {**_PLAIN, **value, "actor": _PLAIN["actor"] | value.get("actor", {})},
        recorder=msgspec.json.encode(recorder) if recorder else None,
    )


def without_content(query: Query) -> Query:
    """Return the conditions of a query that columns decide."""
    return Query(tree.conjunction(node for node in query.conjuncts if decided.by_columns(node)))
