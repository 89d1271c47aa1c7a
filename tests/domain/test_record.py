"""Records: what a client may send, and how it is prepared for storage."""

from __future__ import annotations

import hashlib
import hmac
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.privacy.masking import MASK, mask
from decklog.domain.records.canonical import canonical
from decklog.domain.records.record import (
    RECORD_BYTES_MAX,
    Actor,
    Outcome,
    Prepared,
    RecordInput,
    Severity,
    Source,
    prepare,
    prepare_sent,
)
from decklog.domain.records.recorder import recorder
from decklog.domain.records.refusal import DEPTH_MAX
from tests.support.examples import examples
from tests.support.json_values import respelled, texts, values

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY = b"a key of at least thirty-two byte"
SMALLEST = {"action": "a", "actor": {"id": "alice"}}
FULL = {
    "id": "x1",
    "action": "document.update",
    "actor": {"id": "alice", "type": "user", "name": "Alice"},
    "resource": {"type": "document", "id": "42", "name": "Plan"},
    "related": [{"type": "folder", "id": "7"}, {"type": "project"}],
    "occurred_at": "2026-11-22T10:00:00.500000+01:00",
    "severity": "WARNING",
    "outcome": "denied",
    "message": "no",
    "source": {"ip": "192.0.2.7", "user_agent": "curl"},
    "session_id": "s",
    "correlation_id": "c",
    "before": {"title": "a"},
    "after": {"title": "b"},
    "metadata": {"n": [1, 2.5, None, True, "é"]},
}


def prepared(value: Any, **options: Any) -> Prepared:
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return prepare_sent(raw, **{"now": NOW, "fingerprint_key": KEY, **options})


def content(value: Any, **options: Any) -> dict[str, Any]:
    stored = msgspec.json.decode(prepared(value, **options).content)
    assert isinstance(stored, dict)
    return stored


def refusal(value: Any, **options: Any) -> DecklogError:
    with pytest.raises(DecklogError) as error:
        prepared(value, **options)
    return error.value


# Stored content


def test_smallest_record_gets_defaults() -> None:
    assert content(SMALLEST) == {
        **SMALLEST,
        "occurred_at": "2026-11-22T12:00:00Z",
        "severity": "INFO",
        "outcome": "unknown",
    }


def test_full_record_is_stored_as_sent() -> None:
    assert content(FULL) == FULL


def test_prepared_columns_agree_with_the_content() -> None:
    record = prepared(FULL)
    assert record == Prepared(
        id="x1",
        fingerprint=record.fingerprint,
        occurred_at=datetime(2026, 11, 22, 9, 0, 0, 500_000, tzinfo=UTC),
        action="document.update",
        actor_type="user",
        actor_id="alice",
        resource_type="document",
        resource_id="42",
        severity=1,
        outcome=2,
        ip="192.0.2.7",
        session_id="s",
        correlation_id="c",
        content=record.content,
        digest=hashlib.sha256(record.content).digest(),
    )


def test_digest_is_of_the_exact_stored_bytes() -> None:
    record = prepared(FULL)
    assert record.digest == hashlib.sha256(record.content).digest()
    assert record.content == canonical(msgspec.json.decode(record.content))


@pytest.mark.parametrize(("severity", "number"), [("INFO", 0), ("WARNING", 1), ("ERROR", 2), ("CRITICAL", 3)])
def test_severities_are_stored_as_ordered_numbers(severity: str, number: int) -> None:
    assert prepared({**SMALLEST, "severity": severity}).severity == number


def test_invalid_address_is_stored_but_not_findable_by_ip() -> None:
    for odd in ("075.050.255.67", "ec2.amazonaws.com", "AWS Internal", ""):
        record = prepared({**SMALLEST, "source": {"ip": odd}})
        assert record.ip is None
        assert msgspec.json.decode(record.content)["source"] == {"ip": odd}


