"""The grammar of the query language: from a text to a parse tree with positions.

Nothing here knows a field. Text that is no query is refused here; `syntax` gives the parse tree its meaning.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeAlias

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput, UnexpectedToken

from decklog.domain.errors import DecklogError
from decklog.domain.search.lexemes import WHOLE, check
from decklog.domain.search.refusals import invalid_query

QUERY_CHARS_MAX = 16_000
"""Characters of one query."""
CLAUSES_MAX = 256
"""Words, phrases and values of one query."""
DEPTH_MAX = 16
"""Parentheses within one another."""

Parsed: TypeAlias = Tree[Token] | Token

_GRAMMAR = r"""
start: _either
_either: _both | either
either: _both (_OR _both)+
_both: _one | both
both: _one (_AND? _one)+
_one: negation | field | WORD | QUOTED | _OPEN _either _CLOSE
negation: (_NOT | _MINUS) _one
field: FIELD _condition
_condition: VALUE | QUOTED | compared | range | _OPEN _any _CLOSE

_any: _all | any
any: _all (_OR _all)+ -> either
_all: _single | all
all: _single (_AND? _single)+ -> both
_single: excluded | VALUE | QUOTED | compared | range | _OPEN _any _CLOSE
excluded: (_NOT | _MINUS) _single -> negation
compared: COMPARISON (EDGE | QUOTED)
range: FROM (EDGE | QUOTED) _TO (EDGE | QUOTED) UNTIL

