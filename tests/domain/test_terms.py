"""The terms of a record: canonical and bounded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from decklog.domain.records.record import Prepared
from decklog.domain.search.terms import FIELDS_MAX, KEYWORD_CHARS_MAX, WORD_CHARS_MAX, WORDS_MAX, Terms, parse_ip, words
from tests.support.strategies import prepared, records, terms_of


def found(**value: Any) -> Terms:
    return terms_of(prepared({"action": "a", "actor": {"id": "alice"}, "occurred_at": "2026-01-01T00:00:00Z", **value}))


@pytest.mark.parametrize(
    ("text", "ip"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:C000:201", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("075.050.255.67", None),
        ("192.0.2.1:443", None),
        ("192.0.2.0/24", None),
        (" 192.0.2.1", None),
        ("3232235777", None),
        ("ec2.amazonaws.com", None),
        ("", None),
    ],
)
def test_parse_ip_returns_the_canonical_spelling_or_none(text: str, ip: str | None) -> None:
    assert parse_ip(text) == ip


@pytest.mark.parametrize(
    ("text", "found_words"),
    [
        ("The quick, brown fox!", ["the", "quick", "brown", "fox"]),
        ("snake_case camelCase kebab-case", ["snake_case", "camelcase", "kebab", "case"]),
        ("arn:aws:iam::123:role/x", ["arn", "aws", "iam", "123", "role", "x"]),
        ("Stra\u00dfe", ["stra\u00dfe"]),
        ("\u212a", ["k"]),
        ("\u0661\u0662", ["\u0661\u0662"]),
        ("\u4e2d\u6587", ["\u4e2d\u6587"]),
        ("-- !!", []),
        ("w" * 100, ["w" * WORD_CHARS_MAX]),
    ],
)
def test_words_are_runs_of_letters_and_digits_in_lower_case(text: str, found_words: list[str]) -> None:
    assert words(text) == found_words


def test_fields_are_leaves_of_metadata_by_dotted_path() -> None:
    fields = found(metadata={"a": {"b": [1, {"c": True}], "d.e": 1.0}, "f": None, "g": 2**70, "h": "x"}).fields
    assert fields == {"a.b=1", "a.b.c=true", "a.d.e=1", f"g={2**70}", "h=x"}


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a=b": "c"}, {"a": "b=c"}), ({"a\\": "=b"}, {"a=": "b"}), ({"a": "=b"}, {"a=": "b"}), ({"a\\=b": "c"}, {"a\\": "b=c"})],
)
def test_different_leaves_never_share_a_field(one: dict[str, str], other: dict[str, str]) -> None:
    assert found(metadata=one).fields != found(metadata=other).fields


def test_only_metadata_has_fields_and_session_ids_have_no_words() -> None:
    item = found(
        message="m1",
        before={"k": "b1"},
        after=["a1"],
        resource={"type": "t1", "id": "r1"},
        related=[{"type": "t2"}],
        session_id="s1",
    )
    assert item.fields == frozenset()
    assert {"m1", "b1", "a1", "t1", "r1", "t2", "alice"} <= item.words
    assert "k" not in item.words
    assert "s1" not in item.words


def test_long_values_are_cut() -> None:
    item = found(actor={"id": "x" * 1_000}, metadata={"k" * 600: "v" * 600})
    assert item.actor == "x" * KEYWORD_CHARS_MAX
    assert item.fields == {"k" * KEYWORD_CHARS_MAX + "=" + "v" * KEYWORD_CHARS_MAX}


def test_words_and_fields_of_a_record_are_bounded() -> None:
    item = found(metadata=[{f"k{number}": f"w{number}"} for number in range(6_000)])
    assert len(item.words) == WORDS_MAX
    assert len(item.fields) == FIELDS_MAX


def test_occurred_at_is_exact_to_the_microsecond() -> None:
    assert found(occurred_at="2026-01-01T05:45:00.000001+05:45").occurred_at == datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


@given(records())
@settings(deadline=None)
def test_terms_agree_with_the_columns_of_the_record(record: Prepared) -> None:
    item = terms_of(record)
    assert item.occurred_at == record.occurred_at
    assert item.action == record.action
    assert item.actor == record.actor_id[:KEYWORD_CHARS_MAX]
    assert item.ip == record.ip
    assert all(0 < len(word) <= WORD_CHARS_MAX for word in item.words)
    assert all(len(leaf) <= 3 * KEYWORD_CHARS_MAX + 1 for leaf in item.fields)
    assert msgspec.convert(msgspec.to_builtins(item), Terms) == item
