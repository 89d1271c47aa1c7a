"""A question that refers to the one before it: "and yesterday?", "only the failed ones".

It begins with a word of a closed list. What it says takes the place of what the earlier question says about the same fields; the rest of that stays. A
question that begins in another way stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

import msgspec

from decklog.domain.ask.understanding import Expert, Piece, Understanding
from decklog.domain.search import syntax, tree
from decklog.domain.search.written import written

_CUE = re.compile(r"\s*(?:(?:and|but|only|just|also|then|now|what about|how about|the same|instead)\b[\s,]*)+", re.IGNORECASE)
_THEM = re.compile(r"\b(?:ones|those|them|of these|of those)\b", re.IGNORECASE)
_LISTS = re.compile(r"\b(?:show|list|which)\b", re.IGNORECASE)
_BEFORE_CHARS_MAX = 80

Understand = Callable[[str], Understanding]
"""Understands a question that stands alone. Raises as `understand` of the grammar."""


def follows(text: str, earlier: Understanding) -> bool:
    """Return whether a question refers to the one before it. None refers to a comparison."""
    return _CUE.match(text) is not None and earlier.compare is None


def understood(text: str, before: tuple[str, Understanding] | None, understand: Understand, now: datetime) -> Understanding:
    """Return what a question is understood as.

    Args:
        text: The question.
        before: The question before it in the conversation, and what that was understood as; None without one.
        understand: Understands a question alone.
        now: What relative times refer to.

    Raises:
        DecklogError: As `understand`.
    """
    cue = _CUE.match(text)
    if before is None or cue is None or not follows(text, before[1]):
        return understand(text)
    question, earlier = before
    marks = [Piece(*_trimmed(text, cue.start(), cue.end()), f"as before: {question[:_BEFORE_CHARS_MAX]}")]
    marks += [
        Piece(found.start(), found.end(), found[0], "the records of the question before")
        for found in _THEM.finditer(text, cue.end())
    ]
    found = understand(_blanked(text, marks))
    pieces = sorted((*marks, *found.understood), key=lambda piece: piece.start)
    return msgspec.structs.replace(_refined(earlier, found, text, now), understood=tuple(pieces))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int, str]:
    """Return the span of a part without the blanks and commas around it, and its text."""
    part = text[start:end]
    start += len(part) - len(part.lstrip(" ,\t\n"))
    part = part.strip(" ,\t\n")
    return start, start + len(part), part


def _blanked(text: str, marks: list[Piece]) -> str:
    """Return a text of the same length with blanks in place of these parts, so that the places of the others stay."""
    for mark in marks:
        text = text[: mark.start] + " " * (mark.end - mark.start) + text[mark.end :]
    return text.replace(",", " ", 1) if text.lstrip().startswith(",") else text


def _refined(earlier: Understanding, found: Understanding, text: str, now: datetime) -> Understanding:
    query = written(_merged(syntax.read(earlier.query, now) if earlier.query else tree.Everything(), found.query, now))
    if found.expert is not Expert.FIND or _LISTS.search(text):
        return msgspec.structs.replace(found, query=query)
    return msgspec.structs.replace(
        found,
        query=query,
        expert=earlier.expert,
        group_by=earlier.group_by,
        interval=earlier.interval,
        order=earlier.order,
        limit=earlier.limit,
    )


def _merged(earlier: tree.Node, query: str, now: datetime) -> tree.Node:
    """Return the conditions of the earlier query about other fields, and those of this one."""
    new = tree.conjuncts(syntax.read(query, now)) if query else ()
    said = {field for node in new for field in _fields(node)}
    kept = [node for node in tree.conjuncts(earlier) if not _fields(node) & said]
    return tree.conjunction((*kept, *new))


def _fields(node: tree.Node) -> set[str]:
    """Return the fields that a condition is about; words of any text are about none."""
    return {field for leaf in tree.leaves(node) if (field := _field(leaf))}


def _field(leaf: tree.Leaf) -> str:
    match leaf:
        case tree.Since() | tree.Until() | tree.Received():
            return "time"
        case tree.Seqs():
            return "seq"
        case tree.Everything():
            return ""
        case _:
            return leaf.field
