"""When a Tenant is visited and when not: the annotations for it, refusals that need a user, and the Events about them."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenancy.status import QUOTA_EXCEEDED, READY, SYNCED, Part, TenantStatus, Verdict, conditions
from decklog_operator import status as statuses
from decklog_operator.names import FINALIZER
from decklog_operator.reconcile import Reconciler
from decklog_operator.settings import OperatorSettings
from tests.operator.test_tenant import events_of, passes
from tests.support import virtual_time
from tests.support.operators import Json, Kubernetes, Operator, until
from tests.support.provisioning import FolderProvisioner

pytestmark = pytest.mark.xdist_group("kubernetes")

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
GOOD = Verdict("True", "Good", "Good.")
PAUSE, RECONCILE = "decklog.dev/paused", "decklog.dev/reconcile"


def body(annotations: Json | None = None, **metadata: Any) -> Json:
    told = {"name": "acme", "uid": "uid-1", "generation": 1, "resourceVersion": "1", "finalizers": [FINALIZER]}
    return {"metadata": {**told, "annotations": annotations or {}, **metadata}, "spec": {"retention": {"days": 30}}}


class World:
    """Provisioning with given results, and a cluster that records writes, with their own clock."""

    def __init__(self) -> None:
        self.said: dict[str, Verdict] = {}
        self.visits = self.removals = 0
        self.status: Json = {}
        self.writes = 0
        self.events: list[tuple[str, str, str]] = []
        self.now = NOON
        settings = OperatorSettings(resync_seconds=300, retry_max_seconds=60)
        self.reconciler = Reconciler(self, self, settings, clock=lambda: self.now)  # type: ignore[arg-type]

    async def reconcile(self, manifest: Manifest, vault: Any, previous: Any = ()) -> TenantStatus:
        self.visits += 1
        said = {READY: GOOD, **dict.fromkeys(Part, GOOD), SYNCED: GOOD, **self.said}
        return TenantStatus(conditions(said, manifest.generation, previous, self.now), manifest.generation)

    async def remove(self, manifest: Manifest, vault: Any = None, previous: Any = ()) -> TenantStatus:
        self.removals += 1
        return await self.reconcile(manifest, None, previous)

    async def ensure_platform_tenant(self) -> TenantStatus:
        return await self.reconcile(Manifest("decklog", "uid-0", 1, parse_spec({"retention": {"days": 365}})), None)

    async def apply_status(self, name: str, uid: str, status: Json) -> str:
        self.status, self.writes = status, self.writes + 1
        return "2"

    async def post_event(self, *, kind: str, reason: str, message: str, **_: Any) -> None:
        self.events.append((kind, reason, message))

    async def read_secret(self, namespace: str, name: str) -> None:
        return None

    async def visit(self, annotations: Json | None = None, **metadata: Any) -> float:
        return await self.reconciler.visit({**body(annotations, **metadata), "status": self.status})

    def told(self, kind: str) -> tuple[str, str]:
        [found] = [each for each in statuses.conditions(self.status) if each.type == kind]
        return found.status, found.reason


async def test_paused_tenant_is_left_alone_and_reported_once() -> None:
    world = World()
    await world.visit()
    before = world.status
    for _ in range(3):
        assert await world.visit({PAUSE: "true"}, generation=2) >= 240
    assert (world.visits, world.writes) == (1, 2)
    assert world.told(SYNCED) == ("False", "Paused")
    assert (world.told(READY), world.status["observedGeneration"]) == (("True", "Good"), 1)
    assert world.events[-1][:2] == ("Normal", "Paused")
    assert PAUSE in world.events[-1][2]
    await world.visit(generation=2)
    assert (world.told(SYNCED), world.status["observedGeneration"]) == (("True", "Good"), 2)
    assert [each[:2] for each in world.events] == [("Normal", "Good"), ("Normal", "Paused"), ("Normal", "Good")]
    assert before["conditions"][0]["lastTransitionTime"] == world.status["conditions"][0]["lastTransitionTime"]


async def test_tenant_paused_from_creation_reports_all_conditions() -> None:
    world = World()
    await world.visit({PAUSE: "true"})
    assert [each.type for each in statuses.conditions(world.status)] == [READY, *Part, QUOTA_EXCEEDED, SYNCED]
    assert {each.reason for each in statuses.conditions(world.status)} == {"Paused"}
    assert world.status["observedGeneration"] == 0


async def test_pause_annotation_works_only_with_the_value_true() -> None:
    world = World()
    for value in ("false", "", "True", "yes"):
        await world.visit({PAUSE: value})
    assert world.visits == 4


async def test_deletion_waits_while_the_tenant_is_paused() -> None:
    world = World()
    await world.visit()
    deleted: Json = {"deletionTimestamp": "2026-06-01T12:00:00Z"}
    for _ in range(2):
        paused = {**body({PAUSE: "true"}, **deleted), "status": world.status}
        assert await world.reconciler.release(paused) == 15
    assert (world.removals, world.writes) == (0, 2)
    assert world.told(SYNCED) == ("False", "Paused")
    assert "the deletion waits" in world.status["conditions"][-1]["message"]
    assert await world.reconciler.release({**body(**deleted), "status": world.status}) is None
    assert world.removals == 1


async def test_reconcile_annotation_is_echoed_and_cleared_with_it() -> None:
    world = World()
    await world.visit({RECONCILE: "monday"})
    assert world.status["lastHandledReconcileAt"] == "monday"
    assert not world.reconciler.notice(body({RECONCILE: "monday"}), gone=False, listed=False)
    assert world.reconciler.notice(body({RECONCILE: "tuesday"}), gone=False, listed=False)
    world.said = {Part.SEARCH: Verdict("False", "Unreachable", "No."), SYNCED: Verdict("False", "Unreachable", "No.")}
    await world.visit({RECONCILE: "t" * 100})
    assert world.status["lastHandledReconcileAt"] == "t" * 64
    await world.visit()
    assert "lastHandledReconcileAt" not in world.status


@pytest.mark.parametrize("reason", ["Conflict", "Immutable", "InvalidSpec", "TooManyDedicated", "Drifted"])
async def test_terminal_refusal_is_not_retried_before_the_next_resync(reason: str) -> None:
    world = World()
    refused = Verdict("False", reason, "No.")
    world.said = dict.fromkeys((READY, SYNCED), refused) | dict.fromkeys(Part, Verdict("Unknown", reason, "See Synced."))
    for _ in range(3):
        assert 240 <= await world.visit() <= 360


async def test_drift_of_one_part_does_not_reset_the_backoff_of_another() -> None:
    world = World()
    world.said = {READY: Verdict("False", "NotReady", "No."), SYNCED: Verdict("False", "Drifted", "No.")}
    world.said[Part.QUEUE] = Verdict("False", "Drifted", "No.")
    assert await world.visit() >= 240
    world.said[Part.SEARCH] = Verdict("False", "Unreachable", "No.")
    pauses = [await world.visit() for _ in range(12)]
    assert pauses[0] <= 1.2
    assert all(later > earlier for earlier, later in itertools.pairwise(pauses[:6]))
    assert 48 <= pauses[-1] <= 72


async def test_invalid_spec_waits_for_an_edit() -> None:
    world = World()
    spoiled = {**body(), "spec": {"retention": {"days": 0}}}
    assert 240 <= await world.reconciler.visit(spoiled) <= 360
    assert world.told(READY) == ("False", "InvalidTenant")


async def test_changed_condition_posts_one_event_and_flapping_is_limited() -> None:
    world = World()
    await world.visit()
    assert [each[:2] for each in world.events] == [("Normal", "Good")]
    down = Verdict("False", "Unreachable", "No answer.")
    world.said = {Part.SEARCH: down, SYNCED: down}
    await world.visit()
    await world.visit()
    assert world.events[1:] == [
        ("Warning", "Unreachable", "SearchReady is False: No answer."),
        ("Warning", "Unreachable", "Synced is False: No answer."),
    ]
    for number in range(100):
        world.said = {Part.SEARCH: down} if number % 2 else {}
        await world.visit()
    assert len(world.events) == 25
    world.now += timedelta(hours=1)
    world.said = {Part.QUEUE: down}
    await world.visit()
    assert "QueueReady is False: No answer." in {message for *_, message in world.events[25:]}


def test_drift_repair_posts_an_event_that_names_the_field() -> None:
    drift = {"detected": 1, "repairs": 1, "fields": ["index records_id"], "standing": False, "observedAt": "1"}
    [event] = statuses.events({"drift": drift}, {})
    assert (event.kind, event.reason, event.message) == (
        "Normal",
        "DriftRepaired",
        "Repaired: index records_id.",
    )
    assert statuses.events({"drift": drift}, {"drift": drift}) == []


def test_kubectl_annotate_pauses_and_resumes_a_tenant(
    kubernetes: Kubernetes, operator: Operator, backends: FolderProvisioner
) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    kubernetes("annotate", "tenant", name, f"{PAUSE}=true")
    until("the pause is told", lambda: kubernetes.condition(name, "Synced").get("reason") == "Paused")
    until("an Event tells it, too", lambda: ("Normal", "Paused") in events_of(kubernetes, name))
    seen = passes(backends, name)
    kubernetes.patch(name, {"spec": {"displayName": "Edited meanwhile"}})
    kubernetes("delete", "tenant", name, "--wait=false")
    until("the deletion waits", lambda: "the deletion waits" in kubernetes.condition(name, "Synced").get("message", ""))
    assert passes(backends, name) == seen
    assert kubernetes.secret(name) is not None
    kubernetes("annotate", "tenant", name, f"{PAUSE}-")
    kubernetes("wait", "--for=delete", f"tenant/{name}", "--timeout=60s")


def test_kubectl_annotate_requests_a_reconcile_that_is_echoed(kubernetes: Kubernetes, operator: Operator) -> None:
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    kubernetes("annotate", "tenant", name, f"{RECONCILE}=now")
    kubernetes("wait", "--for=jsonpath={.status.lastHandledReconcileAt}=now", f"tenant/{name}", "--timeout=60s")


def test_platform_tenant_is_kept_without_an_object() -> None:
    async def scenario() -> None:
        world = World()
        world.said = {READY: Verdict("False", "NotReady", "Search does not answer.")}
        with structlog.testing.capture_logs() as logged:
            keeping = asyncio.create_task(world.reconciler.keep_platform())
            await asyncio.sleep(200)
            assert world.visits >= 5, "it is tried again soon, and ever later"
            assert {line["reason"] for line in logged} == {"Search does not answer."}
            world.said = {}
            await asyncio.sleep(80)
            looks, told = world.visits, len(logged)
            await asyncio.sleep(3_600)
            assert 8 <= world.visits - looks <= 16, "then as often as any Tenant"
            assert len(logged) == told
            assert not keeping.done()
            keeping.cancel()

    virtual_time.run(scenario())
