"""The status that kubectl shows, built from the result of provisioning."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from decklog.domain.archive.manifest import ArchivePlace, ArchiveSeen
from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenancy.status import (
    NAME_BLOCKED,
    READY,
    SYNCED,
    Drift,
    KeyStatus,
    Part,
    Rejected,
    TenantStatus,
    Usage,
    Verdict,
    conditions,
)
from decklog_operator import status as statuses

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 6, 1, 13, tzinfo=UTC)
ACME = Manifest("acme", "uid-1", 3, parse_spec({"retention": {"days": 30}, "credentials": {"secretNamespace": "keys"}}))
GOOD = Verdict("True", "Provisioned", "There.")
BAD = Verdict("False", "Unreachable", "Not there.")
KEYS = KeyStatus(3, "2026-07-01T12:00:00Z", "", "", LATER, LATER)


def found(*, registered: bool = True, keys: KeyStatus = KEYS, **verdicts: Verdict) -> TenantStatus:
    said = {READY: GOOD, **dict.fromkeys(Part, GOOD), SYNCED: GOOD, **verdicts}
    status = TenantStatus(conditions(said, 3, (), NOON), 3)
    if not registered:
        return status
    return replace(status, tenant_id=7, schema="t_acme", index="decklog-t-acme", queue="decklog-t-acme", keys=keys)


def test_status_of_a_ready_tenant_names_every_place() -> None:
    shown = statuses.of(ACME, found(), {})
    assert statuses.is_ready(shown)
    assert shown["observedGeneration"] == 3
    assert shown["conditions"][0]["type"] == "Ready"
    assert shown["database"] == {"schema": "t_acme", "tenantId": 7}
    assert shown["search"] == {"index": "decklog-t-acme"}
    assert shown["queue"] == {"name": "decklog-t-acme"}
    secret = {"namespace": "keys", "name": "acme-decklog"}
    assert shown["credentials"] == {"secret": secret, "revision": 3, "validUntil": "2026-07-01T12:00:00Z"}


def test_status_shows_overlap_and_handled_rotation_only_when_present() -> None:
    shown = statuses.of(ACME, found(keys=KeyStatus(4, "", "2026-06-02T12:00:00Z", "monday", None, LATER)), {})
    assert {**shown["credentials"], "secret": {}} == {
        "secret": {},
        "revision": 4,
        "overlapUntil": "2026-06-02T12:00:00Z",
        "rotated": "monday",
    }


def test_status_of_the_previous_version_still_names_the_secret() -> None:
    before = {"credentials": {"secret": {"namespace": "old", "name": "acme-decklog"}}}
    assert statuses.secret_namespace(before) == "old"


def test_status_equals_itself_after_a_kubernetes_round_trip() -> None:
    shown = statuses.of(ACME, found(), {})
    returned = json.loads(json.dumps(shown, sort_keys=True))
    assert statuses.of(ACME, found(), returned) == returned


def test_status_omits_backends_that_are_not_configured() -> None:
    absent = Verdict("True", "NotConfigured", "Postgres searches.")
    shown = statuses.of(ACME, found(SearchReady=absent, QueueReady=absent), {"search": {"index": "old"}})
    assert "search" not in shown
    assert "queue" not in shown


def test_status_keeps_places_while_the_registry_is_unavailable() -> None:
    before = statuses.of(ACME, found(), {})
    shown = statuses.of(ACME, found(registered=False, Ready=BAD, DatabaseReady=BAD, CredentialsReady=BAD), before)
    assert not statuses.is_ready(shown)
    places: list[Any] = [(name, before[name]) for name in ("database", "search", "queue", "credentials")]
    assert [(name, shown[name]) for name, _ in places] == places


def test_failed_visit_keeps_known_conditions_and_gives_the_reason() -> None:
    before = statuses.of(ACME, found(), {})
    error = DecklogError(Code.INVALID_TENANT, "spec: no.")
    shown = statuses.failed(4, error, before, LATER)
    ready = statuses.ready_condition(shown)
    assert ready is not None
    assert (ready.status, ready.reason, ready.message) == ("False", "InvalidTenant", "spec: no.")
    assert (ready.observed_generation, ready.last_transition_time) == (4, "2026-06-01T13:00:00Z")
    assert [condition.type for condition in statuses.conditions(shown)] == [READY, *Part, SYNCED]
    assert shown["database"] == before["database"]
    assert statuses.failed(4, error, shown, datetime.now(UTC)) == shown


def test_malformed_status_is_treated_as_absent() -> None:
    spoiled = {"conditions": [{"type": "Ready", "status": "Maybe"}], "credentials": {"secret": 1}}
    assert statuses.conditions(spoiled) == ()
    assert statuses.ready_condition(spoiled) is None
    assert statuses.secret_namespace(spoiled) is None


def test_events_of_self_resolving_conditions_are_normal() -> None:
    before = statuses.of(ACME, found(), {})
    for reason, kind in ((NAME_BLOCKED, "Normal"), ("Unreachable", "Warning")):
        waiting = Verdict("False", reason, "In a minute.")
        after = statuses.of(ACME, found(QueueReady=waiting), before)
        assert [(told.kind, told.reason) for told in statuses.events(after, before)] == [(kind, reason)]


def test_exceeded_quota_posts_a_warning_and_does_not_affect_readiness() -> None:
    within, over = Verdict("False", "WithinQuota", "Room."), Verdict("True", "StorageUsedUp", "No room.")
    before = statuses.of(ACME, found(QuotaExceeded=within), {})
    after = statuses.of(ACME, found(QuotaExceeded=over), before)
    [told] = statuses.events(after, before)
    assert (told.kind, told.reason, told.message) == ("Warning", "StorageUsedUp", "QuotaExceeded is True: No room.")
    [lifted] = statuses.events(before, after)
    assert (lifted.kind, lifted.reason) == ("Normal", "WithinQuota")
    drifted = Verdict("True", "Drifted", "Changed.")
    for quota in (within, over):
        waiting = found(QuotaExceeded=quota, DatabaseReady=drifted, Synced=Verdict("False", "Drifted", "Changed."))
        assert statuses.refused(statuses.of(ACME, waiting, {}))
        assert not statuses.refused(statuses.of(ACME, found(QuotaExceeded=quota), {}))


def test_drift_is_counted_once_however_often_it_is_seen() -> None:
    def shown(before: dict[str, Any], names: tuple[str, ...], repaired: int, *, standing: bool, at: str) -> dict[str, Any]:
        return statuses.of(ACME, replace(found(), drift=Drift(names, repaired, standing, at)), before)

    first = shown({}, ("RedrivePolicy",), 0, standing=True, at="1")
    assert first["drift"] == {
        "detected": 1,
        "repairs": 0,
        "fields": ["RedrivePolicy"],
        "standing": True,
        "observedAt": "1",
    }
    assert shown(first, ("RedrivePolicy",), 0, standing=True, at="2") == first
    more = shown(first, ("RedrivePolicy", "index"), 0, standing=True, at="3")
    assert (more["drift"]["detected"], more["drift"]["observedAt"]) == (2, "3")
    put_right = shown(more, ("RedrivePolicy", "index"), 2, standing=False, at="4")
    assert put_right["drift"] == {
        "detected": 2,
        "repairs": 2,
        "fields": ["RedrivePolicy", "index"],
        "standing": False,
        "observedAt": "4",
        "lastRepairedAt": "4",
    }
    assert shown(put_right, (), 0, standing=False, at="5") == put_right
    assert statuses.of(ACME, replace(found(), drift=None), put_right) == put_right
    again = shown(put_right, ("index",), 1, standing=False, at="6")
    assert (again["drift"]["detected"], again["drift"]["repairs"]) == (3, 3)


def test_usage_is_written_at_intervals_and_only_when_it_changed() -> None:
    def at(minutes: int, records: int, *, size: int = 1_000, lag: int | None = 0) -> Usage:
        return Usage(records, size, 4, lag, NOON + timedelta(minutes=minutes))

    def shown(before: dict[str, Any], usage: Usage | None, earlier: Usage | None = None) -> dict[str, Any]:
        return statuses.of(ACME, replace(found(), usage=usage), before, earlier)

    first = shown({}, at(0, 100))
    assert first["usage"] == {
        "records": 100,
        "storageBytes": 1_000,
        "observedAt": "2026-06-01T12:00:00Z",
        "queueDepth": 4,
        "searchLag": 0,
    }
    for same in (None, at(0, 900), at(5, 100), at(600, 104)):
        assert shown(first, same) == first
    busy = shown(first, at(5, 3_100, lag=None))
    assert "searchLag" not in busy["usage"]
    assert (busy["usage"]["records"], busy["usage"]["recordsPerSecond"]) == (3_100, 10)
    assert json.loads(json.dumps(busy)) == busy
    idle = shown(busy, at(10, 3_100, lag=None))
    assert idle["usage"]["recordsPerSecond"] == 0
    assert shown(idle, at(15, 3_100, lag=None)) == idle
    # The next rate is computed from the last observation, even if it was not written.
    again = shown(idle, at(610, 4_900, lag=None), at(605, 3_100, lag=None))
    assert again["usage"]["recordsPerSecond"] == 6
    assert shown({"usage": {"records": "many"}}, at(0, 100)) == first


def test_usage_shows_rejected_records_and_the_last_reason_once_there_is_one() -> None:
    rejected = Rejected(3, NOON, "invalid-record")
    before = statuses.of(ACME, replace(found(), usage=Usage(100, 1_000, None, None, NOON)), {})
    usage = Usage(100, 1_000, None, None, NOON + timedelta(minutes=10), rejected)
    shown = statuses.of(ACME, replace(found(), usage=usage), before)["usage"]
    assert "rejectedRecords" not in before["usage"]
    assert (shown["rejectedRecords"], shown["lastRejectedAt"], shown["lastRejectedReason"]) == (
        3,
        "2026-06-01T12:00:00Z",
        "invalid-record",
    )


def test_drift_fixed_by_hand_stands_no_longer_and_names_are_bounded() -> None:
    standing = statuses.of(ACME, replace(found(), drift=Drift(("policy " + "x" * 500,), 0, standing=True, at="1")), {})
    assert len(standing["drift"]["fields"][0]) == 128
    gone = statuses.of(ACME, replace(found(), drift=Drift((), 0, standing=False, at="2")), standing)
    assert gone["drift"] == {**standing["drift"], "standing": False}
    assert "drift" not in statuses.of(ACME, replace(found(), drift=Drift((), 0, standing=False, at="2")), {})


def test_status_shows_archive_place_and_progress_only_with_an_archive() -> None:
    place = ArchivePlace("s3://evidence", locked=True)
    available = replace(found(ArchiveReady=GOOD), archive=ArchiveSeen(place))
    shown = statuses.of(ACME, available, {})
    assert shown["archive"] == {"place": "s3://evidence", "locked": True}
    half = replace(available, archive=ArchiveSeen(place, records=9, archived=4))
    assert statuses.of(ACME, half, shown)["archive"] == {"place": "s3://evidence", "locked": True, "records": 4}
    whole = statuses.of(ACME, replace(available, archive=ArchiveSeen(place, 9, 9, "acme/uid/manifest-8-1.json")), shown)[
        "archive"
    ]
    assert (whole["records"], whole["manifest"]) == (9, "acme/uid/manifest-8-1.json")
    unseen = statuses.of(ACME, found(registered=False, DatabaseReady=BAD, ArchiveReady=BAD), shown)
    assert unseen["archive"] == shown["archive"]
    gone = Verdict("False", "NoArchive", "No worker tells of one.")
    assert "archive" not in statuses.of(ACME, replace(found(ArchiveReady=gone), archive=ArchiveSeen()), shown)
    assert "archive" not in statuses.of(ACME, found(), shown)
