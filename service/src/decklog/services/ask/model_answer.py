"""Words of a model, before a person reads it: bounded, without links and hidden characters, its numbers compared with the results.

A text that a record has put into the mouth of the model stays a text: it is never a link, a query or a command.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final, NamedTuple

import msgspec

from decklog.domain.ask.understanding import Unread
from decklog.services.ask.model_tools import Evidence
from decklog.services.ask.tools import Counts, Story

TEXT_CHARS_MAX: Final = 2_000
"""Characters of what a model wrote that are shown."""
NAMED_MAX: Final = 5
"""Numbers that a note names."""
_LINK = re.compile(r"(?:[a-z][a-z0-9+.-]{1,20}://|www\.|mailto:|data:|javascript:)\S*", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![A-SU-Za-z0-9])\d+(?:[.,:]\d+)*(?![A-SU-Ya-z0-9])")
_COUNTED = re.compile(
    r"\s+(?:[a-z]+\s+)?(?:record|event|entr|time|match|result|attempt|failure|action|deletion|login|sign-in)", re.IGNORECASE
)
"""Words that follow a number that counts something: at most one other word in between."""
_REMOVED = "[link removed]"


class Written(NamedTuple):
    """A checked text, and notes about it."""

    text: str
    notes: tuple[str, ...]


def written(text: str, question: str, evidence: Iterable[Evidence]) -> Written:
    """Return a model's text as it is shown, and what a reader must know about it."""
    clean = _LINK.sub(_REMOVED, _printable(text)).strip()
    notes = []
    if len(clean) > TEXT_CHARS_MAX:
        clean = clean[: TEXT_CHARS_MAX - 1] + "…"
        notes.append("The model wrote more than is shown.")
    if _REMOVED in clean:
        notes.append("A link that the model wrote was removed.")
    if unknown := unconfirmed(clean, question, evidence):
        named = ", ".join(unknown[:NAMED_MAX]) + (", …" if len(unknown) > NAMED_MAX else "")
        notes.append(f"No result has these numbers that the model wrote: {named}.")
    return Written(clean, tuple(notes))


def unconfirmed(text: str, question: str, evidence: Iterable[Evidence]) -> list[str]:
    """Return the numbers of a text that rest on nothing, each once.

    A number of records, events and the like must be a count of a result, or a sum or difference of two totals. Any other number must occur in a
    result, a query or the question.
    """
    counts, others = _counts(evidence := list(evidence)), _numbers(question)
    for each in evidence:
        others |= {part.lstrip("0") or "0" for part in re.findall(r"\d+", each.call.query)} | _numbers(
            msgspec.json.encode(each.result).decode()
        )
    found: dict[str, None] = {}
    for match in _NUMBER.finditer(text):
        counted = _COUNTED.match(text, match.end()) is not None
        if not _parts(match[0]) <= (counts if counted else counts | others):
            found[match[0]] = None
    return list(found)


def _counts(evidence: Sequence[Evidence]) -> set[str]:
    """Return the counts of the results: totals, their sums and differences, those of values, and the numbers of records shown."""
    totals = [each.result.total for each in evidence]
    pairs = list(combinations(totals, 2))
    found = {*totals, *(abs(a - b) for a, b in pairs), *(a + b for a, b in pairs)}
    for result in (each.result for each in evidence):
        if isinstance(result, Counts):
            tables: tuple[Counts, ...] = (result,)
        else:
            found.add(len(result.records))
            tables = (result.actors, result.actions) if isinstance(result, Story) else ()
        for table in tables:
            found |= {len(table.values), *(each.count for each in table.values), *filter(None, (table.other, table.missing))}
    return {str(number) for number in found}


def _numbers(text: str) -> set[str]:
    return {part for number in _NUMBER.findall(text) for part in _parts(number)}


def _parts(number: str) -> set[str]:
    """Return a number without its separators: `1,234` as 1234, the parts of a time, and an address as it is."""
    if re.fullmatch(r"\d{1,3}(?:[.,]\d{3})+", number):
        return {re.sub(r"[.,]", "", number)}
    if number.count(".") > 1:
        return {number}
    return {part.lstrip("0") or "0" for part in re.split(r"[.,:]", number)}


def _printable(text: str) -> str:
    """Return a text without control characters, marks of direction and other characters that are not seen."""
    kept = (each for each in text if each == "\n" or unicodedata.category(each) not in ("Cc", "Cf", "Co", "Cs", "Cn"))
    return re.sub(r"\n{3,}", "\n\n", "".join(kept))


def spans(question: str, words: Iterable[str]) -> tuple[Unread, ...]:
    """Return where words stand in a question, in its order. Words that do not occur in it are left out."""
    found: dict[int, Unread] = {}
    for word in words:
        match = re.search(re.escape(word), question, re.IGNORECASE) if word.strip() else None
        if match is not None:
            found.setdefault(match.start(), Unread(match.start(), match.end(), match[0]))
    return tuple(_apart(found[start] for start in sorted(found)))


def _apart(ordered: Iterable[Unread]) -> Iterable[Unread]:
    """Yield spans that do not overlap an earlier one."""
    end = 0
    for each in ordered:
        if each.start >= end:
            end = each.end
            yield each
