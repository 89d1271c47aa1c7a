"""The lexemes of a query: what a word must not look like, and the meaning of backslashes and quotes.

A word that looks like syntax of this or of another query language is refused, because to search for it as words would answer
another question than the one that was asked.
"""

from __future__ import annotations

import re

from decklog.domain.search.refusals import invalid_query

WHOLE = frozenset({"WORD", "VALUE", "EDGE", "QUOTED"})
"""Kinds of tokens that stand for a word, a value or a quoted text."""

_OPERATORS = frozenset({"AND", "OR", "NOT", "TO"})
_TYPOGRAPHIC = "\u201c\u201d\u201e\u00ab\u00bb\u2018\u2019\u201a"
_FUZZY = re.compile(r"(.+)[~^][0-9.]*", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL = re.compile(rf"""[\s"()\[\]{{}}:\\*?<>={_TYPOGRAPHIC}]""")


def unescaped(text: str) -> str:
    """Return a text without the backslashes that take the meaning from the characters after them."""
    return _ESCAPE.sub(r"\1", text)


def unquoted(text: str) -> str:
    """Return the text that stands in quotes."""
    return unescaped(text[1:-1])


def quoted(text: str) -> str:
    """Return a text in quotes, within which nothing is syntax."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def escaped(text: str) -> str:
    """Return a text with a backslash in front of everything that would be syntax."""
    return _SPECIAL.sub(lambda found: "\\" + found[0], text)


def check(query: str, kind: str, text: str, start: int, before: str | None) -> None:
    """Raise `invalid-query` for a token that looks like something else than what it would be taken for.

    `before` is the kind of the token before it. Directly behind a field an operator can only be a value.
    """
    if kind in ("WORD", "VALUE", "EDGE") and text in _OPERATORS and before != "FIELD":
        raise _misplaced(query, text, start)
    if kind == "WORD":
        _check_word(query, text, start)
    elif kind in ("VALUE", "EDGE"):
        _check_value(query, text, start)


def _check_value(query: str, text: str, start: int) -> None:
    end = start + len(text)
    if text[0] in "<>=":
        why = f"{text[0]!r} stands in front of a number or time without a blank, as in field:>=5. A text with it is quoted."
        raise invalid_query(query, start, end, why)
    if text[0] in _TYPOGRAPHIC:
        raise _typographic(query, text, start)


def _check_word(query: str, text: str, start: int) -> None:
    end = start + len(text)
    if text.upper() in _OPERATORS and text.upper() != "TO":
        why = f"The operator is {text.upper()}, in capitals; the word {text!r} is searched for in quotes."
        raise invalid_query(query, start, end, why, suggestion=text.upper())
    if text in ("&&", "||", "&", "|"):
        operator = "AND" if "&" in text else "OR"
        raise invalid_query(query, start, end, f"{text!r} is no operator.", suggestion=operator)
    if text[0] == "-":
        raise invalid_query(query, start, end, "A minus stands directly in front of what must not occur, without a blank.")
    if text[0] in "+!":
        why = "All words must occur anyway." if text[0] == "+" else "What must not occur has a minus or NOT in front."
        meant = ("" if text[0] == "+" else "-") + text[1:] if text[1:2].isalnum() else None
        raise invalid_query(query, start, end, f"{text[0]!r} is no operator. {why}", suggestion=meant)
    if text[0] in "'`":
        inner = text.strip("'`")
        raise invalid_query(query, start, end, "A phrase stands in double quotes.", suggestion=quoted(inner) if inner else None)
    if any(character in _TYPOGRAPHIC for character in (text[0], text[-1])):
        raise _typographic(query, text, start)
    if (found := _FUZZY.fullmatch(text)) is not None and not found[1].endswith("\\"):
        why = f"{text[:40]!r}: words have no distance and no weight here. A word with this sign is quoted."
        raise invalid_query(query, start, end, why, suggestion=found[1])


def _misplaced(query: str, operator: str, start: int) -> Exception:
    end = start + len(operator)
    where = {"NOT": "in front of something", "TO": "within a range, as in field:[1 TO 5]"}.get(operator, "between two things")
    return invalid_query(
        query, start, end, f"{operator} stands {where}. The word is searched for in quotes.", suggestion=quoted(operator)
    )


def _typographic(query: str, text: str, start: int) -> Exception:
    inner = text.strip(_TYPOGRAPHIC)
    return invalid_query(query, start, start + len(text), 'Quotes are straight: ".', suggestion=quoted(inner) if inner else None)
