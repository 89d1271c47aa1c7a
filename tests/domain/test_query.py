"""The filter model: the meaning of each parameter, refusals, and matching in memory."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.record import Prepared
from decklog.domain.search import tree
from decklog.domain.search.fields import FIELDS, Kind
from decklog.domain.search.grammar import QUERY_CHARS_MAX
from decklog.domain.search.query import LEAVES_MAX, PARAMETERS, Query, describe, matches, parse
from tests.support import naive
from tests.support.strategies import cases, prepared, records, terms_of


def query(*parameters: tuple[str, str]) -> Query:
    return parse(parameters)[1]


def finds(value: dict[str, Any], *parameters: tuple[str, str]) -> bool:
    record = {"action": "user.login", "actor": {"id": "alice"}, "occurred_at": "2026-01-01T00:00:00Z", **value}
    return matches(query(*parameters), terms_of(prepared(record)))


def refusal(*parameters: tuple[str, str]) -> DecklogError:
    with pytest.raises(DecklogError) as error:
        parse(parameters)
    return error.value


EXAMPLES = {field.parameter: field.example for field in FIELDS if field.kind is not Kind.LEAVES} | {
    "log": "access",
    "metadata.a.b": "1",
}


def test_every_parameter_changes_the_query() -> None:
    assert set(PARAMETERS) == set(EXAMPLES) - {"metadata.a.b"}
    for name, value in EXAMPLES.items():
        assert parse([(name, value)]) != parse([]), name


@pytest.mark.parametrize("name", ["actions", "Action", "filter", "metadata", "metadata.", "", "tenant", "offset", "q ", "limit"])
def test_parse_rejects_unknown_parameters_by_name(name: str) -> None:
    error = refusal((name, "x"))
    assert error.code is Code.UNKNOWN_PARAMETER
    assert error.extra == {"parameter": name}
    assert "metadata.<path>" in error.detail


def test_parse_skips_parameters_of_the_caller() -> None:
    assert parse([("limit", "x"), ("cursor", "")], others=("limit", "cursor")) == (LogName.EVENTS, Query())


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - {"severity"}))
def test_parse_rejects_a_repeated_filter(name: str) -> None:
    assert refusal((name, EXAMPLES[name]), (name, EXAMPLES[name])).code is Code.INVALID_PARAMETER


@pytest.mark.parametrize("name", sorted(EXAMPLES))
@pytest.mark.parametrize("value", ["", "x" * (QUERY_CHARS_MAX + 1), "a\0b", "a\ud800b"])
def test_parse_rejects_empty_overlong_and_unstorable_values(name: str, value: str) -> None:
    error = refusal((name, value))
    assert error.code is Code.INVALID_PARAMETER
    assert error.extra == {"parameter": name}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("from", "2026-01-01"),
        ("from", "2026-01-01T00:00:00"),
        ("from", "2026-13-01T00:00:00Z"),
        ("from", "2026-02-30T00:00:00Z"),
        ("from", "2026-01-01T00:00:60Z"),
        ("from", "1767225600"),
        ("from", "2026-01-01 00:00:00 01:00"),
        ("to", "now"),
        ("action", "*.login"),
        ("action", "user.**"),
        ("severity", "error"),
        ("severity", "FATAL"),
        ("outcome", "SUCCESS"),
        ("ip", "192.0.2"),
        ("ip", "075.050.255.67"),
        ("ip", "192.0.2.0/33"),
        ("ip", "example.org"),
        ("log", "EVENTS"),
        ("log", "audit"),
    ],
)
def test_parse_rejects_meaningless_values(name: str, value: str) -> None:
    error = refusal((name, value))
    assert error.code is Code.INVALID_PARAMETER
    assert error.detail.startswith(f"{name}")


def test_parse_rejects_an_empty_time_range() -> None:
    assert refusal(("from", "2026-01-02T00:00:00Z"), ("to", "2026-01-02T01:00:00+01:00")).code is Code.INVALID_PARAMETER


def test_parse_rejects_too_many_metadata_filters() -> None:
    assert refusal(*[(f"metadata.k{n}", "v") for n in range(LEAVES_MAX + 1)]).code is Code.INVALID_PARAMETER


def test_parse_reads_times_with_their_offset() -> None:
    asked = query(("from", "2026-01-01T00:00:00.000001+05:45"), ("to", "2026-01-01T00:00:00z"))
    assert asked.since == datetime(2025, 12, 31, 18, 15, 0, 1, tzinfo=UTC)
    assert asked.until == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00"]
)
def test_extreme_times_exclude_no_record(text: str) -> None:
    name = "from" if text.startswith("0") else "to"
    assert finds({"occurred_at": "0002-01-01T00:00:00Z"}, (name, text))
    assert finds({}, (name, text))


def test_parse_ignores_the_order_of_parameters() -> None:
    assert query(("severity", "INFO"), ("metadata.b", "1"), ("severity", "ERROR"), ("metadata.a", "2")) == query(
        ("metadata.a", "2"), ("severity", "ERROR"), ("severity", "INFO"), ("metadata.b", "1"), ("severity", "INFO")
    )


@pytest.mark.parametrize(
    ("value", "parameters", "found"),
    [
        ({}, [("actor", "alice")], True),
        ({}, [("actor", "Alice")], False),
        ({}, [("actor", "alic")], False),
        ({}, [("action", "user.login")], True),
        ({}, [("action", "user.*")], True),
        ({}, [("action", "user.logi")], False),
        ({}, [("action", "*")], True),
        ({}, [("from", "2026-01-01T00:00:00Z")], True),
        ({}, [("to", "2026-01-01T00:00:00Z")], False),
        ({}, [("severity", "INFO"), ("severity", "ERROR")], True),
        ({}, [("severity", "ERROR")], False),
        ({}, [("outcome", "unknown")], True),
        ({}, [("resource_type", "x")], False),
        ({"resource": {"type": "x", "id": "1"}}, [("resource_type", "x"), ("resource_id", "1")], True),
        ({"resource": {"type": "x", "id": "1"}}, [("resource_type", "x"), ("resource_id", "2")], False),
        ({"source": {"ip": "192.0.2.1"}}, [("ip", "192.0.2.1")], True),
        ({"source": {"ip": "192.0.2.1"}}, [("ip", "192.0.2.128/24")], True),
        ({"source": {"ip": "2001:DB8:0::1"}}, [("ip", "2001:db8::1")], True),
        ({"source": {"ip": "somewhere"}}, [("ip", "0.0.0.0/0")], False),
        ({"source": {}}, [("ip", "0.0.0.0/0")], False),
        ({"message": "The Quick, brown fox."}, [("q", "fox quick")], True),
        ({"message": "The Quick, brown fox."}, [("q", "foxes")], False),
        ({"before": {"deep": [{"er": "needle"}]}}, [("q", "NEEDLE")], True),
        ({"metadata": {"a": [{"b": "1"}, {"b": 2}]}}, [("metadata.a.b", "2")], True),
        ({"metadata": {"a": [{"b": "1"}, {"b": 2}]}}, [("metadata.a.b", "3")], False),
        ({"metadata": {"a": "1", "b": "2"}}, [("metadata.a", "1"), ("metadata.b", "1")], False),
        ({"metadata": {"a": None}}, [("metadata.a", "null")], False),
    ],
)
def test_filter_matches_exactly_its_records(value: dict[str, Any], parameters: list[tuple[str, str]], found: bool) -> None:
    assert finds(value, *parameters) is found


@given(records())
@settings(deadline=None)
def test_empty_query_matches_every_record(record: Prepared) -> None:
    assert Query().empty
    assert matches(Query(), terms_of(record))


@given(case=cases(), other=cases())
@settings(deadline=None)
def test_additional_condition_never_matches_more(case: tuple[list[Prepared], Query], other: tuple[list[Prepared], Query]) -> None:
    made, asked = case
    narrower = Query(tree.conjunction([asked.root, other[1].root]))
    for record in made:
        found = terms_of(record)
        assert matches(narrower, found) == (matches(asked, found) and matches(other[1], found))


@given(case=cases())
@settings(deadline=None)
def test_matcher_decides_by_the_plain_meaning(case: tuple[list[Prepared], Query]) -> None:
    made, asked = case
    for record in made:
        assert matches(asked, terms_of(record)) == naive.satisfies(asked.root, msgspec.json.decode(record.content)), asked.text


def test_description_is_the_query_as_text_with_its_bounds() -> None:
    assert describe(query()) == {}
    assert describe(query(("action", "user.*"), ("metadata.a", "1"), ("q", "b a"), ("from", "2026-01-01T00:00:00Z"))) == {
        "q": "occurred_at:>=2026-01-01T00:00:00Z AND action:user.* AND b AND a AND metadata.a:1",
        "since": "2026-01-01T00:00:00Z",
    }


def test_description_masks_values_under_the_names_of_secrets() -> None:
    asked = query(("q", "metadata.password:hunter2 OR NOT after.x.api_key:hunt* OR metadata.secret:>5 OR metadata.a:b"))
    assert describe(asked) == {
        "q": 'metadata.password:"[masked]" OR NOT after.x.api_key:"[masked]" OR metadata.secret:"[masked]" OR metadata.a:b'
    }


def test_description_has_the_times_that_relative_ones_mean() -> None:
    now = datetime(2026, 12, 1, tzinfo=UTC)
    asked = parse([("q", "since:24h until:1h")], now=now)[1]
    assert describe(asked) == {
        "q": "since:now-24h AND until:now-1h",
        "since": "2026-11-30T00:00:00Z",
        "until": "2026-11-30T23:00:00Z",
    }
    later = parse([("q", "since:24h until:1h")], now=now + timedelta(minutes=1))[1]
    assert later.text == asked.text


def test_bounds_follow_from_conditions_that_all_must_hold() -> None:
    assert query(("q", "since:2026-01-01 since:2026-01-03"), ("from", "2026-01-02T00:00:00Z")).since == datetime(
        2026, 1, 3, tzinfo=UTC
    )
    assert query(("q", "until:2026-01-03 alice"), ("to", "2026-01-02T00:00:00Z")).until == datetime(2026, 1, 2, tzinfo=UTC)
    for text in ("since:2026-01-01 OR alice", "NOT since:2026-01-01"):
        assert query(("q", text)).since is None


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("actor:alice", False),
        ("actor:alice OR NOT severity:ERROR", False),
        ("NOT exists:session_id", False),
        ("ip:10.0.0.0/8 since:24h", False),
        ("action:user.*", False),
        ("action:*.login", True),
        (f"actor:{'x' * 512}", True),
        ("alice", True),
        ("actor:alice OR related:alice", True),
        ("NOT metadata.a:b", True),
        ("message:full", True),
    ],
)
def test_content_is_needed_where_columns_do_not_decide(text: str, content: bool) -> None:
    assert query(("q", text)).needs_content is content


@pytest.mark.parametrize(
    ("text", "decides"),
    [
        ("metadata.a:b metadata.a:b* actor:*b word* exists:masked metadata.a:>5", True),
        ("metadata.a:*b", False),
        ("alice OR NOT masked:/metadata/*/password", False),
    ],
)
def test_index_decides_but_about_patterns_of_long_values(text: str, decides: bool) -> None:
    assert query(("q", text)).index_decides is decides


@given(
    st.lists(
        st.tuples(
            st.text(max_size=20) | st.just("actor") | st.just("metadata.a"),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
        ),
        max_size=2,
        unique_by=lambda item: item[0],
    )
)
def test_parse_accepts_or_rejects_any_parameters_by_name(parameters: list[tuple[str, str]]) -> None:
    free = [name for name, _ in parameters if name == "actor" or name.startswith("metadata.")]  # these take any text
    if len(free) == len(parameters):
        assert parse(parameters)[1].empty is not bool(parameters)
    elif all(name in PARAMETERS or name in free for name, _ in parameters):
        with contextlib.suppress(DecklogError):  # queries, times and addresses have a syntax of their own
            parse(parameters)
    else:
        assert refusal(*parameters).code in (Code.UNKNOWN_PARAMETER, Code.INVALID_PARAMETER)
