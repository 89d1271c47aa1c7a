"""Words and leaves of a record, compared with a plain implementation of their definition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import given, settings

from decklog.domain.search.terms import leaf, ordered, path_term, scalar, terms
from decklog.domain.search.words import tokens
from tests.support.examples import examples
from tests.support.strategies import prepared, values

TEXTS = (
    *("action", "message", "id", "actor", "resource", "related", "source", "session_id", "correlation_id"),
    *("before", "after", "metadata", "recorded_by", "masked"),
)


def values_of(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Each value that is not null, with its path."""
    if value is not None:
        yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from values_of(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from values_of(item, path)


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    return ((path, found) for path, found in values_of(value, path) if not isinstance(found, dict | list))


def assert_by_definition(content: dict[str, Any]) -> None:
    found = terms(content)
    texts = [scalar(value) for name in TEXTS for _, value in leaves(content.get(name), name) if not isinstance(value, bool)]
    assert found.texts == tuple(filter(None, map(tokens, dict.fromkeys(texts))))
    by_path = [pair for name in ("metadata", "before", "after") for pair in leaves(content.get(name), name)]
    assert found.leaves == {leaf(path, scalar(value)) for path, value in by_path}
    assert found.paths == {
        path_term(path) for name in ("metadata", "before", "after") for path, _ in values_of(content.get(name), name)
    }
    assert found.numbers == {leaf(path, ordered(value)) for path, value in by_path if type(value) in (int, float)}


@settings(max_examples=examples(300), deadline=None)
@given(values())
def test_words_and_leaves_agree_with_their_definition(value: dict[str, Any]) -> None:
    assert_by_definition(msgspec.json.decode(prepared(value).content))


def test_words_and_leaves_of_very_many_agree_with_their_definition() -> None:
    many = {
        "list": [f"w{number} {number % 7}" for number in range(5_000)],
        "numbers": list(range(50)),
        "deep": {"k" * 600: {"a": 1.5, "b" * 600: {"c=d": [-1, 2]}}},
    }
    assert_by_definition(msgspec.json.decode(prepared({"action": "read", "actor": {"id": "me"}, "metadata": many}).content))
