"""Reading of foreign events: values of any type are accepted, and nothing is lost."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.intake import cloudtrail, kubernetes_audit
from decklog.domain.intake.foreign_event import REPLACEMENT, NotAnEventError, fingerprint, moment, resources, storable, text
from decklog.domain.records.record import RELATED_MAX, Resource
from tests.support import real_events
from tests.support.records import stored

anything = st.recursive(
    st.none() | st.integers() | st.text(st.characters(), max_size=6) | st.text("\0\ud800\udfffa\ufffd", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("\0\ud800a\ufffd", max_size=3), inner, max_size=4),
    max_leaves=10,
)


def count_paths(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(count_paths, value.values()))
    return 1 + sum(map(count_paths, value)) if isinstance(value, list) else 1


@given(anything)
@settings(deadline=None)
def test_storable_result_can_be_stored_and_keeps_every_path(value: Any) -> None:
    clean, replaced = storable(value)
    again, more = storable(clean)
    assert again == clean
    assert more == 0
    assert count_paths(clean) == count_paths(value)
    assert (replaced == 0) == (clean == value)


def test_storable_replaces_unstorable_characters() -> None:
    assert storable({"a": ["x\0y", "\ud83d"], "b\0": "😀"}) == (
        {"a": [f"x{REPLACEMENT}y", REPLACEMENT], f"b{REPLACEMENT}": "😀"},
        3,
    )


def test_storable_keeps_names_apart_that_differ_in_replaced_characters() -> None:
    lone = chr(0xD800)
    clean, _ = storable({"a\0": 1, f"a{lone}": 2, "a\ufffd": 3})
    assert sorted(clean.values()) == [1, 2, 3]
    assert clean["a\ufffd"] == 3


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2023-07-10T11:42:36Z", "2023-07-10T11:42:36Z"),
        ("2023-07-10T11:42:36.123456789Z", "2023-07-10T11:42:36.123456789Z"),
        ("2023-07-10 11:42:36.5", "2023-07-10T11:42:36.5Z"),
        ("2023-07-10t13:42:36+0200", "2023-07-10T13:42:36+02:00"),
    ],
)
def test_moment_reads_times_of_audit_logs(written: str, expected: str) -> None:
    assert moment(written, "eventTime") == expected


@pytest.mark.parametrize(
    "written", [5, "", "redacted", "2023-07-10", "2023-W28-1", "2023-13-10T11:42:36Z", "٢٠٢٣-07-10T11:42:36Z"]
)
def test_moment_rejects_other_values_with_the_name_of_the_member(written: Any) -> None:
    with pytest.raises(NotAnEventError, match="its eventTime is not a time"):
        moment(written, "eventTime")


def test_moment_names_a_missing_time_as_missing() -> None:
    with pytest.raises(NotAnEventError, match="it has no eventTime"):
        moment(None, "eventTime")


def test_text_cuts_strings_and_returns_none_for_other_values() -> None:
    assert text("abc", 2) == "ab"
    assert [text(value, 2) for value in (None, "", 5, ["a"], {"a": 1})] == [None] * 5


def test_fingerprint_ignores_the_spelling_of_json() -> None:
    assert fingerprint({"a": 1, "b": 2.0}, 16) == fingerprint({"b": 2, "a": 1}, 16)
    assert fingerprint({"a": 1}, 16) != fingerprint({"a": 2}, 16)
    assert len(fingerprint({}, 16)) == 16


def test_fingerprint_does_not_depend_on_secrets() -> None:
    assert fingerprint({"request": {"password": "0413"}}, 32) == fingerprint({"request": {"password": "1984"}}, 32)


def test_kubernetes_id_does_not_depend_on_the_content_of_a_secret() -> None:
    def of(value: str) -> str | None:
        event = {
            "auditID": "a",
            "verb": "create",
            "objectRef": {"resource": "secrets"},
            "requestObject": {"data": {"pin": value}},
        }
        return kubernetes_audit.record({**event, "stageTimestamp": "2026-01-31T12:00:00Z"}).id

    assert of("MDQxMw==") == of("MTk4NA==")


def test_resources_returns_the_first_and_the_other_distinct_ones() -> None:
    a, b = Resource(type="a"), Resource(type="b")
    assert resources([None, a, b, a, None]) == (a, [b])
    assert resources([a]) == (a, None)
    assert resources([]) == (None, None)
    _, related = resources(Resource(type="t", id=str(number)) for number in range(500))
    assert related is not None
    assert len(related) == RELATED_MAX


@pytest.mark.parametrize("mapping", [cloudtrail, kubernetes_audit])
def test_mapping_returns_a_storable_record_or_a_reason_for_events_of_any_source(mapping: ModuleType) -> None:
    made = 0
    for test in real_events.values("panther_rule_tests.ndjson.gz"):
        try:
            mapped = mapping.record(test["log"])
        except NotAnEventError:
            continue
        stored(mapped)
        made += 1
    assert made > {cloudtrail: 400, kubernetes_audit: 10}[mapping]
