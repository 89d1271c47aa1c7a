"""The table of fields: complete, and each row understood by the filter model."""

from __future__ import annotations

from pathlib import Path

import pytest

from decklog.domain.search.fields import COUNTABLE, FIELDS, PLACES, Field, Kind, find
from decklog.domain.search.query import matches
from decklog.domain.search.terms import Terms
from tests.support.fields import example
from tests.support.strategies import terms_of


def test_fields_are_the_terms_of_a_record() -> None:
    assert {field.term for field in (*FIELDS, *PLACES)} == set(Terms.__struct_fields__) - {"numbers", "paths"}


def test_fields_use_every_kind() -> None:
    assert {field.kind for field in (*FIELDS, *PLACES)} == set(Kind)


def test_find_returns_the_field_of_each_parameter() -> None:
    assert [find(field.example.partition("=")[0] if field.kind is Kind.LEAVES else field.parameter) for field in FIELDS] == list(
        FIELDS
    )


@pytest.mark.parametrize("name", ["metadata", "metadata.", "after", "before.", "log", "limit", "", "Actor", "actor.id", ".actor"])
def test_find_returns_none_for_other_names(name: str) -> None:
    assert find(name) is None


def test_countable_fields_are_the_ones_with_few_values() -> None:
    assert set(COUNTABLE) == {"action", "actor", "resource_type", "severity", "outcome"}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.parameter)
def test_matcher_finds_the_example_of_each_field(field: Field) -> None:
    query, found, other = example(field)
    assert not query.empty
    assert matches(query, terms_of(found))
    assert not matches(query, terms_of(other))


def test_search_guide_names_every_parameter() -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/search.md").read_text()
    assert [field.parameter for field in FIELDS if f"`{field.parameter}" not in guide] == []