_AND.3: /AND(?=[\s()"]|$)/
_OR.3: /OR(?=[\s()"]|$)/
_NOT.3: /NOT(?=[\s()"]|$)/
_TO.3: /TO(?=[\s\[\]{}"]|$)/
_MINUS.3: /-(?=[^\s)])/
COMPARISON.3: /(?:[<>]=|[<>](?!=))(?=\S)/
FIELD.2: /(?:[^\s"()\[\]{}:\\<>=]|\\.)+:(?=\S)/s
WORD.1: /(?:[^\s"()\[\]{}:\\]|\\.)+/s
VALUE.1: /(?:[^\s"()\[\]{}\\]|\\.)+/s
EDGE.1: /(?:[^\s"()\[\]{}\\]|\\.)+/s
QUOTED.2: /"(?:[^"\\]|\\.)*"/s
FROM: /[\[{]/
UNTIL: /[\]}]/
_OPEN: "("
_CLOSE: ")"
%ignore /\s+/
"""
_OPERATOR_AT_END = re.compile(r"(?:\b(AND|OR|NOT)|-)\s*\Z")
_SCANNED = re.compile(r'\\.|"(?:[^"\\]|\\.)*"|([()\[\]{}])', re.DOTALL)


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", propagate_positions=True, maybe_placeholders=False)


def start_of(part: Parsed) -> int:
    """Return the index of the first character of a part of the query."""
    found = part.start_pos if isinstance(part, Token) else part.meta.start_pos
    return found or 0


def kind_of(part: Parsed) -> str:
    """Return the name of a part in the grammar."""
    return part.type if isinstance(part, Token) else str(part.data)


def parts_of(part: Parsed) -> list[Parsed]:
    """Return the parts of a part; a token has none."""
    return [] if isinstance(part, Token) else part.children


def end_of(part: Parsed) -> int:
    """Return the index after the last character of a part of the query."""
    found = part.end_pos if isinstance(part, Token) else part.meta.end_pos
    return found or 0


class _Checks:
    """Checks each token of one text before the parser gets it: a parser knows no blanks, no depth and no misplaced operators."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._clauses = self._depth = 0
        self._before: Token | None = None

    def __call__(self, token: Token) -> None:
        """Raise `invalid-query` for a token that must not stand here."""
        start, end = start_of(token), end_of(token)
        check(self._query, token.type, str(token), start, None if self._before is None else self._before.type)
        if token.type in WHOLE:
            self._clauses += 1
            if self._before is not None and self._before.type in WHOLE and end_of(self._before) == start:
                raise invalid_query(self._query, start, end, "A blank must stand between a word and a text in quotes.")
        self._depth += (token.type == "_OPEN") - (token.type == "_CLOSE")
        if self._clauses > CLAUSES_MAX:
            raise invalid_query(self._query, start, end, f"A query has at most {CLAUSES_MAX} words, phrases and values.")
        if self._depth > DEPTH_MAX:
            raise invalid_query(self._query, start, end, f"At most {DEPTH_MAX} parentheses may stand in one another.")
        self._before = token


def parse(query: str) -> Parsed:
    """Return the parse tree of a query: a token, or a tree of `either`, `both`, `negation`, `field`, `compared` and `range`.

    Raises:
        DecklogError: `invalid-query`, with the place of what was not understood.
    """
    if len(query) > QUERY_CHARS_MAX:
        why = f"A query has at most {QUERY_CHARS_MAX} characters; this one has {len(query)}."
        raise invalid_query(query, QUERY_CHARS_MAX, len(query), why)
    checked, parsing = _Checks(query), _parser().parse_interactive(query)
    try:
        for token in parsing.iter_parse():
            checked(token)
        tree: Tree[Token] = parsing.feed_eof()  # type: ignore[no-untyped-call]
    except UnexpectedInput as error:
        raise _refusal(query, error) from None
    [whole] = tree.children
    return whole


def _refusal(query: str, error: UnexpectedInput) -> DecklogError:
    """Return the refusal of a text that the grammar does not have."""
    token = error.token if isinstance(error, UnexpectedToken) else None
    if token is not None and token.type == "$END":
        return _incomplete(query)
    start = error.pos_in_stream or 0
    end = start + 1 if token is None else start + len(token)
    opened = _unclosed(query[:start])
    if opened is not None and query[opened] in "[{":
        meant = "TO" if query[start:end].upper() == "TO" else None
        why = "A range has two ends, as in [1 TO 5], {1 TO 5} without the ends, or [1 TO *]."
        return invalid_query(query, start, end, why, suggestion=meant)
    return _unexpected(query, start, end)


def _unexpected(query: str, start: int, end: int) -> DecklogError:
    character = query[start]
    if character == '"':
        return invalid_query(query, start, end, 'These quotes are not closed. A quote itself is written \\".')
    if character == "\\":
        return invalid_query(query, start, end, "There is nothing behind this backslash.", suggestion="\\\\")
    if character == ":":
        why = "A colon stands between a field and its value, without blanks. A text with a colon is quoted."
        return invalid_query(query, start, end, why)
    if character == ")":
        what = "There is nothing in these parentheses." if query[:start].rstrip().endswith("(") else "This closes nothing."
        return invalid_query(query, start, end, what)
    if character in "[]{}":
        why = "Brackets belong to ranges, as in field:[1 TO 5]. A text with brackets is quoted."
        return invalid_query(query, start, end, why)
    return invalid_query(query, start, end, f"{query[start:end][:40]!r} is not expected here.")


def _unclosed(text: str) -> int | None:
    """Return the place of the last bracket that is not closed."""
    opened: list[int] = []
    for found in _SCANNED.finditer(text):
        if (bracket := found[1]) is None:
            continue
        if bracket in "([{":
            opened.append(found.start())
        elif opened:
            opened.pop()
    return opened[-1] if opened else None


def _incomplete(query: str) -> DecklogError:
    if not query.strip():
        return invalid_query(query, 0, 0, "The query is empty.")
    if (found := _OPERATOR_AT_END.search(query)) is not None:
        operator = found[0].strip()
        return invalid_query(query, found.start(), found.start() + len(operator), f"There is nothing behind {operator}.")
    if (opened := _unclosed(query)) is not None:
        return invalid_query(query, opened, opened + 1, f"This {query[opened]!r} is not closed.")
    return invalid_query(query, len(query), len(query), "The query ends too early.")
