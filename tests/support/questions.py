"""Queries of every form, made from the terms of a record so that they often match it, in the query language."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from decklog.domain.errors import DecklogError
from decklog.domain.search import lexemes, names, syntax
from decklog.domain.search.fields import FIELDS, Field, Kind
from decklog.domain.search.query import Query
from decklog.domain.search.terms import Terms

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""The present time of generated queries."""
_ANY_WORDS = ("alice", "user", "a", "1", "k", "strasse", "10", "zz*", "a?", "?a", "*n", '"a b"', '"user login"', "\u6771")
_NETWORKS = ("192.0.2.0/24", "0.0.0.0/0", "::/0", "192.0.2.1", "2001:db8::/32", "10.0.0.0/8")
_NUMBERS = ("0", "-1", "1", "0.1", "1e3", "9007199254740993", "1e21", "-5e-324", "1180591620717411303424")
_TIMES = ("2026-01-01", "2025-12-31T23:59:59.999999Z", "now-90d", "2026-03-01T12:00:00Z", "1970-01-01")


def _keywords(found: Terms) -> list[tuple[str, str]]:
    """Paths and values of a record that queries compare as a whole."""
    pairs: list[tuple[str, str]] = []
    for field in FIELDS:
        value = getattr(found, field.term)
        if field.kind is Kind.KEYWORD and value is not None:
            pairs.append((field.path, value))
        elif field.kind is Kind.KEYWORDS:
            pairs += [(field.path, each) for each in sorted(value)]
    leaves = (leaf.partition("=") for leaf in sorted(found.leaves) if "\\" not in leaf and "\0" not in leaf)
    return pairs + [(path, value) for path, _, value in leaves if names.resolve(path) is not None]


class Questions:
    """Makes queries by a source of random numbers."""

    def __init__(self, source: random.Random) -> None:
        self._random = source

    def query(self, found: Terms) -> Query:
        """A query that can be read; usually one that has to do with this record."""
        while True:
            text = self.text(found)
            try:
                return Query(syntax.read(text, NOW))
            except DecklogError:
                continue

    def text(self, found: Terms, depth: int = 3) -> str:
        """A text that is usually a query."""
        roll = self._random.random()
        if depth == 0 or roll < 0.45:
            return self._leaf(found)
        if roll < 0.6:
            return f"{self._random.choice(('NOT ', '-'))}({self.text(found, depth - 1)})"
        operator = self._random.choice((" ", " AND ", " OR ", " OR "))
        parts = [self.text(found, depth - 1) for _ in range(self._random.randint(2, 3))]
        return "(" + operator.join(f"({part})" if " " in part else part for part in parts) + ")"

    def _leaf(self, found: Terms) -> str:
        forms: Sequence[Callable[[Terms], str]] = (
            *(self._word, self._word, self._value, self._value, self._value, self._text_field, self._choice, self._network),
            *(self._time, self._exists, self._number, *([self._place] if found.seq >= 0 else [])),
        )
        return self._random.choice(forms)(found)

    def _word(self, found: Terms, field: str = "") -> str:
        if not found.texts or self._random.random() < 0.15:
            return field + self._random.choice(_ANY_WORDS)
        text = self._random.choice(found.texts)
        at = self._random.randrange(len(text))
        count = self._random.choice((1, 1, 1, 2, 3))
        if count > 1:
            return field + lexemes.quoted(" ".join(text[at : at + count]))
        return field + self._pattern(text[at], whole=0.5)

    def _pattern(self, value: str, whole: float = 0.4) -> str:
        """A value as a whole, or with a part of it replaced by wildcards."""
        roll = self._random.random()
        if roll < whole or not value:
            return lexemes.quoted(value)
        first, last = sorted(self._random.randint(0, len(value)) for _ in range(2))
        head, tail = lexemes.escaped(value[:first][:40]), lexemes.escaped(value[last:][-40:])
        if roll < 0.7:
            return f"{head}*"
        if roll < 0.8:
            return f"*{tail}"
        return f"{head}*{tail}" if roll < 0.9 else f"{head}{'?' * min(2, last - first)}{tail}"

    def _value(self, found: Terms) -> str:
        path, value = self._random.choice(_keywords(found))
        if self._random.random() < 0.1:
            return f"{lexemes.escaped(path)}:({lexemes.quoted(value)} OR {self._random.choice(('a', 'user', 'x*'))})"
        return f"{lexemes.escaped(path)}:{self._pattern(value)}"

    def _text_field(self, found: Terms) -> str:
        field = self._random.choice([field for field in FIELDS if field.kind is Kind.TEXT])
        return self._word(found, f"{field.path}:")

    def _choice(self, found: Terms) -> str:
        field: Field = self._random.choice([field for field in FIELDS if field.choices])
        value = self._random.choice((getattr(found, field.term), *field.choices))
        return f"{field.path}:{self._random.choice(('', '', '>=', '<')) if field.path == 'severity' else ''}{value}"

    def _network(self, found: Terms) -> str:
        return f"source.ip:{self._random.choice((found.ip or '192.0.2.1', *_NETWORKS))}"

    def _time(self, found: Terms) -> str:
        moment = found.occurred_at + timedelta(microseconds=self._random.randint(-1, 1))
        text = self._random.choice((moment.isoformat(), moment.isoformat(), *_TIMES))
        return f"{self._random.choice(('occurred_at:>=', 'occurred_at:<', 'occurred_at:>', 'since:', 'until:', 'occurred_at:'))}{text}"

    def _place(self, found: Terms) -> str:
        moment = found.received_at + timedelta(microseconds=self._random.randint(-1, 1))
        near = max(0, found.seq + self._random.randint(-3, 3))
        forms = (
            *(f"seq:{found.seq}", f"seq:>={near}", f"seq:<{near}", f"seq:{{{near} TO {near + 9}]"),
            *(f"received_at:>={moment.isoformat()}", f"received_at:<{moment.isoformat()}", f"received_at:{moment.isoformat()}"),
            *("received_at:[* TO now]", "received_at:<=2026-01-01", "received_at:>now-90d"),
        )
        return self._random.choice(forms)

    def _exists(self, found: Terms) -> str:
        paths = [path for path in sorted(found.paths) if "\0" not in path and "\\" not in path]
        path = self._random.choice(("metadata", "before", *paths, *(path for path, _ in _keywords(found))))
        return f"exists:{lexemes.escaped(path.rpartition('.')[0] if self._random.random() < 0.2 else path)}"

    def _number(self, found: Terms) -> str:
        leaves = [leaf for leaf in sorted(found.numbers) if "\0" not in leaf and "\\" not in leaf] or ["metadata.a=1"]
        path = self._random.choice(leaves).partition("=")[0]
        values = [value for leaf in found.leaves if (value := leaf.partition(f"{path}=")[2]) and value[0] in "-0123456789"]
        low, high = (self._random.choice((*values, *values, *_NUMBERS)) for _ in range(2))
        form = self._random.choice((">={0}", "<{0}", ">{0}", "[{0} TO {1}]", "{{{0} TO {1}]", "[* TO {1}}}"))
        return f"{lexemes.escaped(path)}:{form.format(low, high)}"
