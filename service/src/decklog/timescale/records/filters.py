"""A `Query` as SQL over the columns of `records`.

What columns decide is decided exactly. Full text and `metadata` are only narrowed by conditions that every match
fulfils; the matcher of the domain decides them afterwards, so that Postgres never has an opinion of its own.
"""

from __future__ import annotations

import string
from datetime import timedelta
from typing import Any

from decklog.domain.records.record import OUTCOMES, SEVERITIES, Outcome, Severity
from decklog.domain.search.query import Query
from decklog.domain.search.terms import KEYWORD_CHARS_MAX

RECEIPT_SLACK = timedelta(hours=1)
"""A record is received at most 5 minutes before it occurred, by clocks of processes that may differ; with room to spare,
a lower bound of `occurred_at` is one of `received_at` too, and partitions can be left out."""

_EQUAL = (
    ("actor", "actor_id"),
    ("resource_type", "resource_type"),
    ("resource_id", "resource_id"),
    ("session_id", "session_id"),
    ("correlation_id", "correlation_id"),
    ("id", "id"),
)
_INDEXED = ("actor", "resource_id", "id")
_VERBATIM = frozenset(string.ascii_letters + string.digits + " .,:;!?@#$&*()[]{}<>|+=~^'-/")
"""Characters that stand in canonical JSON as they are; others may be escaped or folded there."""
_ONLY_ONE_CASE = frozenset("abcdefghjlmnopqrtuvwxyz0123456789")
"""Lower-case letters that no character but their own capital folds to; `k`, `i` and `s` have exotic relatives."""


class Parameters:
    """Values of a statement, numbered as they come."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def add(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


def _word_pattern(word: str) -> str:
    """A LIKE pattern that content with this word fulfils, whatever the case; doubtful characters match any one."""
    return "%" + "".join(c if c in _ONLY_ONE_CASE else "_" for c in word) + "%"


def _value_pattern(value: str) -> str | None:
    """A LIKE pattern that content with this `metadata` value fulfils, or None where JSON may spell it otherwise."""
    return f"%{value}%" if value and set(value) <= _VERBATIM else None


def conditions(query: Query, parameters: Parameters) -> list[str]:
    """Conditions, all of which hold for every record that matches."""
    found: list[str] = []
    add = parameters.add
    if query.since is not None:
        found.append(f"occurred_at >= {add(query.since)}")
        found.append(f"received_at >= {add(query.since - RECEIPT_SLACK)}")
    if query.until is not None:
        found.append(f"occurred_at < {add(query.until)}")
    for name, column in _EQUAL:
        if (value := getattr(query, name)) is not None:
            found.append(f"{column} = {add(value)}")
    if query.action is not None and not query.action_prefix:
        found.append(f"action = {add(query.action)}")
    elif query.action:
        # Bytes order: everything with this prefix lies between it and it followed by the last code point, as often as fits.
        last = query.action + chr(0x10FFFF) * KEYWORD_CHARS_MAX
        found.append(f"action >= {add(query.action)} AND action <= {add(last)}")
    if query.severities:
        # Numbers of ours, in the text: so every plan knows how rare they are, and which index is for them.
        found.append(f"severity IN ({', '.join(str(SEVERITIES.index(s)) for s in SEVERITIES if s in query.severities)})")
    if query.outcome is not None:
        found.append(f"outcome = {[str(o) for o in OUTCOMES].index(query.outcome)}")
    if query.ip is not None:
        found.append(f"ip <<= {add(query.ip)}::text::inet")
    found += [f"content ILIKE {add(_word_pattern(word))}" for word in query.words]
    for _, value in query.fields:
        if (pattern := _value_pattern(value)) is not None:
            found.append(f"content LIKE {add(pattern)}")
    return found


def by_index(query: Query) -> bool:
    """Whether some index, in the order of `seq`, has just what matches or little more: then one plan is right for any
    values of the parameters."""
    if query.since is not None or query.until is not None:
        return False
    exact_action = query.action is not None and not query.action_prefix
    return query.empty or exact_action or _went_wrong(query) or any(getattr(query, name) is not None for name in _INDEXED)


def _went_wrong(query: Query) -> bool:
    severe = bool(query.severities) and set(query.severities) <= {Severity.ERROR, Severity.CRITICAL}
    return severe or query.outcome in (Outcome.FAILURE, Outcome.DENIED)
