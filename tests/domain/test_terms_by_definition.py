"""Words and fields of a record, compared with a plain implementation of their definition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.search.terms import FIELDS_MAX, WORD_CHARS_MAX, WORDS_MAX, leaf, scalar, terms
from tests.support.examples import examples
from tests.support.strategies import prepared, values

TEXTS = ("action", "message", "actor", "resource", "related", "before", "after", "metadata")


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each leaf that is not null, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, path)
    elif value is not None:
        # Leading empty keys are dropped; an empty key further down keeps its dot.
        while path and not path[0]:
            path = path[1:]
        yield ".".join(path), value


def words_by_definition(content: dict[str, Any]) -> list[str]:
    texts = [scalar(leaf) for name in TEXTS for _, leaf in leaves(content.get(name)) if not isinstance(leaf, bool)]
    return [word[:WORD_CHARS_MAX] for text in texts for word in re.findall(r"\w+", text.lower())]


@settings(max_examples=examples(300), deadline=None)
@given(values())
def test_words_and_fields_agree_with_their_definition(value: dict[str, Any]) -> None:
    content = msgspec.json.decode(prepared(value).content)
    found = terms(content)
    assert found.words == set(words_by_definition(content))
    assert found.fields == {leaf(path, scalar(value)) for path, value in leaves(content.get("metadata")) if path}


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.text(st.sampled_from("aΣςσİıßK ́ͅ.' -_ⅷ1"), max_size=6), max_size=6))
def test_lower_case_of_a_letter_depends_on_its_own_text_only(texts: list[str]) -> None:
    content = msgspec.json.decode(prepared({"action": "-", "actor": {"id": "-"}, "before": texts}).content)
    assert terms(content).words == set(words_by_definition(content))


def test_first_distinct_words_are_kept_when_there_are_too_many() -> None:
    many = " ".join(f"w{number} w{number // 2}" for number in range(2 * WORDS_MAX))
    content = msgspec.json.decode(prepared({"action": "read", "actor": {"id": "me"}, "metadata": many}).content)
    assert terms(content).words == set(list(dict.fromkeys(words_by_definition(content)))[:WORDS_MAX])
    assert len(terms(content).words) == WORDS_MAX


def test_words_and_fields_of_very_many_leaves_agree_with_their_definition() -> None:
    many = {
        "list": [f"w{number} {number % 7}" for number in range(5_000)],
        "numbers": list(range(50)),
        "deep": {"k" * 600: {"a": 1.5}},
    }
    content = msgspec.json.decode(prepared({"action": "read", "actor": {"id": "me"}, "metadata": many}).content)
    found = terms(content)
    assert found.words == set(list(dict.fromkeys(words_by_definition(content)))[:WORDS_MAX])
    in_order = [leaf(path, scalar(value)) for path, value in leaves(content["metadata"])]
    assert found.fields == set(list(dict.fromkeys(in_order))[:FIELDS_MAX])
