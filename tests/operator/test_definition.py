"""The definition of Tenant on a real API server: each rule accepts one object and rejects another."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml

from decklog.domain.tenancy.manifest import parse_manifest
from decklog.domain.tenancy.spec import RETENTION_CLASSES, TenantSpec
from decklog_operator.crd import custom_resource_definition
from tests.support.operators import ROOT, Json, Kubernetes

pytestmark = pytest.mark.xdist_group("kubernetes")  # some of its Tenants are real, and any operator may serve them

LONGEST = "a" * 40


def spec(**fields: Any) -> Json:
    return {"retention": {"days": 60}, **fields}


GOOD_NAMES = ["a", "acme", "a-1", "x1", LONGEST]
BAD_NAMES = [
    (LONGEST + "a", "at most 40 characters"),
    ("1acme", "start with a letter"),
    ("a.b", "made of a-z, 0-9 and '-'"),
    ("decklog", "reserved for the platform"),
]
GOOD_SPECS = [
    spec(),
    spec(retention={"days": 1}),
    spec(retention={"days": 3650}),
    spec(retention={"days": 30, "searchDays": 30}),
    spec(retention={"days": 30, "searchDays": 1}),
    spec(isolation="Shared", retention={"days": RETENTION_CLASSES[-1]}),
    spec(quotas={"eventsPerSecond": 5, "burst": 5}),
    spec(quotas={"eventsPerSecond": 10_000}),
    spec(quotas={"streams": 1_000}),
    spec(quotas={"bytesPerSecond": 65_536}),
    spec(quotas={"bytesPerSecond": 2**30}),
    spec(quotas={"eventsPerDay": 10_000}),
    spec(quotas={"eventsPerSecond": 5, "burst": 6, "eventsPerDay": 6}),
    spec(quotas={"storageGiB": 0.01}),
    spec(quotas={"storageGiB": 1_000_000}),
    spec(quotas={"queriesPerMinute": 1}),
    spec(quotas={"queriesPerMinute": 1_000_000}),
    spec(ingest={"recordBytesMax": 1_024}),
    spec(ingest={"recordBytesMax": 262_144}),
    spec(ingest={"dedupWindow": "999d"}),
    spec(ingest={"oversize": "Trim"}),
    spec(ask={"showRecords": True}),
    spec(displayName="d" * 128),
    spec(cell="default"),
    spec(cell="c" * 63),
    spec(queue={}),
    spec(queue={"visibilityTimeoutSeconds": 0, "messageRetentionSeconds": 60, "maxReceiveCount": 1}),
    spec(queue={"visibilityTimeoutSeconds": 43_200, "messageRetentionSeconds": 1_209_600, "maxReceiveCount": 1_000}),
    spec(driftPolicy="Report"),
    spec(adoptionPolicy="Refuse"),
    spec(deletionPolicy="Archive"),
    spec(retention={"days": 60, "archiveDays": 1}, deletionPolicy="Archive"),
    spec(retention={"days": 60, "archiveDays": 36_500}),
    spec(deletionPolicy="Delete"),
    spec(deletionProtection=False),
    spec(legalHold=True, deletionProtection=True),
    spec(credentials={"rotation": {}}),
    spec(credentials={"rotation": {"intervalDays": 0, "overlapHours": 720}}),
    spec(credentials={"rotation": {"intervalDays": 1, "overlapHours": 23}}),
    spec(credentials={"rotation": {"intervalDays": 365, "overlapHours": 0}}),
    spec(credentials={"rotation": {"intervalDays": 2}}),
]
BAD_SPECS = [
    ({}, "spec.retention: Required value"),
    (spec(retention={}), "spec.retention.days: Required value"),
    (spec(retention={"days": 0}), "greater than or equal to 1"),
    (spec(retention={"days": 3651}), "less than or equal to 3650"),
    (spec(retention={"days": "30"}), "must be of type integer"),
    (spec(retention={"days": 30, "searchDays": 31}), "spec.retention.searchDays must be at most spec.retention.days"),
    (spec(retention={"days": 30, "searchDays": 0}), "greater than or equal to 1"),
    (spec(retention={"days": 3650, "searchDays": 3651}), "less than or equal to 3650"),
    (spec(retention={"days": 60, "archiveDays": 0}), "greater than or equal to 1"),
    (spec(retention={"days": 60, "archiveDays": 36_501}), "less than or equal to 36500"),
    (spec(isolation="Private"), 'supported values: "Dedicated", "Shared"'),
    (spec(isolation="Shared", retention={"days": 2556}), "spec.retention.days of a Shared tenant may be at most 2555"),
    (spec(quotas={"eventsPerSecond": 6, "burst": 5}), "must be at least spec.quotas.eventsPerSecond"),
    (spec(quotas={"eventsPerSecond": 10_001}), "spec.quotas.burst (default 10000)"),
    (spec(quotas={"eventsPerSecond": 0}), "greater than or equal to 1"),
    (spec(quotas={"burst": 10_000_001}), "less than or equal to 10000000"),
    (spec(quotas={"eventsPerDay": 9_999}), "must be at least spec.quotas.burst (default 10000)"),
    (spec(quotas={"eventsPerDay": 10**12 + 1}), "less than or equal to 1000000000000"),
    (spec(quotas={"eventsPerDay": 0}), "greater than or equal to 1"),
    (spec(quotas={"storageGiB": 0.009}), "greater than or equal to 0.01"),
    (spec(quotas={"storageGiB": 1_000_001}), "less than or equal to 1000000"),
    (spec(quotas={"storageGiB": "10Gi"}), "must be of type number"),
    (spec(quotas={"queriesPerMinute": 0}), "greater than or equal to 1"),
    (spec(quotas={"queriesPerMinute": 1_000_001}), "less than or equal to 1000000"),
    (spec(quotas={"bytesPerSecond": 65_535}), "greater than or equal to 65536"),
    (spec(quotas={"bytesPerSecond": 2**30 + 1}), "less than or equal to 1073741824"),
    (spec(quotas={"streams": 0}), "greater than or equal to 1"),
    (spec(quotas={"streams": 1_001}), "less than or equal to 1000"),
    (spec(ingest={"recordBytesMax": 1_023}), "greater than or equal to 1024"),
    (spec(ingest={"recordBytesMax": 262_145}), "less than or equal to 262144"),
    (spec(ingest={"dedupWindow": "24"}), "should match"),
    (spec(ingest={"oversize": "trim"}), "Unsupported value"),
    (spec(ask={"showRecords": "yes"}), "must be of type boolean"),
    (spec(ingest={"dedupWindow": "1000d"}), "may not be more than 4"),
    (spec(displayName="d" * 129), "may not be more than 128"),
    (spec(cell="EU"), "should match"),
    (spec(cell=""), "should be at least 1 chars long"),
    (spec(cell="c" * 64), "may not be more than 63"),
    (spec(credentials={"secretNamespace": "Default"}), "should match"),
    (spec(credentials={"secretNamespace": "n" * 64}), "may not be more than 63"),
    (spec(credentials={"rotation": {"intervalDays": 366}}), "less than or equal to 365"),
    (spec(credentials={"rotation": {"intervalDays": -1}}), "greater than or equal to 0"),
    (spec(credentials={"rotation": {"overlapHours": 721}}), "less than or equal to 720"),
    (spec(credentials={"rotation": {"overlapHours": -1}}), "greater than or equal to 0"),
    (
        spec(credentials={"rotation": {"intervalDays": 2, "overlapHours": 48}}),
        "overlapHours (default 24) must be less",
    ),
    (spec(credentials={"rotation": {"intervalDays": 1}}), "overlapHours (default 24) must be less"),
    (spec(queue={"visibilityTimeoutSeconds": 43_201}), "less than or equal to 43200"),
    (spec(queue={"visibilityTimeoutSeconds": -1}), "greater than or equal to 0"),
    (spec(queue={"messageRetentionSeconds": 59}), "greater than or equal to 60"),
    (spec(queue={"messageRetentionSeconds": 1_209_601}), "less than or equal to 1209600"),
    (spec(queue={"maxReceiveCount": 0}), "greater than or equal to 1"),
    (spec(queue={"maxReceiveCount": 1_001}), "less than or equal to 1000"),
    (spec(isolation="Shared", queue={}), "spec.queue is for Dedicated tenants"),
    (spec(driftPolicy="Ignore"), 'supported values: "Repair", "Report"'),
    (spec(suspend="yes"), "must be of type boolean"),
    (spec(deletionPolicy="Drop"), 'supported values: "Archive", "Delete", "Retain"'),
    (spec(deletionProtection="no"), "must be of type boolean"),
    (spec(legalHold=1), "must be of type boolean"),
    (spec(adoptionPolicy="Take"), 'supported values: "Adopt", "Refuse"'),
    (spec(retentionDays=3), 'unknown field "spec.retentionDays"'),
]
CHANGES = [
    ({"retention": {"days": 60}}, {"retention": {"days": 3000}}, None),
    ({"isolation": "Shared", "retention": {"days": 60}}, {"retention": {"days": 31}}, None),
    ({"isolation": "Shared", "retention": {"days": 60}}, {"retention": {"days": 90}}, None),
    ({"isolation": "Shared", "retention": {"days": 60}}, {"retention": {"days": 30}}, "must stay within the class"),
    ({"isolation": "Shared", "retention": {"days": 60}}, {"retention": {"days": 91}}, "must stay within the class"),
    ({"isolation": "Shared", "retention": {"days": 2555}}, {"retention": {"days": 365}}, "must stay within the class"),
    ({"retention": {"days": 60}}, {"isolation": "Shared"}, "spec.isolation is immutable"),
    ({"isolation": "Shared", "retention": {"days": 60}}, {"isolation": None}, "spec.isolation is immutable"),
    ({"retention": {"days": 60}}, {"cell": "default"}, None),
    ({"retention": {"days": 60}}, {"cell": "eu-1"}, "spec.cell is immutable"),
    ({"cell": "eu-1", "retention": {"days": 60}}, {"cell": None}, "spec.cell is immutable"),
]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_definition_accepts_names_that_fit_every_backend(kubernetes: Kubernetes, name: str) -> None:
    kubernetes.apply(kubernetes.tenant(name), dry_run=True)


@pytest.mark.parametrize(("name", "complaint"), BAD_NAMES)
def test_definition_rejects_names_that_do_not_fit_every_backend(kubernetes: Kubernetes, name: str, complaint: str) -> None:
    object_ = yaml.safe_dump(kubernetes.tenant(name))
    assert complaint in kubernetes.refusal("apply", "--dry-run=server", "-f", "-", stdin=object_)


@pytest.mark.parametrize("good", GOOD_SPECS, ids=str)
def test_definition_accepts_specs_within_bounds(kubernetes: Kubernetes, good: Json) -> None:
    kubernetes.apply(kubernetes.tenant("bounds", good), dry_run=True)
    parse_manifest(kubernetes.tenant("bounds", good))


@pytest.mark.parametrize(("bad", "complaint"), BAD_SPECS, ids=str)
def test_definition_rejects_specs_out_of_bounds_with_the_reason(kubernetes: Kubernetes, bad: Json, complaint: str) -> None:
    object_ = yaml.safe_dump({**kubernetes.tenant("bounds"), "spec": bad})
    assert complaint in kubernetes.refusal("apply", "--dry-run=server", "-f", "-", stdin=object_)


@pytest.mark.parametrize(("before", "change", "complaint"), CHANGES, ids=str)
def test_definition_rejects_changes_of_immutable_fields(
    kubernetes: Kubernetes, before: Json, change: Json, complaint: str | None
) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name, before))
    if complaint is None:
        kubernetes.patch(name, {"spec": change}, "--dry-run=server")
        return
    words = ["patch", "tenant", name, "--type=merge", "--dry-run=server", "-p", msgspec.json.encode({"spec": change}).decode()]
    assert complaint in kubernetes.refusal(*words)


def test_definition_applies_the_domains_defaults_to_a_minimal_tenant(kubernetes: Kubernetes) -> None:
    name = kubernetes.name()
    kubernetes.apply({**kubernetes.tenant(name), "spec": {"retention": {"days": 30}}})
    stored = (kubernetes.get("tenant", name) or {})["spec"]
    assert (stored["deletionProtection"], stored["legalHold"]) == (True, False)
    assert msgspec.convert(stored, TenantSpec) == msgspec.convert({"retention": {"days": 30}}, TenantSpec)
    assert stored["quotas"] == {"eventsPerSecond": 1000, "burst": 10000, "streams": 50}
    assert stored["credentials"] == {"secretNamespace": "default", "rotation": {"intervalDays": 0, "overlapHours": 24}}


def test_status_is_ignored_when_written_with_the_spec(kubernetes: Kubernetes) -> None:
    name = kubernetes.name()
    kubernetes.apply({**kubernetes.tenant(name), "status": {"observedGeneration": 9, "conditions": []}})
    assert "status" not in (kubernetes.get("tenant", name) or {})


def test_kubectl_table_fits_120_characters_with_the_longest_values(kubernetes: Kubernetes) -> None:
    name = kubernetes.name("a" * (40 - len(kubernetes.name(""))))
    assert len(name) == 40
    kubernetes.apply(kubernetes.tenant(name, spec(isolation="Dedicated", retention={"days": 3650})))
    told = {"observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "No."}
    ready = {"type": "Ready", "status": "Unknown", "reason": "WaitingForDatabase", **told}
    kubernetes.patch(name, {"status": {"observedGeneration": 1, "conditions": [ready]}}, "--subresource=status")
    lines = kubernetes("get", "tenants", name).splitlines()
    assert "WaitingForDatabase" in lines[1]
    assert max(map(len, lines)) <= 120


def test_kubectl_explains_every_field_of_the_spec(kubernetes: Kubernetes) -> None:
    told = kubernetes("explain", "tenant.spec", "--recursive") + kubernetes("explain", "tenant.spec.quotas")
    for field in ("retention", "days", "isolation", "eventsPerSecond", "dedupWindow", "secretNamespace", "deletionPolicy"):
        assert field in told
    assert "Records per second that the tenant may append" in told


def _schemas(schema: Json, path: str = "") -> list[tuple[str, Json]]:
    found = [(path, schema)]
    for name, each in schema.get("properties", {}).items():
        found += _schemas(each, f"{path}.{name}")
    if "items" in schema:
        found += _schemas(schema["items"], f"{path}[]")
    return found


def _paths(value: Json, prefix: str = "") -> set[str]:
    """Yield the path of every given field, at any depth."""
    found = {f"{prefix}{name}" for name in value}
    return found.union(*(_paths(inner, f"{prefix}{name}.") for name, inner in value.items() if isinstance(inner, dict)))


def test_definition_describes_every_field_and_bounds_every_string_and_list() -> None:
    root = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for top in ("spec", "status"):
        for path, schema in _schemas(root["properties"][top], top):
            assert schema.get("description"), path
            assert schema["type"] != "string" or "maxLength" in schema or "enum" in schema, path
            assert schema["type"] != "array" or "maxItems" in schema, path
            assert schema["type"] != "integer" or "minimum" in schema, path
            assert not schema.keys() & {"$ref", "anyOf", "title", "additionalProperties"}, path


def test_examples_are_valid_and_use_every_field_and_both_isolations() -> None:
    used: set[str] = set()
    isolations = set()
    for path in sorted((ROOT / "manifests/examples").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            _, parsed = parse_manifest(document)
            isolations.add(parsed.isolation.value)
            used |= _paths(document["spec"])
    assert isolations == {"Dedicated", "Shared"}
    spec_schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    known = {path.removeprefix(".") for path, _ in _schemas(spec_schema) if path}
    assert used == known
