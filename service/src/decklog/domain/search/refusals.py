"""Refusals of a query: what is wrong, the place in the text with a caret under it, and what was probably meant."""

from __future__ import annotations

import unicodedata

from decklog.domain.errors import Code, DecklogError

_BEFORE_MAX, _AFTER_MAX = 60, 60
"""Characters of the query that a refusal shows in front of the place, and from it on."""
_SUGGESTION_MAX = 400
"""Characters of a suggestion. A longer one helps nobody."""
_NARROW_CATEGORIES = frozenset({"Mn", "Me", "Cf", "Cc"})


def _width(text: str) -> int:
    """Return the columns that a terminal needs for a text."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    narrow = sum(unicodedata.category(character) in _NARROW_CATEGORIES for character in text)
    return len(text) + wide - narrow


def _picture(query: str, start: int, end: int) -> str:
    """Return the line of the query around a place, and a line of carets under the place."""
    first, last = max(0, start - _BEFORE_MAX), min(len(query), max(end, start + _AFTER_MAX))
    last = min(last, start + _AFTER_MAX)
    plain = "".join(" " if character.isspace() else character for character in query)
    before, marked = plain[first:start], plain[start : min(end, last)]
    front, back = "\u2026" if first else "", "\u2026" if last < len(query) else ""
    return f"  {front}{plain[first:last]}{back}\n  {' ' * _width(front + before)}{'^' * max(1, _width(marked))}"


def invalid_query(query: str, start: int, end: int, why: str, *, suggestion: str | None = None) -> DecklogError:
    """Return the refusal of a query.

    Args:
        query: The whole text.
        start: Index of the first character that is refused.
        end: Index after the last one; `start` where something is missing.
        why: One or two sentences.
        suggestion: What was probably meant in place of the refused characters.
    """
    if suggestion is not None and len(suggestion) > _SUGGESTION_MAX:
        suggestion = None
    hint = f" Did you mean `{suggestion}`?" if suggestion else ""
    place = {"column": start + 1, "length": max(1, end - start)}
    return DecklogError(
        Code.INVALID_QUERY,
        f"q: {why}{hint}\n{_picture(query, start, end)}",
        extra={"parameter": "q", **place, **({"suggestion": suggestion} if suggestion else {})},
    )
