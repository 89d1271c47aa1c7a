"""Conditions on the content: they hold for every match, and none of their patterns makes PostgreSQL go back in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.records.record import Prepared
from decklog.domain.search.query import Query, matches, parse
from decklog.domain.search.tree import And, Equal, Phrase
from decklog.domain.search.words import TOKEN_CHARS_MAX
from decklog.timescale.records.filters import LITERAL_CHARS_MAX, LITERALS_MAX, Parameters, conditions
from tests.support.asked import asked
from tests.support.examples import examples
from tests.support.records import prepared
from tests.support.strategies import cases, terms_of

_BY_CONTENT = re.compile(r"content (I?LIKE) \$(\d+)")
_BY_COLUMN = re.compile(r"(?<!content )(=|IN|IS|>=|<|<<=|LIKE) ")
_FOLDED = "aik\u0130\u212a\u017f\u0131\u03a3\u00c9xIKS_1"
"""Letters that fold to others, and letters that others fold to."""


def comparisons(query: Query) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each condition with its comparisons of the content, as operator and pattern."""
    parameters = Parameters()
    made = conditions(query, parameters)
    used = {int(number) for condition in made for number in re.findall(r"\$(\d+)", condition)}
    assert used == set(range(1, len(parameters.values) + 1)), "PostgreSQL refuses parameters that no condition uses"
    for condition in made:
        yield condition, [(operator, parameters.values[int(number) - 1]) for operator, number in _BY_CONTENT.findall(condition)]


def patterns(query: Query) -> list[tuple[str, str]]:
    """The comparisons of the content, as operator and pattern."""
    return [compared for _, found in comparisons(query) for compared in found]


def assert_linear(query: Query) -> None:
    compared = patterns(query)
    for _, pattern in compared:
        assert pattern[0] == pattern[-1] == "%"
        assert not set("%_\\") & set(pattern[1:-1]), f"a wildcard within {pattern!r}"
        assert 0 < len(pattern[1:-1]) <= LITERAL_CHARS_MAX
    assert len(compared) <= LITERALS_MAX


def satisfied(content: str, operator: str, pattern: str) -> bool:
    """Decision of PostgreSQL for a column of collation "C", which folds ASCII letters alone."""
    if operator == "ILIKE":
        if not content.isascii():
            return True
        content = re.sub("[A-Z]", lambda letter: letter[0].lower(), content)
    return pattern[1:-1] in content


def assert_holds_for_matches(query: Query, record: Prepared) -> None:
    """Of the comparisons of one condition, one must hold where no column is an alternative."""
    if matches(query, terms_of(record)):
        content = record.content.decode()
        for condition, found in comparisons(query):
            if found and not _BY_COLUMN.search(condition):
                assert any(satisfied(content, *compared) for compared in found), condition


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
    everything = And((*(Phrase((word,)) for word in words), Equal("metadata.x", other)))
    for query in (*(Query(Phrase((word,))) for word in words), Query(everything)):
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
    assert narrowed("\u0431", **{"metadata.x": "%%"}) == []


def test_conditions_of_the_content_are_made_of_each_form() -> None:
    for query, expected in (
        ('forecast metadata.a:"b b"', [("ILIKE", "%forecast%"), ("LIKE", "%b b%")]),
        ("fore*st", [("ILIKE", "%fore%")]),
        ("metadata.reason:re*tion", [("LIKE", "%reason%")]),
        ("exists:metadata.reason", [("LIKE", "%reason%")]),
        ("metadata.bytes:>5", [("LIKE", "%bytes%")]),
        ("forecast OR metadata.a:bb", [("ILIKE", "%forecast%"), ("LIKE", "%bb%")]),
        ("forecast OR a", []),
        ("NOT forecast", []),
        ("forecast NOT alice", [("ILIKE", "%forecast%")]),
    ):
        assert patterns(asked(query)) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("actor:alice", ["actor_id = $1"]),
        ("actor:(alice OR bob)", ["actor_id = ANY($1::text[])"]),
        ("severity:>=ERROR", ["severity IN (2, 3)"]),
        ("NOT session_id:s", ["(session_id = $1) IS NOT TRUE"]),
        ("NOT exists:session_id", ["(session_id IS NOT NULL) IS NOT TRUE"]),
        ("action:user.*", ["(action >= $1 AND action <= $2)"]),
        ("action:*.login", ["(action LIKE $1 OR length(action) >= 512)"]),
        ("ip:10.0.0.0/8 OR outcome:denied", ["(ip <<= $1::text::inet OR outcome IN (2))"]),
        ("actor:alice OR NOT login", []),
    ],
)
def test_columns_have_conditions_of_their_own(query: str, expected: list[str]) -> None:
    assert conditions(asked(query), Parameters()) == expected