def test_integers_are_stored_exactly() -> None:
    assert content({**SMALLEST, "metadata": {"n": 2**70, "m": -(2**70)}})["metadata"] == {"n": 2**70, "m": -(2**70)}
    assert b"1180591620717411303424" in prepared({**SMALLEST, "metadata": 2**70}).content


def test_secrets_are_masked_before_storage_and_listed() -> None:
    sent = {**SMALLEST, "metadata": {"login": {"password": "hunter2"}}, "before": {"api_key": "k"}, "after": [{"Cookie": 1.5}]}
    stored = content(sent)
    assert stored["metadata"] == {"login": {"password": MASK}}
    assert stored["before"] == {"api_key": MASK}
    assert stored["after"] == [{"Cookie": MASK}]
    assert stored["masked"] == ["/after/0/Cookie", "/before/api_key", "/metadata/login/password"]
    assert b"hunter2" not in prepared(sent).content


def test_masked_list_is_rejected_from_clients() -> None:
    assert "masked" in refusal({**SMALLEST, "masked": []}).detail


# Absent and null


@pytest.mark.parametrize(
    "name",
    ["id", "resource", "related", "occurred_at", "severity", "outcome", "message", "source", "session_id", "correlation_id"],
)
def test_null_means_absent(name: str) -> None:
    assert prepared({**SMALLEST, name: None}) == prepared(SMALLEST)


def test_null_in_actor_resource_and_source_means_absent() -> None:
    sent = {
        "action": "a",
        "actor": {"id": "alice", "type": None, "name": None},
        "resource": {"type": "t", "id": None},
        "source": {"ip": None},
    }
    assert prepared(sent) == prepared({"action": "a", "actor": {"id": "alice"}, "resource": {"type": "t"}, "source": {}})


@pytest.mark.parametrize("name", ["metadata", "before", "after"])
def test_null_is_a_value_in_fields_of_any_json(name: str) -> None:
    assert content({**SMALLEST, name: None})[name] is None
    assert name not in content(SMALLEST)


def test_identity_of_any_length_is_stored_whole() -> None:
    name = "u" * 65_536
    record = prepared({"action": "user.login", "outcome": "failure", "actor": {"id": name}, "source": {"ip": name}})
    assert msgspec.json.decode(record.content)["actor"]["id"] == name
    assert record.ip is None


# Refusals


def test_unknown_field_is_rejected_by_name() -> None:
    for sent in (
        {**SMALLEST, "tenant": "other"},
        {**SMALLEST, "actor": {"id": "a", "tenant": "other"}},
        {**SMALLEST, "related": [{"type": "t", "tenant": "other"}]},
    ):
        error = refusal(sent)
        assert error.code is Code.INVALID_RECORD
        assert "tenant" in error.detail


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"action": ""}, "action"),
        ({"action": "a" * 257}, "action"),
        ({"action": None}, "action"),
        ({"id": ""}, "id"),
        ({"id": "a" * 257}, "id"),
        ({"id": 5}, "id"),
        ({"actor": {"id": ""}}, "actor.id"),
        ({"actor": {"id": "a" * 65_537}}, "actor.id"),
        ({"actor": {}}, "actor.id"),
        ({"resource": {"id": "x"}}, "resource.type"),
        ({"related": [{"type": "t"}] * 101}, "related"),
        ({"severity": "info"}, "severity"),
        ({"outcome": "ok"}, "outcome"),
        ({"message": "m" * 65_537}, "message"),
        ({"source": {"ip": "1" * 65_537}}, "source.ip"),
        ({"source": {"user_agent": "u" * 65_537}}, "source.user_agent"),
        ({"session_id": "s" * 65_537}, "session_id"),
        ({"occurred_at": "2026-11-22T10:00:00"}, "occurred_at"),
        ({"occurred_at": "2026-11-22"}, "occurred_at"),
        ({"occurred_at": 1_700_000_000}, "occurred_at"),
    ],
)
def test_invalid_field_is_rejected_by_path(change: dict[str, Any], path: str) -> None:
    error = refusal({**SMALLEST, **change})
    assert error.code is Code.INVALID_RECORD
    assert error.detail.startswith(f"{path}: ")
    assert [fault["path"] for fault in error.extra["errors"]] == [path]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"nonsense", b'{"action":"a"', b'{"action":"\xff","actor":{"id":"a"}}', b'{"metadata":NaN}']
)
def test_text_that_is_not_json_is_rejected(raw: bytes) -> None:
    assert refusal(raw).code is Code.INVALID_JSON


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"x"', b"5"])
def test_json_that_is_no_object_is_rejected(raw: bytes) -> None:
    assert refusal(raw).code is Code.INVALID_RECORD


