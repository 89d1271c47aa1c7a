"""Highlights: the places that made a record match, by the meaning of the query that the matcher has."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.search import syntax, tree
from decklog.domain.search.highlights import PATHS_CHARS_MAX, SPANS_MAX, Highlighter, Highlights
from decklog.domain.search.query import matches, parse
from decklog.domain.search.terms import scalar, terms
from decklog.domain.search.words import tokens
from tests.support import corpus, naive
from tests.support.examples import examples
from tests.support.questions import NOW, Questions

RECORD: dict[str, Any] = {
    "action": "user.login",
    "actor": {"id": "alice", "type": "user", "name": "Alice Mu\u0308ller"},
    "occurred_at": "2026-01-31T09:00:00Z",
    "severity": "WARNING",
    "outcome": "denied",
    "message": "Sign-in of ALICE from Zürich failed: 東京都に接続",
    "source": {"ip": "[2001:db8::7]:443", "user_agent": "Mozilla/5.0"},
    "related": [{"type": "user", "id": "carol"}, {"type": "user", "id": "dave"}],
    "metadata": {"bytes": 1048576, "a/b": {"~": ["x", "y alice"]}, "ok": True, "empty": "", "reason": "retention"},
    "masked": ["/metadata/password"],
}


PLACE: dict[str, Any] = {"seq": 7, "received_at": datetime(2026, 2, 1, tzinfo=UTC)}


def names_of(pointer: str) -> list[str]:
    return [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]


def pointed(content: Any, pointer: str) -> Any:
    """The value at a JSON pointer."""
    for name in names_of(pointer):
        content = content[int(name)] if isinstance(content, list) else content[name]
    return content


def dotted(content: Any, pointer: str) -> str:
    """The path of the same value in the query language."""
    names: list[str] = []
    for name in names_of(pointer):
        names += [] if isinstance(content, list) else [name]
        content = content[int(name)] if isinstance(content, list) else content[name]
    return ".".join(names)


def marked(query: str, content: dict[str, Any] = RECORD) -> dict[str, list[str]]:
    """The texts that are marked, by their places; an empty list for a value as a whole that is no text."""
    node = syntax.read(query, NOW)
    assert naive.satisfies(node, {**content, **PLACE}), query
    found = Highlighter(node)(content, **PLACE)
    return {place.path: [scalar(pointed(content, place.path))[a:b] for a, b in place.spans] for place in found.places}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (
            "alice",
            {"/message": ["ALICE"], "/actor/id": ["alice"], "/actor/name": ["Alice"], "/metadata/a~1b/~0/1": ["alice"]},
        ),
        ("muller", {"/actor/name": ["Mu\u0308ller"]}),
        ('"sign in of"', {"/message": ["Sign-in of"]}),
        ("zur* fail*", {"/message": ["Zürich", "failed"]}),
        ("東京都", {"/message": ["東京都"]}),
        ("京", {"/message": ["京"]}),
        ("48* OR 1048576", {"/metadata/bytes": ["1048576"]}),
        ("db8", {"/source/ip": ["db8"]}),
        ("ip:2001:db8::/32", {"/source/ip": ["[2001:db8::7]:443"]}),
        ("action:user.*", {"/action": ["user.login"]}),
        ("severity:>=WARNING", {"/severity": ["WARNING"]}),
        ("related.id:(carol dave)", {"/related/0/id": ["carol"], "/related/1/id": ["dave"]}),
        ("masked:*pass*", {"/masked/0": ["/metadata/password"]}),
        ("metadata.bytes:>1000 metadata.ok:true", {"/metadata/bytes": ["1048576"], "/metadata/ok": ["true"]}),
        ("metadata.a/b.~:x", {"/metadata/a~1b/~0/0": ["x"]}),
        ("exists:metadata.a/b", {"/metadata/a~1b": []}),
        ('metadata.empty:""', {"/metadata/empty": []}),
        ("message:failed actor.name:alice", {"/message": ["failed"], "/actor/name": ["Alice"]}),
        # Not what is negated, nor alternatives that did not make it match, nor bounds of time.
        ("NOT bob -carrol", {}),
        ("(retention AND nothing) OR carol", {"/related/0/id": ["carol"]}),
        ("(nothing OR carol)", {"/related/0/id": ["carol"]}),
        ("NOT (nothing OR NOT carol)", {"/related/0/id": ["carol"]}),
        ("NOT (retention NOT carol)", {"/related/0/id": ["carol"]}),
        ("occurred_at:2026-01-31 until:1h seq:7 received_at:>2026-01-31 NOT seq:8", {}),
        ("(carol seq:8) OR (dave received_at:2026-02-01)", {"/related/1/id": ["dave"]}),
        ("metadata.reason:(retention OR NOT x)", {"/metadata/reason": ["retention"]}),
    ],
)
def test_highlights_are_the_places_that_made_a_record_match(query: str, found: dict[str, list[str]]) -> None:
    assert marked(query) == found


def test_parameters_and_query_are_marked_alike() -> None:
    _, query = parse([("action", "user.*"), ("message", "from zurich"), ("metadata.reason", "retention")])
    assert Highlighter(query.root)(RECORD) == Highlighter(syntax.read(query.text, NOW))(RECORD)


def _positive(node: tree.Node, *, positive: bool = True) -> Iterator[tree.Leaf]:
    """The conditions that are under an even number of negations."""
    match node:
        case tree.And() | tree.Or():
            for child in node.children:
                yield from _positive(child, positive=positive)
        case tree.Not():
            yield from _positive(node.child, positive=not positive)
        case _ if positive:
            yield node


def _means(leaf: tree.Leaf, content: dict[str, Any], path: str, text: str | None) -> bool:
    """Return whether a marked text is one that a condition asks for."""
    match leaf:
        case tree.Phrase():
            return text is not None and naive.holds(leaf.words, tokens(text))
        case tree.WordPattern():
            words = () if text is None else tokens(text)
            pair = [part for part in leaf.parts if isinstance(part, str)] if len(leaf.parts) == 2 else []
            return any(naive.fits(leaf.parts, word) for word in words) or tuple(pair) == words
        case tree.Since() | tree.Until() | tree.Received() | tree.Seqs() | tree.Everything():
            return False
        case _:
            return leaf.field == dotted(content, path) and naive.satisfies(leaf, content)


def assert_lawful(node: tree.Node, content: dict[str, Any]) -> Highlights:
    found = Highlighter(node)(content)
    leaves = list(_positive(node))
    for place in found.places:
        value = pointed(content, place.path)
        whole = None if isinstance(value, dict | list) else scalar(value)
        texts = [None if whole is None else whole[first:last] for first, last in place.spans] or [whole or None]
        for text in texts:
            assert any(_means(leaf, content, place.path, text) for leaf in leaves), (place, text)
    for leaf in tree.conjuncts(node):
        if isinstance(
            leaf, tree.Phrase | tree.WordPattern | tree.Equal | tree.Pattern | tree.Exists | tree.Network | tree.Numbers
        ):
            alone = Highlighter(leaf)(content).places
            assert alone, leaf
            assert {place.path for place in alone} <= {place.path for place in found.places} or found.more
    return found


@given(st.integers(0, 10**9))
def test_highlights_of_generated_queries_agree_with_the_matcher(seed: int) -> None:
    source = random.Random(seed)
    contents = [corpus.decoded(corpus.made_up(source).content.decode()) for _ in range(3)]
    for _ in range(examples(20)):
        query = Questions(source).query(terms(source.choice(contents)))
        for content in contents:
            if matches(query, terms(content)):
                assert_lawful(query.root, content)


def test_highlights_are_bounded_and_each_condition_keeps_one() -> None:
    many = {**RECORD, "metadata": {str(number): "word " * 50 for number in range(50)}}
    found = assert_lawful(syntax.read("word carol 1048576 OR word carol", NOW), many)
    assert found.more
    assert sum(len(place.spans) for place in found.places) <= SPANS_MAX
    assert any(place.path == "/related/0/id" for place in found.places)
    long = {**RECORD, "metadata": {f"{number}{'k' * 9_000}": "word" for number in range(9)}}
    found = Highlighter(syntax.read("word", NOW))(long)
    assert found.more
    assert 0 < sum(len(place.path) for place in found.places) <= PATHS_CHARS_MAX
