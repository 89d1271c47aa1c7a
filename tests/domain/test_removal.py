"""A deletion follows its policy in order, and removes nothing under a hold or of another owner."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from decklog.domain.archive.manifest import ArchivePlace, ArchiveSeen
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.observation import Observation
from decklog.domain.tenancy.parts.credentials import RevokeKeys
from decklog.domain.tenancy.parts.database import RemoveTenant, SetHeads, UpdateTenant
from decklog.domain.tenancy.parts.part import Action, Installation
from decklog.domain.tenancy.parts.queue import QueueSeen, RemoveQueue
from decklog.domain.tenancy.parts.search import IndexSeen, RangeSeen, RemoveDocuments, RemoveIndex
from decklog.domain.tenancy.registered import DatabaseSeen, Stopped
from decklog.domain.tenancy.removal import STOP_SECONDS, plan_removal, removal_verdicts
from decklog.domain.tenancy.spec import DeletionPolicy
from decklog.domain.tenancy.status import ARCHIVE, READY, SYNCED, Part
from decklog.domain.tenancy.trouble import Trouble
from decklog.domain.tenant import Isolation, State
from tests.domain.test_decision import INSTALLATION, NOTHING, UNREACHABLE, cases, converged, done, kinds, manifest, verdicts
from tests.support.examples import examples

REMOVING = (RemoveIndex, RemoveDocuments, RemoveQueue, RemoveTenant)
LAST = datetime(2026, 3, 4, 5, tzinfo=UTC)
HEARD = Stopped(STOP_SECONDS, LAST)
LAWS = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
stops = st.sampled_from([None, Stopped(0.0, LAST), HEARD, Stopped(1e9, None)])
PLACE = ArchivePlace("s3://evidence/decklog", locked=True)
MANIFEST = "acme/uid-1/manifest-12-3.json"
UNFINISHED = [
    None,
    ArchiveSeen(),
    ArchiveSeen(PLACE),
    ArchiveSeen(PLACE, records=15, archived=15),
    ArchiveSeen(replace(PLACE, reason="AccessDenied", message="Not allowed."), records=15, archived=3),
]
FINISHED = ArchiveSeen(PLACE, records=15, archived=15, manifest=MANIFEST)
archives = st.sampled_from([*UNFINISHED, FINISHED])


def asked_to(case: tuple[Manifest, Observation], **spec: Any) -> tuple[Manifest, Observation]:
    asked, seen = case
    free: dict[str, Any] = {"deletion_protection": False, "legal_hold": False}
    return replace(asked, spec=replace(asked.spec, **{**free, **spec})), seen


def with_archive(seen: Observation, archive: ArchiveSeen | None) -> Observation:
    return replace(seen, database=replace(seen.database, archive=archive)) if isinstance(seen.database, DatabaseSeen) else seen


def carried_out(seen: Observation, actions: list[Action]) -> Observation:
    """Return the observation after these actions of a removal."""
    for action in actions:
        match action:
            case RemoveIndex():
                assert isinstance(seen.search, IndexSeen)
                kept = tuple(each for each in seen.search.ranges if each.name not in action.indices)
                seen = replace(seen, search=replace(seen.search, ranges=kept))
            case RemoveQueue():
                assert isinstance(seen.queue, QueueSeen)
                left = tuple(owner for owner in seen.queue.owners if owner not in action.owners)
                seen = replace(seen, queue=QueueSeen(owners=left))
            case RemoveDocuments():
                pass
            case RemoveTenant():
                assert isinstance(seen.database, DatabaseSeen)
                seen = replace(seen, database=DatabaseSeen())
            case _:
                seen = done(seen, [action])
    return seen


@LAWS
@given(
    cases(),
    st.sampled_from([{"deletion_protection": True}, {"legal_hold": True}]),
    st.sampled_from(DeletionPolicy),
    stops,
    archives,
)
def test_removal_plans_nothing_under_protection_or_legal_hold(
    case: tuple[Manifest, Observation],
    hold: dict[str, Any],
    policy: DeletionPolicy,
    stopped: Stopped | None,
    archive: ArchiveSeen | None,
) -> None:
    asked, seen = asked_to(case, deletion_policy=policy, **hold)
    assert plan_removal(asked, with_archive(seen, archive), stopped) == []


@LAWS
@given(
    cases(),
    st.sampled_from([(DeletionPolicy.RETAIN, archive) for archive in (None, FINISHED)])
    | st.sampled_from([(DeletionPolicy.ARCHIVE, archive) for archive in UNFINISHED]),
    stops,
)
def test_removal_only_stops_retained_and_unarchived_tenants(
    case: tuple[Manifest, Observation], kept: tuple[DeletionPolicy, ArchiveSeen | None], stopped: Stopped | None
) -> None:
    policy, archive = kept
    asked, seen = asked_to(case, deletion_policy=policy)
    seen = with_archive(seen, archive)
    if isinstance(seen.database, DatabaseSeen) and seen.database.row is None:
        return  # there is nothing to keep
    actions = plan_removal(asked, seen, stopped)
    assert set(kinds(actions)) <= {UpdateTenant, SetHeads, RevokeKeys}
    end = done(seen, actions)
    assert plan_removal(asked, end, stopped) == []
    assert (end.search, end.queue) == (seen.search, seen.queue)
    if isinstance(end.database, DatabaseSeen) and end.database.row and end.database.row.uid == asked.uid:
        assert isinstance(seen.database, DatabaseSeen)
        assert seen.database.row is not None
        # Who archives goes by the spec in the registry.
        spec = asked.spec if policy is DeletionPolicy.ARCHIVE else seen.database.row.spec
        assert end.database.row == replace(seen.database.row, state=State.DELETED, spec=spec)
        assert end.database.keys == ()
        assert end.database.heads is None or end.database.heads.state is State.DELETED
    else:
        assert actions == []


@LAWS
@given(cases(), stops)
def test_removal_of_archived_tenant_names_its_manifest(case: tuple[Manifest, Observation], stopped: Stopped | None) -> None:
    asked, seen = asked_to(case, deletion_policy=DeletionPolicy.ARCHIVE)
    if not isinstance(seen.database, DatabaseSeen) or seen.database.row is None:
        return
    seen = done(with_archive(seen, FINISHED), plan_removal(asked, with_archive(seen, FINISHED), None))
    actions = plan_removal(asked, seen, stopped)
    deleting = replace(asked, spec=replace(asked.spec, deletion_policy=DeletionPolicy.DELETE))
    assert [replace(each, archive="") if isinstance(each, RemoveTenant) else each for each in actions] == plan_removal(
        deleting, seen, stopped
    )
    assert {each.archive for each in actions if isinstance(each, RemoveTenant)} <= {MANIFEST}


@LAWS
@given(cases(), stops)
def test_removal_waits_until_every_process_applies_the_stop(case: tuple[Manifest, Observation], stopped: Stopped | None) -> None:
    asked, seen = asked_to(case, deletion_policy=DeletionPolicy.DELETE)
    actions = plan_removal(asked, seen, stopped)
    if any(isinstance(action, REMOVING) for action in actions):
        assert isinstance(seen.database, DatabaseSeen)
        if seen.database.row is None:
            return  # nobody can write to what was never registered
        assert seen.database.row.state is State.DELETED
        assert seen.database.keys == ()
        assert seen.database.heads is None or seen.database.heads.state is State.DELETED
        assert stopped is not None
        assert stopped.seconds >= STOP_SECONDS


@LAWS
@given(cases(), st.sampled_from(DeletionPolicy), stops)
def test_removal_removes_nothing_while_a_backend_is_unseen(
    case: tuple[Manifest, Observation], policy: DeletionPolicy, stopped: Stopped | None
) -> None:
    asked, seen = asked_to(case, deletion_policy=policy)
    for broken in ("database", "search", "queue"):
        unseen = replace(seen, **{broken: UNREACHABLE})
        assert not any(isinstance(action, REMOVING) for action in plan_removal(asked, unseen, stopped))


@LAWS
@given(cases(), st.sampled_from(DeletionPolicy), stops)
def test_removal_leaves_foreign_tenant_alone(
    case: tuple[Manifest, Observation], policy: DeletionPolicy, stopped: Stopped | None
) -> None:
    asked, seen = asked_to(case, deletion_policy=policy)
    actions = plan_removal(asked, seen, stopped)
    row = seen.database.row if isinstance(seen.database, DatabaseSeen) else None
    ours = {asked.uid, *(row.former_uids if row else ())}
    if row is not None and row.uid != asked.uid:
        assert actions == []
    for action in actions:
        if isinstance(action, RemoveIndex):
            assert isinstance(seen.search, IndexSeen)
            assert {each.owner for each in seen.search.ranges if each.name in action.indices} <= ours
        if isinstance(action, RemoveDocuments):
            assert isinstance(seen.search, IndexSeen)
            assert seen.installation.uid in {each.owner for each in seen.search.ranges}
        if isinstance(action, RemoveQueue):
            assert action.owners <= ours
    if (row.isolation if row else asked.spec.isolation) is Isolation.SHARED:
        assert not {RemoveIndex, RemoveQueue} & set(kinds(actions)), "others have them, too"


@LAWS
@given(cases())
def test_removal_ends_with_nothing_left_under_delete_policy(case: tuple[Manifest, Observation]) -> None:
    asked, seen = asked_to(case, deletion_policy=DeletionPolicy.DELETE)
    if any(isinstance(each, Trouble) for each in (seen.database, seen.search, seen.queue)):
        return
    for _ in range(3):
        seen = carried_out(seen, plan_removal(asked, seen, HEARD))
    assert plan_removal(asked, seen, HEARD) == []
    assert isinstance(seen.database, DatabaseSeen)
    if seen.database.row is not None:
        assert seen.database.row.uid != asked.uid
    elif asked.spec.isolation is Isolation.DEDICATED:
        assert not isinstance(seen.search, IndexSeen) or asked.uid not in {each.owner for each in seen.search.ranges}
        assert not isinstance(seen.queue, QueueSeen) or asked.uid not in seen.queue.owners
    assert removal_verdicts(asked, seen, {})[SYNCED].status == "True"


def stopped_world(asked: Manifest) -> Observation:
    """Return the observation of a converged tenant that is marked as deleted."""
    seen = converged(asked, replace(NOTHING, installation=Installation(INSTALLATION)))
    return done(seen, plan_removal(asked, seen, None))


def test_removal_removes_storage_last() -> None:
    asked = manifest(deletionPolicy="Delete")
    seen = stopped_world(asked)
    assert plan_removal(asked, seen, Stopped(STOP_SECONDS - 1, LAST)) == []
    assert kinds(plan_removal(asked, seen, HEARD)) == [RemoveIndex, RemoveQueue, RemoveTenant]


def test_removal_of_shared_tenant_keeps_index_and_queue_and_reports_purge_time() -> None:
    asked = manifest(isolation="Shared", retention={"days": 60}, deletionPolicy="Delete")
    seen = stopped_world(asked)
    documents, tenant = plan_removal(asked, seen, HEARD)
    assert isinstance(documents, RemoveDocuments)
    assert isinstance(tenant, RemoveTenant)
    # The class of 90 days has partitions of one day.
    assert tenant.purged_after == datetime(2026, 3, 5, tzinfo=UTC) + timedelta(days=90)
    told = removal_verdicts(asked, carried_out(seen, [tenant]), {}, removed=tenant)
    assert (told[SYNCED].status, told[READY].status) == ("True", "False")
    assert "2026-06-03T00:00:00Z" in told[SYNCED].message


def test_removal_of_unregistered_tenant_removes_index_and_queue() -> None:
    asked = manifest()
    ranges = (RangeSeen("decklog-t-acme.v1-1.20260101", "uuid", asked.uid),)
    index, queue = IndexSeen(1, ranges), QueueSeen(owners=(asked.uid,))
    seen = Observation(DatabaseSeen(), Installation(INSTALLATION), index, queue)
    assert kinds(plan_removal(asked, seen, None)) == [RemoveIndex, RemoveQueue]


def test_removal_is_complete_only_when_database_confirms() -> None:
    seen = done(converged(manifest(), NOTHING), plan_removal(manifest(), converged(manifest(), NOTHING), None))
    assert removal_verdicts(manifest(), seen, {})[SYNCED].status == "True"
    assert removal_verdicts(manifest(), Observation(UNREACHABLE), {})[SYNCED].status == "False"
    assert removal_verdicts(manifest(), seen, {Part.DATABASE: UNREACHABLE})[SYNCED].status == "False"
    assert removal_verdicts(manifest(uid="other"), seen, {})[SYNCED].reason == "NothingToRetain"


@pytest.mark.parametrize("part", ["search", "queue"])
def test_removal_condition_names_the_unseen_backend(part: str) -> None:
    asked = manifest(deletionPolicy="Delete")
    told = removal_verdicts(asked, replace(stopped_world(asked), **{part: UNREACHABLE}), {})
    kind = {"search": Part.SEARCH, "queue": Part.QUEUE}[part]
    assert (told[kind].status, told[kind].reason) == ("False", "Unreachable")
    assert (told[SYNCED].status, told[SYNCED].reason) == ("False", "Unreachable")
    assert kind.value in told[SYNCED].message
    assert told[Part.DATABASE].status == "Unknown"


def test_removal_waits_while_no_archive_is_reported() -> None:
    asked = manifest(deletionPolicy="Archive")
    seen = stopped_world(asked)
    assert plan_removal(asked, seen, HEARD) == []
    told = removal_verdicts(asked, seen, {})
    assert (told[SYNCED].status, told[SYNCED].reason) == ("False", "NoArchive")
    assert "Retain" in told[SYNCED].message
    assert told[READY].status == "False"
    # It is told long before, and the tenant can be used as any other.
    before = verdicts(asked, converged(asked, NOTHING))
    assert (before[ARCHIVE].status, before[ARCHIVE].reason, before[READY].status) == ("False", "NoArchive", "True")


@pytest.mark.parametrize(
    ("archive", "deleted", "told"),
    [
        (None, False, ("False", "NoArchive", "no worker reports an archive")),
        (ArchiveSeen(PLACE), False, ("True", "Available", "all records into s3://evidence/decklog first")),
        (ArchiveSeen(replace(PLACE, reason="NoBucket", message="No bucket.")), False, ("False", "NoBucket", "would wait for it")),
        (ArchiveSeen(replace(PLACE, reason="NoBucket", message="No bucket.")), True, ("False", "NoBucket", "The deletion waits")),
        (ArchiveSeen(PLACE, records=15, archived=3), True, ("False", "Archiving", "3 of 15 records")),
        (FINISHED, True, ("True", "Archived", MANIFEST)),
    ],
)
def test_archive_condition_shows_state_of_the_archive(
    archive: ArchiveSeen | None, deleted: bool, told: tuple[str, str, str]
) -> None:
    asked = manifest(deletionPolicy="Archive")
    world = with_archive(stopped_world(asked) if deleted else converged(asked, NOTHING), archive)
    said = removal_verdicts(asked, world, {}) if deleted else verdicts(asked, world)
    assert (said[ARCHIVE].status, said[ARCHIVE].reason) == told[:2]
    assert told[2] in said[ARCHIVE].message
    away = replace(world, database=UNREACHABLE)
    unseen = removal_verdicts(asked, away, {}) if deleted else verdicts(asked, away)
    assert unseen[ARCHIVE].status == "Unknown"


@pytest.mark.parametrize(
    ("locked", "days", "told"), [(True, 7, "is locked there for 7 days"), (False, 7, "7 days as advice"), (True, None, "first.")]
)
def test_archive_condition_shows_effect_of_archive_days(locked: bool, days: int | None, told: str) -> None:
    retention = {"days": 90} | ({"archiveDays": days} if days else {})
    asked = manifest(deletionPolicy="Archive", retention=retention)
    world = with_archive(converged(asked, NOTHING), ArchiveSeen(replace(PLACE, locked=locked)))
    assert told in verdicts(asked, world)[ARCHIVE].message


def test_archive_condition_names_manifest_after_removal() -> None:
    asked = manifest(deletionPolicy="Archive")
    seen = with_archive(stopped_world(asked), FINISHED)
    actions = plan_removal(asked, seen, HEARD)
    assert kinds(actions) == [RemoveIndex, RemoveQueue, RemoveTenant]
    told = removal_verdicts(asked, carried_out(seen, actions), {}, removed=actions[-1])  # type: ignore[arg-type]
    assert (told[SYNCED].status, told[ARCHIVE].status) == ("True", "True")
    assert MANIFEST in told[ARCHIVE].message
