"""The terms of a record: canonical and whole."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.records.record import Prepared
from decklog.domain.search.terms import (
    COLUMN_BYTES_MAX,
    COLUMN_CHARS_MAX,
    KEYWORD_CHARS_MAX,
    PATH_CHARS_MAX,
    Terms,
    column,
    column_decides,
    column_forms,
    keyword,
    leaf,
    optional_column,
    ordered,
    parse_ip,
    scalar,
)
from tests.support.examples import examples
from tests.support.strategies import prepared, records, terms_of

LUCENE_TERM_BYTES_MAX, BTREE_ENTRY_BYTES_MAX = 32_766, 2_704


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
        ("192.0.2.1:443", "192.0.2.1"),
        ("[::1]:8080", "::1"),
        ("[::1]", "::1"),
        ("[fe80::1%eth0]:22", "fe80::1"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1"),
        ("[192.0.2.1]:443", "192.0.2.1"),
        ("075.050.255.67", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:x", None),
        ("::1]:80", None),
        ("192.0.2.0/24", None),
        (" 192.0.2.1", None),
        ("3232235777", None),
        ("ec2.amazonaws.com", None),
        ("fe80::1%" + "x" * 200, None),
        ("", None),
    ],
)
def test_parse_ip_returns_the_canonical_spelling_or_none(text: str, ip: str | None) -> None:
    assert parse_ip(text) == ip


def test_leaves_are_those_of_metadata_before_and_after_by_dotted_path() -> None:
    item = found(
        metadata={"a": {"b": [1, {"c": True}], "d.e": 1.0}, "f": None, "g": 2**70, "h": "x"},
        before=["b"],
        after={"": {"k": 1e300}},
    )
    assert item.leaves == {
        "metadata.a.b=1",
        "metadata.a.b.c=true",
        "metadata.a.d.e=1",
        f"metadata.g={2**70}",
        "metadata.h=x",
        "before=b",
        "after..k=1e+300",
    }
    objects = {"metadata", "metadata.a", "after", "after."}
    assert item.paths == {leaf.partition("=")[0] for leaf in item.leaves} | objects
    assert item.numbers == {
        f"{path}={ordered(value)}"
        for path, value in [("metadata.a.b", 1), ("metadata.a.d.e", 1), ("metadata.g", 2**70), ("after..k", 1e300)]
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a=b": "c"}, {"a": "b=c"}), ({"a\\": "=b"}, {"a=": "b"}), ({"a": "=b"}, {"a=": "b"}), ({"a\\=b": "c"}, {"a\\": "b=c"})],
)
def test_different_leaves_never_share_a_term(one: dict[str, str], other: dict[str, str]) -> None:
    assert found(metadata=one).leaves != found(metadata=other).leaves


def test_every_text_of_a_record_has_words() -> None:
    item = found(
        id="i1",
        message="m1",
        before={"k": "b1"},
        after=["a1", False, None],
        resource={"type": "t1", "id": "r1", "name": "n1"},
        related=[{"type": "t2", "id": "r2"}],
        source={"ip": "192.0.2.1", "user_agent": "u1"},
        session_id="s1",
        correlation_id="c1",
        metadata={"password": "p", "n": 7},
    )
    words = {word for text in item.texts for word in text}
    assert words == {
        "a",
        "m1",
        "i1",
        "alice",
        "t1",
        "r1",
        "n1",
        "t2",
        "r2",
        "192",
        "0",
        "2",
        "1",
        "u1",
        "s1",
        "c1",
        "b1",
        "a1",
        "masked",
        "7",
        "metadata",
        "password",
    }


def test_values_are_whole_whatever_their_length_and_number() -> None:
    item = found(actor={"id": "x" * 1_000}, metadata={"k" * 600: "v" * 600, "many": [{f"k{n}": f"w{n}"} for n in range(6_000)]})
    assert item.actor == "x" * 1_000
    assert len(item.leaves) == 6_001
    assert leaf("metadata." + "k" * 600, "v" * 600) in item.leaves
    assert {f"w{n}" for n in range(6_000)} <= {word for text in item.texts for word in text}


def test_long_key_is_not_copied_for_each_member_below_it() -> None:
    item = found(metadata={"k" * 100_000: {f"m{n}": {"x": n} for n in range(5_000)}})
    assert max(map(len, item.paths)) <= PATH_CHARS_MAX
    assert leaf("metadata." + "k" * 100_000 + ".m4711.x", "4711") in item.leaves


def test_long_values_that_share_a_beginning_stay_apart() -> None:
    for form, most, bytes_max in (
        (keyword, KEYWORD_CHARS_MAX, LUCENE_TERM_BYTES_MAX),
        (column, COLUMN_BYTES_MAX // 4, BTREE_ENTRY_BYTES_MAX - 100),
    ):
        whole, one, other = ("\U0001f600" * most + end for end in ("", "1", "2"))
        assert form(whole) == whole
        assert len({form(value) for value in (whole, one, other, form(one), form(form(one)))}) == 5
        assert form(one).startswith(whole)
        assert len(form(one).encode()) <= bytes_max
    long = leaf("=" * PATH_CHARS_MAX + "x", "\U0001f600" * KEYWORD_CHARS_MAX)
    assert len(keyword(long).encode()) <= LUCENE_TERM_BYTES_MAX


def test_column_forms_have_the_stored_form_and_the_cut_of_earlier_versions() -> None:
    short, whole, long = "x" * (COLUMN_CHARS_MAX - 1), "x" * COLUMN_CHARS_MAX, "x" * (COLUMN_CHARS_MAX + 1)
    assert [column_forms(value) for value in (short, whole)] == [(short,), (whole,)]
    assert column_forms(long) == (long, whole)
    assert column_forms(4 * long) == (column(4 * long), whole)
    assert [column_decides(value) for value in (short, whole, long)] == [True, False, False]
    assert [optional_column(value) for value in (None, 4 * long)] == [None, column(4 * long)]


NUMBERS = (
    st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, -0.0, 1e16])
)


@settings(max_examples=examples(500), deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=20))
def test_ordered_texts_have_the_order_of_their_numbers(values: list[float]) -> None:
    for one, other in pairwise(values):
        exact = Decimal(scalar(one)), Decimal(scalar(other))
        assert (ordered(one) < ordered(other)) == (exact[0] < exact[1])
        assert (ordered(one) == ordered(other)) == (exact[0] == exact[1])


def test_occurred_at_is_exact_to_the_microsecond() -> None:
    assert found(occurred_at="2026-01-01T05:45:00.000001+05:45").occurred_at == datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


@given(records())
@settings(deadline=None)
def test_terms_agree_with_the_columns_of_the_record(record: Prepared) -> None:
    item = terms_of(record)
    assert item.occurred_at == record.occurred_at
    assert column(item.action) == record.action
    assert column(item.actor) == record.actor_id
    assert optional_column(item.resource_id) == record.resource_id
    assert item.ip == record.ip
    assert msgspec.convert(msgspec.to_builtins(item), Terms) == item
