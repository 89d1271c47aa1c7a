"""Names of fields in the query language: paths on the wire, names of parameters, and what an unknown name probably means."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from decklog.domain.search.fields import FIELDS, PLACES, Field, Kind, find

EXISTS = "exists"
"""In front of a field that must have a value."""

_BY_PATH = {field.path: field for field in FIELDS if field.kind not in (Kind.SINCE, Kind.UNTIL, Kind.WORDS)}
_BY_PATH |= {field.path: field for field in PLACES}
_BY_PATH["occurred_at"] = next(field for field in FIELDS if field.kind is Kind.SINCE)
_TIMES = {"since": "from", "until": "to"}
"""Names of the language for the bounds of time, and the parameters that they stand for."""
_ROOTS = frozenset(field.path for field in FIELDS if field.kind is Kind.LEAVES)
_NO_FIELDS = frozenset(field.parameter for field in FIELDS if field.kind is Kind.WORDS)
KNOWN = tuple(sorted({*_BY_PATH, *_TIMES, EXISTS, *(f.parameter for f in FIELDS if f.parameter not in _NO_FIELDS)} - _ROOTS))
"""Names besides those of leaves, which begin with `metadata.`, `before.` or `after.`."""
SHOWN = tuple(sorted(set(_BY_PATH) - _ROOTS))
"""Paths of fields, besides those of leaves."""
_MEANT = {
    "actor.id": "user user_id userid username user_name user.id user.name who principal email login account actor_id actorid subject",
    "action": "event event_type eventtype event_name eventname type verb operation method",
    "resource.id": "object object_id objectref target target_id resource resource_id entity resourceid",
    "outcome": "status result success error_code",
    "severity": "level priority loglevel",
    "source.ip": "address client client_ip clientip remote_addr remote_ip src src_ip host source ip_address sourceipaddress",
    "source.user_agent": "agent useragent browser",
    "message": "msg text body description",
    "occurred_at": "time timestamp date datetime @timestamp ts when",
    "received_at": "received receipt receipt_time ingested ingested_at stored_at",
    "seq": "sequence sequence_number seqno offset position number",
    "correlation_id": "request request_id requestid trace trace_id traceid",
    "session_id": "session sessionid",
    "recorded_by.id": "key api_key recorder",
}
_SYNONYMS = {word: path for path, words in _MEANT.items() for word in words.split()}
_LIKENESS = 0.75
_NAME_CHARS_MAX = 80
"""Characters of an unknown name that are compared with known ones."""


class Named(NamedTuple):
    """A field that a query names: `path` on the wire, that of the leaf where the field has leaves."""

    path: str
    field: Field


def resolve(name: str) -> Named | None:
    """Return the field of this name, or None."""
    if (by_path := _BY_PATH.get(name)) is not None and name not in _ROOTS:
        return Named(name, by_path)
    found = find(_TIMES.get(name, name))
    if found is None or found.kind is Kind.WORDS:
        return None
    return Named(name if found.kind is Kind.LEAVES else found.path, found)


def is_root(name: str) -> bool:
    """Return whether leaves have paths below this name."""
    return name in _ROOTS


def field_at(path: str) -> Field:
    """Return the field of a path that a tree holds."""
    found = _BY_PATH.get(path) or find(path)
    if found is None:
        raise ValueError(f"there is no field {path!r}")
    return found


def nearest(name: str) -> str:
    """Return the name that was probably meant by an unknown one: that of a field, or of a leaf of `metadata`."""
    lowered = name[:_NAME_CHARS_MAX].lower().replace("-", "_")
    if lowered in _SYNONYMS:
        return _SYNONYMS[lowered]
    [*close] = difflib.get_close_matches(lowered, KNOWN, n=1, cutoff=_LIKENESS)
    if close:
        return close[0]
    root, _, rest = lowered.partition(".")
    [*roots] = difflib.get_close_matches(root, _ROOTS, n=1, cutoff=_LIKENESS) if rest else []
    return f"{roots[0]}.{name.partition('.')[2]}" if roots else f"metadata.{name}"