def sized(size: int) -> bytes:
    """A record of exactly this many bytes, as sent and as stored."""
    start = b'{"action":"a","actor":{"id":"x"},"metadata":"'
    end = b'","occurred_at":"2026-11-22T10:00:00Z","outcome":"success","severity":"INFO"}'
    return start + b"m" * (size - len(start) - len(end)) + end


def test_record_over_256_kib_is_rejected() -> None:
    assert len(prepared(sized(RECORD_BYTES_MAX)).content) == RECORD_BYTES_MAX == 256 * 1024
    assert refusal(sized(RECORD_BYTES_MAX + 1)).code is Code.BODY_TOO_LARGE


def test_record_over_256_kib_in_canonical_form_is_rejected() -> None:
    small_as_sent = b'{"action":"a","actor":{"id":"x"},"metadata":[' + b",".join([b"1e20"] * 20_000) + b"]}"
    assert len(small_as_sent) < RECORD_BYTES_MAX
    assert refusal(small_as_sent).code is Code.BODY_TOO_LARGE


def nested(levels: int, inner: Any = 1) -> Any:
    for level in range(levels):
        inner = {"a": inner} if level % 2 else [inner]
    return inner


@pytest.mark.parametrize("name", ["metadata", "before", "after"])
def test_json_nested_over_32_levels_is_rejected(name: str) -> None:
    assert content({**SMALLEST, name: nested(DEPTH_MAX)})[name] == nested(32)
    error = refusal({**SMALLEST, name: nested(DEPTH_MAX + 1)})
    assert error.code is Code.INVALID_RECORD
    assert name in error.detail
    assert "32" in error.detail


def test_empty_object_at_level_33_is_rejected() -> None:
    empty: Any
    for empty in ({}, []):
        content({**SMALLEST, "metadata": nested(DEPTH_MAX - 1, empty)})
        assert refusal({**SMALLEST, "metadata": nested(DEPTH_MAX, empty)}).code is Code.INVALID_RECORD


def test_extreme_nesting_is_rejected_safely() -> None:
    for raw in (
        b'{"action":"a","actor":{"id":"x"},"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"action":"a","actor":{"id":"x"},"metadata":' + b'{"a":' * 40_000 + b"1" + b"}" * 40_000 + b"}",
        b"[" * 200_000,
    ):
        assert refusal(raw).code is Code.INVALID_RECORD


NUL_PLACES = [
    {"action": "a\0"},
    {"id": "\0"},
    {"actor": {"id": "a\0b"}},
    {"actor": {"id": "a", "name": "\0"}},
    {"resource": {"type": "\0"}},
    {"related": [{"type": "t"}, {"type": "t", "id": "\0"}]},
    {"message": "\0"},
    {"source": {"ip": "\0"}},
    {"metadata": "\0"},
    {"metadata": {"\0": 1}},
    {"metadata": nested(DEPTH_MAX, "\0")},
    {"before": [1.5, {"a": ["\0"]}]},
    {"after": {"deep": {"a\0": 1.5}}},
    {"metadata": {"password": "hidden\0anyway"}},
]


@pytest.mark.parametrize("change", NUL_PLACES)
def test_nul_is_rejected_in_any_string_and_key(change: dict[str, Any]) -> None:
    error = refusal({**SMALLEST, **change})
    assert error.code is Code.INVALID_RECORD
    assert "U+0000" in error.detail
    assert "\0" not in error.detail


