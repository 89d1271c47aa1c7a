"""From what provisioning found to what kubectl shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from decklog.domain.errors import Code, DecklogError
from decklog.domain.status import READY, SYNCED, Part, TenantStatus, Verdict, conditions
from decklog.domain.tenant import Manifest, parse_spec
from decklog_operator import status as statuses

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 6, 1, 13, tzinfo=UTC)
ACME = Manifest("acme", "uid-1", 3, parse_spec({"retention": {"days": 30}, "credentials": {"secretNamespace": "keys"}}))
GOOD = Verdict("True", "Provisioned", "There.")
BAD = Verdict("False", "Unreachable", "Not there.")


def found(*, registered: bool = True, **verdicts: Verdict) -> TenantStatus:
    said = {READY: GOOD, **dict.fromkeys(Part, GOOD), SYNCED: GOOD, **verdicts}
    names = (7, "t_acme", "decklog-t-acme", "decklog-t-acme") if registered else ()
    return TenantStatus(conditions(said, 3, (), NOON), 3, *names)


def test_a_ready_tenant_shows_where_everything_is() -> None:
    shown = statuses.of(ACME, found(), {})
    assert statuses.is_ready(shown)
    assert shown["observedGeneration"] == 3
    assert shown["conditions"][0]["type"] == "Ready"
    assert shown["database"] == {"schema": "t_acme", "tenantId": 7}
    assert shown["search"] == {"index": "decklog-t-acme"}
    assert shown["queue"] == {"name": "decklog-t-acme"}
    assert shown["credentials"] == {"secret": {"namespace": "keys", "name": "acme-decklog"}}


def test_a_status_that_comes_back_from_kubernetes_counts_as_unchanged() -> None:
    shown = statuses.of(ACME, found(), {})
    returned = json.loads(json.dumps(shown, sort_keys=True))
    assert statuses.of(ACME, found(), returned) == returned


def test_a_backend_that_is_not_configured_has_no_place() -> None:
    absent = Verdict("True", "NotConfigured", "Postgres searches.")
    shown = statuses.of(ACME, found(SearchReady=absent, QueueReady=absent), {"search": {"index": "old"}})
    assert "search" not in shown
    assert "queue" not in shown


def test_while_the_registry_cannot_be_asked_places_stay_as_they_were_told() -> None:
    before = statuses.of(ACME, found(), {})
    shown = statuses.of(ACME, found(registered=False, Ready=BAD, DatabaseReady=BAD, CredentialsReady=BAD), before)
    assert not statuses.is_ready(shown)
    places: list[Any] = [(name, before[name]) for name in ("database", "search", "queue", "credentials")]
    assert [(name, shown[name]) for name, _ in places] == places


def test_a_failed_visit_keeps_what_was_known_and_says_why_it_failed() -> None:
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


def test_a_status_that_somebody_spoiled_counts_as_none() -> None:
    spoiled = {"conditions": [{"type": "Ready", "status": "Maybe"}], "credentials": {"secret": 1}}
    assert statuses.conditions(spoiled) == ()
    assert statuses.ready_condition(spoiled) is None
    assert statuses.secret_namespace(spoiled) is None
