"""Answers in sentences: the numbers, and the records that they rest on. The words that are not understood come first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from decklog.domain.ask.actions import listed as joined
from decklog.domain.ask.understanding import Order, Understanding
from decklog.services.ask.tools import Count, Counts, Listed, Story

_NAMED = 5
"""Values that a sentence names."""


def found(asked: Understanding, listed: Listed) -> str:
    """Return the answer of records."""
    if not listed.total:
        return _sentences(asked, "No record matches.")
    order = "newest" if asked.order is Order.NEWEST else "oldest"
    first = f"The {order}: {_record(listed.records[0])}." if listed.records else ""
    rest = "" if listed.total == len(listed.records) else f" Shown: the {order} {len(listed.records)}{_numbers(listed.records)}."
    return _sentences(asked, f"{_records(listed.total)} {_verb(listed.total)}. {first}{rest}")


def counted(asked: Understanding, counts: Counts) -> str:
    """Return the answer of a number of records, or of the most frequent values of a field."""
    total = f"{_records(counts.total)} {_verb(counts.total)}."
    if counts.by is None or not counts.total:
        return _sentences(asked, total)
    values = joined([f"{each.value} ({each.count:,})" for each in counts.values[:_NAMED]], _NAMED)
    more = f", and {len(counts.values) - _NAMED} more below" if len(counts.values) > _NAMED else ""
    other = f" Further values have {_records(counts.other)}." if counts.other else ""
    missing = f" {_records(counts.missing)} {'has' if counts.missing == 1 else 'have'} none." if counts.missing else ""
    part = f"Of them, the values of the newest {counts.read:,} were counted. " if counts.read is not None else ""
    found = f"By {counts.by}: {values}{more}." if counts.values else f"None of them has a value of {counts.by}."
    return _sentences(asked, f"{total} {part}{found}{other}{missing}")


def timeline(asked: Understanding, counts: Counts) -> str:
    """Return the answer of counts by intervals."""
    if not counts.values:
        return _sentences(asked, "No record matches.")
    most = max(counts.values, key=lambda each: each.count)
    intervals = f"{len(counts.values):,} {counts.by}{'' if len(counts.values) == 1 else 's'} ({asked.zone})"
    return _sentences(
        asked,
        f"{_records(counts.total)} {_verb(counts.total)}, from {counts.values[0].value} to {counts.values[-1].value}: {intervals}. "
        f"The most, {most.count:,}, in the {counts.by} that begins at {most.value}.",
    )


def story(asked: Understanding, told: Story) -> str:
    """Return the answer of a story: its beginning and end, who took part, and what was done."""
    if not told.records:
        return _sentences(asked, "No record matches.")
    actors, actions = (_part(name, counts.values) for name, counts in (("Actors", told.actors), ("Actions", told.actions)))
    shown = f" Shown: the first {len(told.records)}." if told.total > len(told.records) else ""
    first, last = _record(told.records[0]), _record(told.records[-1])
    end = f" The last shown: {last}." if len(told.records) > 1 else ""
    return _sentences(asked, f"{_records(told.total)} {_verb(told.total)}.{shown} The first: {first}.{end}{actors}{actions}")


def compared(asked: Understanding, counts: Counts) -> str:
    """Return the answer of a comparison."""
    first, second = (each.count for each in counts.values)
    more = f"{abs(first - second):,} {'more' if first > second else 'fewer'}" if first != second else "as many"
    share = f" ({abs(first - second) / second:.0%})" if first != second and second else ""
    left, right = (each.value or "all records" for each in counts.values)
    return _sentences(
        asked, f"{_records(first)} and {_records(second)}: the first has {more}{share}. First: {left}. Second: {right}."
    )


def _sentences(asked: Understanding, answer: str) -> str:
    if not asked.not_understood:
        return answer
    words = ", ".join(f"“{each.text}”" for each in asked.not_understood)
    return f"Not understood: {words}. The answer is as if {'this' if len(asked.not_understood) == 1 else 'these'} were not there. {answer}"


def _records(count: int) -> str:
    return f"{count:,} record{'' if count == 1 else 's'}"


def _verb(count: int) -> str:
    return "matches" if count == 1 else "match"


def _part(name: str, values: Sequence[Count]) -> str:
    named = joined([f"{each.value} ({each.count:,})" for each in values], _NAMED)
    return f" {name}: {named}." if values else ""


def _numbers(records: Sequence[msgspec.Raw]) -> str:
    """Return the numbers of the first and the last of some records, nothing where a viewer token hides them."""
    numbers = [msgspec.json.decode(record).get("seq") for record in (records[0], records[-1])]
    if None in numbers:
        return ""
    return f", record {numbers[0]}" if numbers[0] == numbers[1] else f", from record {numbers[0]} to record {numbers[1]}"


def _record(text: msgspec.Raw) -> str:
    """Return one record in a few words: what of who, what, on what, when and how it ended may be seen."""
    record = msgspec.json.decode(text)
    number = f"record {record['seq']}, " if "seq" in record else ""
    resource = _member(record, "resource")
    words = (
        _member(record, "actor"),
        str(record.get("action", "")),
        f"on {resource}" if resource else "",
        f"at {record['occurred_at']}" if "occurred_at" in record else "",
    )
    outcome = f" ({record['outcome']})" if "outcome" in record else ""
    return f"{number}{' '.join(filter(None, words))}{outcome}"


def _member(record: dict[str, Any], name: str) -> str:
    found = record.get(name) or {}
    return str(found.get("id") or found.get("name") or "")