def test_literal_text_of_a_nul_escape_is_accepted() -> None:
    assert content({**SMALLEST, "metadata": {"regex": "\\u0000", "twice": "\\\\u0000"}})["metadata"]["regex"] == "\\u0000"


@pytest.mark.parametrize(
    ("part", "where"),
    [
        (rb'"metadata":{"a":["\ud800"]}', "metadata.a"),
        (rb'"metadata":{"a":"\ud800 and more text behind it"}', "metadata.a"),
        (rb'"metadata":{"a":"\uDC00\ud800"}', "metadata.a"),
        (rb'"metadata":{"b":{"\udfff":1}}', "metadata.b"),
        (rb'"message":"\ud83d\u0041"', "message"),
        (rb'"id":"\ud800"', "id"),
    ],
)
def test_lone_surrogate_is_rejected_with_its_path(part: bytes, where: str) -> None:
    error = refusal(b'{"action":"a","actor":{"id":"x"},' + part + b"}")
    assert error.code is Code.INVALID_RECORD
    assert error.detail.startswith(f"{where}: contains a lone surrogate")


def test_surrogate_pair_is_accepted() -> None:
    assert content(rb'{"action":"a","actor":{"id":"x"},"message":"\ud83d\ude00"}')["message"] == "😀"


def test_broken_json_with_a_surrogate_is_reported_as_broken_json() -> None:
    assert refusal(rb'{"action":"\ud800"').code is Code.INVALID_JSON


def test_internal_record_is_checked_like_a_sent_one() -> None:
    for bad in ("\0", "\udc80"):
        record = RecordInput(action="a", actor=Actor(id="x"), source=Source(user_agent=bad), metadata={"f": 1.5})
        with pytest.raises(DecklogError) as error:
            prepare(record, now=NOW, fingerprint_key=KEY)
        assert error.value.code is Code.INVALID_RECORD
        assert error.value.detail.startswith("source.user_agent")


def test_internal_record_may_hold_python_values_of_json() -> None:
    record = RecordInput(
        action="a",
        actor=Actor(id="x"),
        severity=Severity.ERROR,
        metadata={"at": NOW, "tuple": (1.0, {"password": "p"}), 5: "five"},
    )
    stored = msgspec.json.decode(prepare(record, now=NOW, fingerprint_key=KEY).content)
    assert stored["metadata"] == {"at": "2026-11-22T12:00:00Z", "tuple": [1, {"password": MASK}], "5": "five"}
    assert stored["masked"] == ["/metadata/tuple/1/password"]


def test_nul_is_rejected_in_python_values() -> None:
    record = RecordInput(action="a", actor=Actor(id="x"), metadata=({"a": ("\0",)},))
    with pytest.raises(DecklogError, match=r"metadata\.a: contains U"):
        prepare(record, now=NOW, fingerprint_key=KEY)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_number_outside_json_is_rejected(value: float) -> None:
    with pytest.raises(DecklogError) as error:
        prepare(RecordInput(action="a", actor=Actor(id="x"), metadata=[value]), now=NOW, fingerprint_key=KEY)
    assert error.value.code is Code.INVALID_RECORD


# Time


def at(moment: datetime) -> dict[str, Any]:
    return {**SMALLEST, "occurred_at": moment.isoformat()}


def test_occurred_at_over_five_minutes_ahead_is_rejected() -> None:
    limit = NOW + timedelta(minutes=5)
    assert prepared(at(limit)).occurred_at == limit
    error = refusal(at(limit + timedelta(microseconds=1)))
    assert error.code is Code.INVALID_RECORD
    assert "occurred_at" in error.detail


def test_clock_skew_is_measured_across_offsets() -> None:
    assert prepared({**SMALLEST, "occurred_at": "2026-11-22T23:04:00+11:00"}).occurred_at == NOW + timedelta(minutes=4)
    assert refusal({**SMALLEST, "occurred_at": "2026-11-22T12:04:00-01:00"}).code is Code.INVALID_RECORD


