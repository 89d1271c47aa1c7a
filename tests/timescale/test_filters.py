"""Conditions on the content: they hold for every match, and none of their patterns makes PostgreSQL go back in a text."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.records.record import Prepared
from decklog.domain.search.fields import Kind
from decklog.domain.search.query import Query, matches, parse
from decklog.domain.search.words import TOKEN_CHARS_MAX
from decklog.timescale.records.filters import LITERAL_CHARS_MAX, LITERALS_MAX, Parameters, conditions
from tests.support.examples import examples
from tests.support.records import prepared
from tests.support.strategies import cases, terms_of

_BY_CONTENT = re.compile(r"\(?content (I?LIKE) \$(\d+)( OR length\(content\) <> octet_length\(content\)\))?")
_FOLDED = "aik\u0130\u212a\u017f\u0131\u03a3\u00c9xIKS_1"
"""Letters that fold to others, and letters that others fold to."""


def patterns(query: Query) -> list[tuple[str, str]]:
    """The comparisons of the content, as operator and pattern."""
    parameters = Parameters()
    found = [_BY_CONTENT.fullmatch(condition) for condition in conditions(query, parameters) if "content" in condition]
    assert all(found), "a comparison of the content is not LIKE or ILIKE with one parameter"
    return [(match[1], parameters.values[int(match[2]) - 1]) for match in found if match]


def assert_linear(query: Query) -> None:
    compared = patterns(query)
    for _, pattern in compared:
        assert pattern[0] == pattern[-1] == "%"
        assert not set("%_\\") & set(pattern[1:-1]), f"a wildcard within {pattern!r}"
        assert 0 < len(pattern[1:-1]) <= LITERAL_CHARS_MAX
    by_content = sum(
        wanted.field.kind in (Kind.WORDS, Kind.TEXT, Kind.LEAVES, Kind.KEYWORDS, Kind.KEYWORD) for wanted in query.filters
    )
    assert len(compared) <= LITERALS_MAX * by_content


def satisfied(content: str, operator: str, pattern: str) -> bool:
    """Decision of PostgreSQL for a column of collation "C", which folds ASCII letters alone."""
    if operator == "ILIKE":
        if not content.isascii():
            return True
        content = re.sub("[A-Z]", lambda letter: letter[0].lower(), content)
    return pattern[1:-1] in content


def assert_holds_for_matches(query: Query, record: Prepared) -> None:
    if matches(query, terms_of(record)):
        missed = [pattern for operator, pattern in patterns(query) if not satisfied(record.content.decode(), operator, pattern)]
        assert not missed


@settings(max_examples=examples(200), deadline=None)
@given(case=cases(most=4))
def test_conditions_hold_for_every_match_and_have_no_wildcard_within(case: tuple[list[Prepared], Query]) -> None:
    assert_linear(case[1])
    for record in case[0]:
        assert_holds_for_matches(case[1], record)


@settings(max_examples=examples(300), deadline=None)
@given(text=st.text(_FOLDED, min_size=1, max_size=2 * TOKEN_CHARS_MAX), other=st.text(_FOLDED, min_size=1))
def test_conditions_hold_whatever_letters_fold_to(text: str, other: str) -> None:
    record = prepared(message=text, metadata={"x": other})
    words = sorted(set(chain.from_iterable(terms_of(record).texts)))
    for query in (*(Query(words=(word,)) for word in words), Query(words=tuple(words), leaves=(("metadata.x", other),))):
        assert_linear(query)
        assert_holds_for_matches(query, record)


def test_narrowing_keeps_what_is_certain_of_a_word() -> None:
    def narrowed(q: str, **others: Any) -> list[str]:
        return [pattern for _, pattern in patterns(parse([("q", q), *others.items()])[1])]

    assert narrowed("a" + "kis" * 20 + "c") == ["%" + ("a" + "kis" * 20)[:LITERAL_CHARS_MAX] + "%"]
    assert narrowed("alice") == ["%alice%"]
    assert narrowed("Token kk i") == ["%token%", "%kk%"]
    assert narrowed("user_name") == ["%user%"]
    assert narrowed("b" * TOKEN_CHARS_MAX) == ["%" + "b" * LITERAL_CHARS_MAX + "%"]
    assert len(narrowed(" ".join(f"word{number}" for number in range(32)))) == LITERALS_MAX
    assert narrowed("\u0431", **{"metadata.x": "100%"}) == []


def test_strategies_reach_patterns() -> None:
    assert patterns(msgspec.convert({"words": ["forecast"], "leaves": [["metadata.a", "b b"]]}, Query)) == [
        ("ILIKE", "%forecast%"),
        ("LIKE", "%b b%"),
    ]
