"""Specs are validated by field, and names derived from tenants never collide."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.manifest import API_VERSION, KIND, parse_manifest
from decklog.domain.tenancy.names import NAME_CHARS_MAX, check_name, index_name, queue_name, schema_name
from decklog.domain.tenancy.parts.database import partition_days
from decklog.domain.tenancy.spec import RETENTION_CLASSES, TenantSpec, parse_spec, retention_class, seconds, spec_changes
from decklog.domain.tenant import Isolation

DLQ = "-dlq"

names = st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
specs = st.builds(
    lambda shared, days: parse_spec({"isolation": "Shared" if shared else "Dedicated", "retention": {"days": days}}),
    st.booleans(),
    st.integers(1, RETENTION_CLASSES[-1]),
)


def spec_of(**changes: Any) -> TenantSpec:
    return parse_spec({"retention": {"days": 30}, **changes})


def refusal(value: Any) -> str:
    with pytest.raises(DecklogError) as error:
        parse_spec(value)
    assert error.value.code is Code.INVALID_TENANT
    return error.value.detail


def test_parse_manifest_accepts_name_and_days_only() -> None:
    name, spec = parse_manifest(
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "acme"}, "spec": {"retention": {"days": 90}}}
    )
    assert name == "acme"
    assert spec.isolation is Isolation.DEDICATED
    assert spec.retention.days == 90


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"apiVersion": "v1", "kind": "Tenant"},
        {"apiVersion": API_VERSION, "kind": "Pod"},
        {"apiVersion": API_VERSION, "kind": KIND},
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": 5}},
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "acme"}},
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "Acme"}, "spec": {"retention": {"days": 1}}},
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "decklog"}, "spec": {"retention": {"days": 1}}},
    ],
)
def test_parse_manifest_rejects_other_documents(value: Any) -> None:
    with pytest.raises(DecklogError) as error:
        parse_manifest(value)
    assert error.value.code is Code.INVALID_TENANT


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, "spec"),
        ({}, "retention"),
        ({"retention": {"days": 0}}, "retention.days"),
        ({"retention": {"days": 3651}}, "retention.days"),
        ({"retention": {"days": "30"}}, "retention.days"),
        ({"retention": {"days": 30, "searchDays": 31}}, "retention.searchDays"),
        ({"retention": {"days": 30}, "tier": "gold"}, "tier"),
        ({"retention": {"days": 30}, "quotas": {"burst": 5}}, "burst"),
        ({"retention": {"days": 30}, "quotas": {"eventsPerSecond": 0}}, "quotas.eventsPerSecond"),
        ({"retention": {"days": 30}, "quotas": {"streams": 0}}, "quotas.streams"),
        ({"retention": {"days": 30}, "quotas": {"bytesPerSecond": 1_000}}, "quotas.bytesPerSecond"),
        ({"retention": {"days": 30}, "quotas": {"eventsPerDay": 9_999}}, "quotas.eventsPerDay"),
        ({"retention": {"days": 30}, "quotas": {"queriesPerMinute": 0}}, "quotas.queriesPerMinute"),
        ({"retention": {"days": 30}, "quotas": {"storageGiB": 0}}, "quotas.storageGiB"),
        ({"retention": {"days": 30}, "quotas": {"storageGiB": float("nan")}}, "quotas.storageGiB"),
        ({"retention": {"days": 30}, "ingest": {"recordBytesMax": 2**18 + 1}}, "ingest.recordBytesMax"),
        ({"retention": {"days": 30}, "ingest": {"oversize": "trim"}}, "ingest.oversize"),
        ({"retention": {"days": 30}, "isolation": "shared"}, "isolation"),
        ({"retention": {"days": 2556}, "isolation": "Shared"}, "retention.days"),
        ({"retention": {"days": 30}, "ingest": {"dedupWindow": "24"}}, "ingest.dedupWindow"),
        ({"retention": {"days": 30}, "ingest": {"dedupWindow": "24h\n"}}, "ingest.dedupWindow"),
        ({"retention": {"days": 30}, "credentials": {"secretNamespace": "Default"}}, "credentials.secretNamespace"),
        ({"retention": {"days": 30}, "credentials": {"secretNamespace": "default\n"}}, "credentials.secretNamespace"),
        ({"retention": {"days": 30}, "displayName": "a\0"}, "displayName"),
        ({"retention": {"days": 30}, "cell": "EU"}, "cell"),
        ({"retention": {"days": 30}, "cell": "eu\n"}, "cell"),
        ({"retention": {"days": 30}, "displayName": "\udc80"}, "displayName"),
        ({"retention": {"days": 30}, "deletionPolicy": "Drop"}, "deletionPolicy"),
        ({"retention": {"days": 30}, "adoptionPolicy": "adopt"}, "adoptionPolicy"),
        ({"retention": {"days": 30}, "legalHold": "yes"}, "legalHold"),
    ],
)
def test_parse_spec_names_the_invalid_field(value: Any, field: str) -> None:
    assert field in refusal(value)


def test_spec_changes_names_paths_as_in_a_manifest() -> None:
    assert spec_changes(spec_of(), spec_of()) == ()
    assert spec_changes(spec_of(), spec_of(ingest={"dedupWindow": "24h"})) == ()
    after = spec_of(retention={"days": 31}, displayName="A", quotas={"burst": 20_000})
    assert set(spec_changes(spec_of(), after)) == {"retention.days", "displayName", "quotas.burst"}


@pytest.mark.parametrize("name", ["a", "acme", "a-b", "a1", "a" * NAME_CHARS_MAX])
def test_check_name_accepts_lower_case_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "-a", "a-", "a_b", "a.b", "a\n", "é", "a" * (NAME_CHARS_MAX + 1), 'a"; --'])
def test_check_name_rejects_other_names(name: str) -> None:
    with pytest.raises(DecklogError) as error:
        check_name(name)
    assert error.value.code is Code.INVALID_TENANT


@given(names, specs)
@settings(deadline=None)
def test_derived_names_fit_the_limits_of_backends(name: str, spec: TenantSpec) -> None:
    check_name(name)
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,62}", schema_name(name, spec))
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,254}", index_name(name, spec))
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", queue_name(name, spec) + DLQ)


@given(names, names, st.integers(1, 3650), st.integers(1, 3650))
@settings(deadline=None)
def test_derived_names_differ_between_dedicated_tenants(left: str, right: str, days: int, other_days: int) -> None:
    one, other = spec_of(retention={"days": days}), spec_of(retention={"days": other_days})
    for made in (schema_name, index_name, queue_name):
        assert (made(left, one) == made(right, other)) == (left == right)


@given(names, names, specs)
@settings(deadline=None)
def test_derived_names_differ_between_dedicated_and_shared_tenants(left: str, right: str, spec: TenantSpec) -> None:
    dedicated, shared = spec_of(), spec_of(isolation="Shared", retention={"days": spec.retention.days})
    for made in (schema_name, index_name, queue_name):
        assert made(left, dedicated) != made(right, shared)


@given(names, names, specs, specs)
@settings(deadline=None)
def test_queue_name_is_never_a_dead_letter_queue(left: str, right: str, one: TenantSpec, other: TenantSpec) -> None:
    assert queue_name(left, one) != queue_name(right, other) + DLQ


def test_queue_name_of_tenant_ending_in_dlq_is_no_dead_letter_queue() -> None:
    assert queue_name("acme-dlq", spec_of()) != queue_name("acme", spec_of()) + DLQ


@given(names, names, st.integers(1, RETENTION_CLASSES[-1]), st.integers(1, RETENTION_CLASSES[-1]))
@settings(deadline=None)
def test_derived_names_are_equal_within_a_retention_class(left: str, right: str, days: int, other_days: int) -> None:
    one, other = (spec_of(isolation="Shared", retention={"days": value}) for value in (days, other_days))
    for made in (schema_name, index_name, queue_name):
        assert (made(left, one) == made(right, other)) == (retention_class(days) == retention_class(other_days))


@given(st.integers(1, RETENTION_CLASSES[-1]))
@settings(deadline=None)
def test_retention_class_is_the_smallest_that_covers_the_days(days: int) -> None:
    found = retention_class(days)
    assert found >= days
    assert not any(days <= smaller < found for smaller in RETENTION_CLASSES)


def test_retention_class_rejects_days_over_the_largest() -> None:
    with pytest.raises(DecklogError) as error:
        retention_class(RETENTION_CLASSES[-1] + 1)
    assert error.value.code is Code.INVALID_TENANT


@pytest.mark.parametrize(("text", "expected"), [("30m", 1_800), ("24h", 86_400), ("7d", 604_800), ("1m", 60)])
def test_seconds_parses_durations(text: str, expected: int) -> None:
    assert seconds(text) == expected
    assert spec_of(ingest={"dedupWindow": text}).ingest.dedup_window == text


@given(st.integers(1, 3650))
@settings(deadline=None)
def test_partition_days_bound_the_number_of_partitions(days: int) -> None:
    span = partition_days(days)
    assert 1 <= span <= days or days == 1
    assert days / span <= 125