@pytest.mark.parametrize("text", ["1969-07-20T20:17:40Z", "0002-01-01T00:00:00+23:59", "2023-07-10T11:42:36.123456Z"])
def test_occurred_at_long_ago_is_accepted(text: str) -> None:
    assert prepared({**SMALLEST, "occurred_at": text}).occurred_at == datetime.fromisoformat(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_occurred_at_outside_calendars_is_rejected(text: str) -> None:
    assert refusal({**SMALLEST, "occurred_at": text}).code is Code.INVALID_RECORD


# Fingerprints


def fingerprint(value: Any, **options: Any) -> bytes | None:
    return prepared(value, **options).fingerprint


def test_record_without_id_has_no_fingerprint() -> None:
    assert prepared(SMALLEST).fingerprint is None
    assert prepared(SMALLEST).id is None


def test_fingerprint_depends_on_the_key() -> None:
    assert fingerprint(FULL) == hmac.digest(KEY, canonical(FULL), "sha256")[:16]
    assert fingerprint(FULL) != fingerprint(FULL, fingerprint_key=b"another key of thirty-two bytes!!")


@pytest.mark.parametrize("length", [32, 63, 64, 65, 200])
def test_fingerprint_is_an_hmac_with_a_key_of_any_length(length: int) -> None:
    key = bytes(range(256))[:length]
    assert fingerprint(FULL, fingerprint_key=key) == hmac.digest(key, canonical(FULL), "sha256")[:16]


def test_fingerprint_ignores_defaults() -> None:
    sent = {**SMALLEST, "id": "x"}
    assert fingerprint(sent) == fingerprint(sent, now=NOW + timedelta(days=1))
    assert fingerprint(sent) != fingerprint({**sent, "severity": "INFO"})
    assert fingerprint(sent) != fingerprint({**sent, "outcome": "unknown"})
    assert fingerprint(sent) != fingerprint({**sent, "occurred_at": NOW.isoformat()})


def test_fingerprint_of_a_record_without_secrets_is_of_what_was_sent() -> None:
    sent = {**SMALLEST, "id": "x", "metadata": {"pin": "0413", "ratio": 1.0}}
    assert fingerprint(sent) == hmac.digest(KEY, canonical(sent), "sha256")[:16]


def test_no_part_of_a_prepared_record_depends_on_a_masked_pin() -> None:
    prepared_records = {
        (record.fingerprint, record.content, record.digest)
        for pin in range(10_000)
        if (record := prepared({**SMALLEST, "id": "x", "metadata": {"password": f"{pin:04}"}}))
    }
    assert len(prepared_records) == 1


def test_default_id_is_used_without_an_id() -> None:
    assert prepared(SMALLEST, default_id="k/0") == prepared({**SMALLEST, "id": "k/0"})
    assert prepared({**SMALLEST, "id": "own"}, default_id="k/0").id == "own"


@pytest.mark.parametrize("key", ["", "k" * 257, "k\0"])
def test_default_id_has_the_bounds_of_an_id(key: str) -> None:
    assert refusal(SMALLEST, default_id=key).code is Code.INVALID_RECORD


# Properties

full_records = st.fixed_dictionaries(
    {"action": texts.filter(bool), "actor": st.fixed_dictionaries({"id": texts.filter(bool)}, optional={"name": texts})},
    optional={
        "id": texts.filter(bool),
        "resource": st.fixed_dictionaries({"type": texts.filter(bool)}, optional={"id": texts}),
        "related": st.lists(st.fixed_dictionaries({"type": texts.filter(bool)}), max_size=2),
        "occurred_at": st.sampled_from(["2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000001+01:00"]),
        "severity": st.sampled_from([s.value for s in Severity]),
        "outcome": st.sampled_from([o.value for o in Outcome]),
        "message": texts,
        "source": st.fixed_dictionaries({}, optional={"ip": texts, "user_agent": texts}),
        "metadata": values | st.dictionaries(texts | st.sampled_from(["password", "Api-Key"]), values, max_size=4),
        "before": values,
        "after": st.dictionaries(texts | st.sampled_from(["cookie"]), values, max_size=4),
    },
)


def with_masks(sent: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The record with secrets masked, and the paths of the masked values."""
    masked: list[str] = []
    fields = [name for name in ("metadata", "before", "after") if name in sent]
    return {**sent, **{name: mask(sent[name], f"/{name}", masked) for name in fields}}, sorted(masked)


def as_defined(sent: dict[str, Any]) -> dict[str, Any]:
    """The expected content of a record, by a plain implementation."""
    stored, masked = with_masks({"occurred_at": "2026-11-22T12:00:00Z", "severity": "INFO", "outcome": "unknown", **sent})
    return {**stored, "masked": masked} if masked else stored


def with_other_secrets(value: Any, chance: random.Random, *, secret: bool = False) -> Any:
    """The value with other texts and numbers below secret names."""
    if isinstance(value, dict):
        return {
            key: with_other_secrets(item, chance, secret=secret or key in ("password", "Api-Key", "cookie"))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [with_other_secrets(item, chance, secret=secret) for item in value]
    if not secret or value is None or isinstance(value, bool):
        return value
    return chance.choice([chance.random(), chance.randrange(10**30), "x" * chance.randrange(100), "\ud7ff\ue000", MASK])


@given(full_records)
@settings(deadline=None, max_examples=examples(150))
def test_content_is_canonical_with_defaults_and_masks(sent: dict[str, Any]) -> None:
    record = prepared(sent)
    assert record.content == canonical(as_defined(sent))
    assert record.digest == hashlib.sha256(record.content).digest()
    expected = hmac.digest(KEY, canonical(with_masks(sent)[0]), "sha256")[:16] if "id" in sent else None
    assert record.fingerprint == expected


@given(full_records, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_respelled_record_has_the_same_fingerprint_and_content(sent: dict[str, Any], chance: random.Random) -> None:
    assert prepared(respelled(sent, chance).encode()) == prepared(sent)


@given(full_records, full_records)
@settings(deadline=None)
def test_fingerprint_differs_for_other_content(left: dict[str, Any], right: dict[str, Any]) -> None:
    left, right = {**left, "id": "x"}, {**right, "id": "x"}
    assert (fingerprint(left) == fingerprint(right)) == (canonical(with_masks(left)[0]) == canonical(with_masks(right)[0]))


@given(full_records, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_requests_that_differ_only_in_secrets_have_one_fingerprint_and_one_content(
    sent: dict[str, Any], chance: random.Random
) -> None:
    fields = [name for name in ("metadata", "before", "after") if name in sent]
    other: dict[str, Any] = {**sent, **{name: with_other_secrets(sent[name], chance) for name in fields}}
    assert prepared({**other, "id": "x"}) == prepared({**sent, "id": "x"})


@given(full_records | st.just({**FULL, "metadata": {"text": '"outcome":"unknown"', "outcome": "unknown"}}))
@settings(deadline=None, max_examples=examples(150))
def test_content_with_a_recorder_is_canonical_and_its_fingerprint_is_without(sent: dict[str, Any]) -> None:
    by = {"type": "jwt", "id": 'a"b', "issuer": "https://id.example", "ip": "192.0.2.1"}
    record = prepared(sent, recorder=recorder("jwt", 'a"b', "https://id.example", "192.0.2.1"))
    assert record.content == canonical({**as_defined(sent), "recorded_by": by})
    assert record.digest == hashlib.sha256(record.content).digest()
    assert record.fingerprint == prepared(sent).fingerprint


def test_recorder_replaces_what_no_record_can_hold() -> None:
    assert msgspec.json.decode(recorder("jwt", "a\0b\ud800", None, None)) == {"type": "jwt", "id": "a\ufffdb?"}
    assert len(recorder("jwt", "s" * 9_999, "i" * 9_999, "1" * 9_999)) < 4_000
