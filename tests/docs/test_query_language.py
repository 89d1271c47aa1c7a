"""Every example of the page about the query language is read, and finds the records that the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.search import conditions, grammar
from decklog.domain.search.query import matches, parse
from decklog.domain.search.terms import KEYWORD_CHARS_MAX, Terms
from tests.support.strategies import prepared, terms_of

PAGE = (Path(__file__).parents[2] / "docs/guides/query-language.md").read_text(encoding="utf-8")
NOW = datetime(2026, 12, 1, tzinfo=UTC)
_ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*)\|", re.MULTILINE)


def tables(marker: str) -> Iterator[tuple[str, str]]:
    """The first two cells of each row of the tables behind a marker."""
    for part in PAGE.split(f"<!-- {marker} -->")[1:]:
        yield from _ROW.findall(part.split("\n#", 1)[0])


EXAMPLES, REFUSED = list(tables("examples")), list(tables("refused"))


@pytest.fixture(scope="module")
def records() -> dict[str, Terms]:
    block = PAGE.partition("<!-- records -->")[2].partition("```json")[2].partition("```")[0]
    return {
        name: msgspec.structs.replace(terms_of(prepared(value)), seq=seq, received_at=datetime(2026, 2, 10 + seq, 12, tzinfo=UTC))
        for seq, (name, value) in enumerate(json.loads(block).items())
    }


def test_page_has_examples_of_each_kind() -> None:
    assert len(EXAMPLES) > 45
    assert len(REFUSED) > 10


@pytest.mark.parametrize(("query", "finds"), EXAMPLES)
def test_example_finds_the_records_that_the_page_says(records: dict[str, Terms], query: str, finds: str) -> None:
    _, asked = parse([("q", query)], now=NOW)
    assert [name for name, found in records.items() if matches(asked, found)] == re.findall("[A-E]", finds)


@pytest.mark.parametrize("query", [query for query, _ in REFUSED])
def test_query_that_the_page_calls_refused_is_refused(query: str) -> None:
    with pytest.raises(DecklogError) as error:
        parse([("q", query)], now=NOW)
    assert error.value.code is Code.INVALID_QUERY


def test_bounds_of_the_page_are_those_of_the_code() -> None:
    stated = [
        int(number.replace(",", ""))
        for number in re.findall(r"\d[\d,]*", PAGE.partition("## Bounds")[2].partition("A pattern over")[0])
    ]
    assert stated == [
        *(grammar.QUERY_CHARS_MAX, grammar.CLAUSES_MAX, grammar.DEPTH_MAX, conditions.PATTERNS_MAX),
        *(conditions.WILDCARDS_MAX, conditions.PATTERN_CHARS_MAX, conditions.PHRASE_WORDS_MAX),
    ]
    assert f"{KEYWORD_CHARS_MAX:,} characters" in PAGE
