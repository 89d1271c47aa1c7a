"""Refusals of records and Tenants: all faults at once, in our words, with the field that was meant."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.faults import FAULTS_MAX, SHOWN_CHARS_MAX, faults_of
from decklog.domain.records.record import RecordInput, decode, prepare_sent
from decklog.domain.tenancy.manifest import decode_manifest
from decklog.domain.tenancy.spec import parse_spec
from tests.support.examples import examples

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SMALLEST = {"action": "a", "actor": {"id": "alice"}}


def faults(value: Any) -> list[dict[str, Any]]:
    with pytest.raises(DecklogError) as error:
        prepare_sent(msgspec.json.encode(value), now=NOW, fingerprint_key=b"k" * 32)
    assert error.value.code is Code.INVALID_RECORD
    found = error.value.extra["errors"]
    assert isinstance(found, list)
    assert error.value.detail.startswith(found[0]["path"])
    return found


def test_all_faults_of_a_record_are_listed_at_once() -> None:
    sent = {
        "actor": {"name": 5, "email": "a@b"},
        "severity": "info",
        "outcome": "failed",
        "occurred_at": "2027-01-01T00:00:00Z",
        "user_id": "alice",
        "metadata": {"a": "\0"},
        "related": [{"type": "t"}, {"id": "7"}],
    }
    assert [(each["path"], each.get("meant")) for each in faults(sent)] == [
        ("action", None),
        ("actor.id", None),
        ("actor.name", None),
        ("actor.email", "actor.id"),
        ("severity", "INFO"),
        ("outcome", "failure"),
        ("user_id", "actor.id"),
        ("related[1].type", None),
        ("occurred_at", None),
        ("metadata.a", None),
    ]


def test_fault_has_the_value_and_what_is_allowed() -> None:
    [fault] = faults({**SMALLEST, "severity": "info"})
    assert fault == {
        "path": "severity",
        "message": "'info' is not one of INFO, WARNING, ERROR, CRITICAL; INFO was meant",
        "value": "info",
        "allowed": ("INFO", "WARNING", "ERROR", "CRITICAL"),
        "meant": "INFO",
    }


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("user_id", "actor.id"),
        ("userName", "actor.id"),
        ("timestamp", "occurred_at"),
        ("@timestamp", "occurred_at"),
        ("eventTime", "occurred_at"),
        ("ip", "source.ip"),
        ("sourceIPAddress", "source.ip"),
        ("userAgent", "source.user_agent"),
        ("type", "action"),
        ("event", "action"),
        ("eventName", "action"),
        ("level", "severity"),
        ("status", "outcome"),
        ("msg", "message"),
        ("request_id", "correlation_id"),
        ("target", "resource"),
        ("resource_type", "resource.type"),
        ("payload", "metadata"),
        ("Action", "action"),
        ("actr", "actor"),
        ("metdata", "metadata"),
        ("occuredAt", "occurred_at"),
        ("zzz", None),
        ("x" * 5_000, None),
    ],
)
def test_unknown_field_names_the_one_that_was_meant(name: str, meant: str | None) -> None:
    [fault] = faults({**SMALLEST, name: "secret value"})
    assert fault.get("meant") == meant
    assert fault["path"] == name[:SHOWN_CHARS_MAX]
    assert "secret value" not in str(fault)
    assert "action" in fault["allowed"]


@pytest.mark.parametrize("name", ["tenant", "log", "seq", "received_at", "digest", "recorded_by", "masked", "epoch"])
def test_field_of_the_server_is_named_as_such(name: str) -> None:
    [fault] = faults({**SMALLEST, name: 1})
    assert fault["message"] == "the server adds this field; it cannot be sent"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": 5}, "must be a text, and is a number (5)"),
        ({"action": None}, "must be a text, and is null"),
        ({"actor": "alice"}, "must be an object, and is a text"),
        ({"actor": ["alice"]}, "must be an object, and is an array"),
        ({"related": {"type": "t"}}, "must be an array, and is an object"),
        ({"related": [{"type": "t"}] * 101}, "has 101 items; at most 100 are allowed"),
        ({"action": ""}, "has 0 characters; at least 1 must be there"),
        ({"action": "a" * 257}, "has 257 characters; at most 256 are allowed"),
        ({"occurred_at": "2026-11-22"}, "'2026-11-22' is not an RFC 3339 time with an offset, like 2026-01-31T12:00:00Z. "),
        ({"occurred_at": 1_700_000_000}, "'1700000000' is not an RFC 3339 time"),
        ({"severity": True}, "must be a text, and is true"),
    ],
)
def test_fault_is_told_in_words_of_json(change: dict[str, Any], message: str) -> None:
    [fault] = faults({**SMALLEST, **change})
    assert fault["message"].startswith(message)


def test_value_of_a_fault_is_cut() -> None:
    [fault] = faults({**SMALLEST, "action": "a" * 10_000})
    assert fault["value"] == "a" * SHOWN_CHARS_MAX
    [fault] = faults({**SMALLEST, "action": 10**4_200})
    assert "value" not in fault


def test_faults_are_at_most_twenty() -> None:
    assert len(faults({f"k{number}": 1 for number in range(1_000)})) == FAULTS_MAX


def test_no_value_under_a_secret_name_is_repeated() -> None:
    class Login(msgspec.Struct):
        password: int

    assert "hunter2" not in str(list(faults_of(Login, {"password": "hunter2"})))
    raw = b'{"action":"a","actor":{"id":"x"},"metadata":{"password":"hunter2","password":"hunter3"}}'
    with pytest.raises(DecklogError) as error:
        prepare_sent(raw, now=NOW, fingerprint_key=b"k" * 32)
    assert "hunter" not in f"{error.value.detail}{error.value.extra}"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "it ends too early"),
        (b'{"action":"a"', "it ends too early"),
        (b'{"action":"a",}', "at byte 14"),
        (b'{"action":"\xff"}', "is not UTF-8"),
        (b"8\xd7", "byte 1 is not UTF-8"),
        (b'{"action":5,}', "malformed at character"),
    ],
)
def test_text_that_is_not_json_says_where(raw: bytes, why: str) -> None:
    with pytest.raises(DecklogError, match=why) as error:
        decode(raw)
    assert error.value.code is Code.INVALID_JSON


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" * 4_301])
def test_number_that_cannot_be_stored_is_refused_with_its_path(number: bytes) -> None:
    with pytest.raises(DecklogError, match=r"^metadata\.a: contains a number"):
        decode(b'{"action":"a","actor":{"id":"x"},"metadata":{"a":[' + number + b"]}}")
    assert decode(b'{"action":"a","actor":{"id":"x"},"metadata":' + b"1" * 4_300 + b"}")


def test_byte_order_mark_in_front_of_a_record_is_skipped() -> None:
    assert decode(b'\xef\xbb\xbf{"action":"a","actor":{"id":"x"}}').action == "a"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = ["action", "actor", "id", "resource", "related", "occurred_at", "severity", "outcome", "source", "message", "odd"]
nested = st.dictionaries(st.sampled_from(["id", "type", "name", "ip", "x"]), anything, max_size=3)


@given(st.dictionaries(st.sampled_from(fields), anything | nested | st.lists(nested, max_size=2), max_size=6))
@settings(deadline=None, max_examples=examples(300))
def test_record_has_faults_exactly_where_the_decoder_refuses_it(sent: dict[str, Any]) -> None:
    found = list(faults_of(RecordInput, sent))
    try:
        msgspec.convert(sent, RecordInput)
    except msgspec.ValidationError:
        assert found
    else:
        assert all(fault.path == "occurred_at" for fault in found)  # the decoder takes any text


# Tenants


def refused(call: Any, value: Any) -> DecklogError:
    with pytest.raises(DecklogError) as error:
        call(value)
    assert error.value.code is Code.INVALID_TENANT
    return error.value


def test_spec_lists_its_faults_by_path() -> None:
    error = refused(parse_spec, {"retention": {"days": 0, "dayz": 5}, "isolation": "shared", "suspend": "no", "legalhold": True})
    assert [(each["path"], each.get("meant")) for each in error.extra["errors"]] == [
        ("spec.retention.days", None),
        ("spec.retention.dayz", "spec.retention.days"),
        ("spec.isolation", "Shared"),
        ("spec.suspend", None),
        ("spec.legalhold", "spec.legalHold"),
    ]
    assert error.detail == "spec.retention.days: 0 is not within 1 to 3650. 4 more in errors."


@pytest.mark.parametrize("raw", [b"", b"8\xd7", b'{"kind":5,}', b"[" * 100_000])
def test_manifest_that_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(DecklogError) as error:
        decode_manifest(raw)
    assert error.value.code is Code.INVALID_JSON


def test_manifest_refuses_a_name_twice_and_names_it() -> None:
    raw = b'{"apiVersion":"decklog.dev/v1","kind":"Tenant","metadata":{"name":"a"},"spec":{"retention":{"days":1},"legalHold":true,"legalHold":false}}'
    assert "the name 'legalHold' occurs twice in spec" in refused(decode_manifest, raw).detail
    assert (
        "metadata.name"
        in refused(decode_manifest, raw.replace(b'"name":"a"', b'"name":7').replace(b',"legalHold":false', b"")).detail
    )
