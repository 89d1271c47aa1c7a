"""A plan leads from any state to the one that is asked for, is then empty, and never removes data."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from decklog.domain.identity.access import Role
from decklog.domain.index_generation import GenerationRow, GenerationState, range_index
from decklog.domain.tenancy.decision import Decision, decide
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import index_name, queue_name, schema_name
from decklog.domain.tenancy.observation import Observation
from decklog.domain.tenancy.parts.credentials import IssueKeys, RestateKeys, RevokeKeys, VaultSeen
from decklog.domain.tenancy.parts.database import (
    NEWER_TEMPLATE,
    AdoptTenant,
    CreateRelations,
    MakePartitions,
    RegisterTenant,
    SetHeads,
    UpdateTenant,
)
from decklog.domain.tenancy.parts.keys import TENANT_ROLES, IssuedKey, Reason, Succession, current_keys
from decklog.domain.tenancy.parts.part import Action, Installation
from decklog.domain.tenancy.parts.queue import CreateQueue, QueueSeen, SetQueueAttributes
from decklog.domain.tenancy.parts.search import (
    CreateIndex,
    IndexSeen,
    RangeSeen,
    RecordGeneration,
    RetireGenerations,
    UpdateIndex,
)
from decklog.domain.tenancy.quota import GIB
from decklog.domain.tenancy.refusal import DEDICATED_MAX
from decklog.domain.tenancy.registered import DatabaseSeen, HeadSettings, Row, Stored, head_settings
from decklog.domain.tenancy.removal import plan_removal
from decklog.domain.tenancy.spec import DriftPolicy, Queue, parse_spec
from decklog.domain.tenancy.status import QUOTA_EXCEEDED, READY, SYNCED, Part, Verdict, conditions
from decklog.domain.tenancy.trouble import Refusal, Trouble
from decklog.domain.tenancy.verdicts import TERMINAL
from decklog.domain.tenancy.verdicts import verdicts as verdicts_of
from decklog.domain.tenant import PLATFORM_TENANT, Isolation, State

ROUNDS_MAX = 4
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UNREACHABLE = Trouble("Unreachable", "It cannot be reached.")
INSTALLATION = "installation"
_numbers = itertools.count()


def manifest(name: str = "acme", uid: str = "uid-1", generation: int = 1, **spec: object) -> Manifest:
    return Manifest(name, uid, generation, parse_spec({"retention": {"days": 90}, "deletionProtection": False, **spec}))


def registered(of: Manifest, **changes: object) -> Row:
    """The row that applying this manifest leaves."""
    spec = of.spec
    row = Row(
        id=7,
        uid=of.uid,
        isolation=spec.isolation,
        schema=schema_name(of.name, spec),
        index=index_name(of.name, spec),
        queue=queue_name(of.name, spec),
        retention_days=spec.retention.days,
        state=head_settings(spec).state,
        display_name=spec.display_name,
        spec=spec,
        generation=of.generation,
        cell=spec.cell,
    )
    return replace(row, **changes)


def decision(asked: Manifest, seen: Observation, now: datetime = NOW) -> Decision:
    return decide(asked, seen, now)


def plan(asked: Manifest, seen: Observation, now: datetime = NOW) -> list[Action]:
    return decide(asked, seen, now).actions


def refusal(asked: Manifest, seen: Observation) -> Refusal | None:
    return decide(asked, seen, NOW).refusal


def verdicts(asked: Manifest, seen: Observation, troubles: Mapping[Part, Trouble] | None = None) -> dict[str, Verdict]:
    return verdicts_of(decide(asked, seen, NOW), troubles)


RETIRED = GenerationState.RETIRED
STARTS = (date(2025, 12, 1), date(2026, 1, 1))
GENERATIONS = ("v1-1", "v2-1", "v2-2")


def lose_a_range(seen: Observation) -> Observation:
    """Return the observation after somebody deleted the index of a range."""
    assert isinstance(seen.search, IndexSeen)
    return replace(seen, search=replace(seen.search, ranges=seen.search.ranges[1:]))


def drifting(seen: Observation, *drift: str) -> Observation:
    """Return the observation after the first range was changed."""
    assert isinstance(seen.search, IndexSeen)
    first, *others = seen.search.ranges
    return replace(seen, search=replace(seen.search, ranges=(replace(first, drift=drift), *others)))


def unmarked(seen: Observation, asked: Manifest) -> bool:
    return seen.look(asked).owner is None


NOTHING = Observation(DatabaseSeen(), Installation(INSTALLATION), IndexSeen(), QueueSeen(), VaultSeen())


def _database_done(seen: DatabaseSeen, action: Action) -> DatabaseSeen:
    match action:
        case CreateRelations():
            return replace(seen, missing=())
        case MakePartitions():
            return replace(seen, partitions=True)
        case RegisterTenant():
            return replace(seen, row=replace(action.row, id=7))
        case UpdateTenant():
            assert seen.row is not None
            return replace(seen, row=replace(seen.row, **{name: getattr(action.row, name) for name in action.changes}))
        case SetHeads():
            assert seen.row is not None, "heads belong to a registered tenant"
            return replace(seen, heads=action.settings)
        case RetireGenerations():
            rows = [replace(row, state=RETIRED) if row.name in action.generations else row for row in seen.generations]
            return replace(seen, generations=tuple(rows))
        case RecordGeneration():
            rows = [replace(row, state=RETIRED) for row in seen.generations]
            row = GenerationRow(action.generation, GenerationState.LIVE, action.starts, action.uuids)
            return replace(seen, generations=(*rows, row))
    raise AssertionError(action)


def _issued(seen: Observation, action: IssueKeys) -> Observation:
    assert isinstance(seen.database, DatabaseSeen)
    assert isinstance(seen.vault, VaultSeen)
    assert seen.database.row is not None, "keys belong to a registered tenant"
    after = action.succession
    kept = tuple(
        replace(key, expires_at=after.retired_until) if key.id in after.retired else key
        for key in seen.database.keys
        if key.id not in after.revoked
    )
    made = tuple(IssuedKey(f"key-{(n := next(_numbers))}", role, b"%32d" % n, action.at) for role in action.roles)
    row = replace(seen.database.row, keys_revision=action.revision, keys_request=action.request)
    hashes = {**seen.vault.hashes, **{key.role: key.hash for key in made}}
    return replace(
        seen,
        database=replace(seen.database, row=row, keys=(*kept, *made)),
        vault=VaultSeen(hashes, action.revision, action.valid_until),
    )


def done(seen: Observation, actions: Sequence[Action]) -> Observation:
    """Return the observation after these actions."""
    for action in actions:
        match action:
            case CreateIndex():
                assert isinstance(seen.search, IndexSeen)
                names = [range_index(action.index, action.generation, start) for start in action.starts]
                made = [RangeSeen(name, f"uuid-{next(_numbers)}", action.mark.uid) for name in names]
                seen = replace(seen, search=replace(seen.search, ranges=(*seen.search.ranges, *made)))
            case UpdateIndex():
                assert isinstance(seen.search, IndexSeen)
                right = [
                    replace(each, owner=action.mark.uid, drift=()) if each.name in action.indices else each
                    for each in seen.search.ranges
                ]
                seen = replace(seen, search=replace(seen.search, ranges=tuple(right)))
            case CreateQueue() | SetQueueAttributes():
                seen = replace(seen, queue=QueueSeen(exists=True, owners=(action.mark.uid,) * 2))
            case IssueKeys():
                seen = _issued(seen, action)
            case RestateKeys():
                assert isinstance(seen.vault, VaultSeen)
                assert isinstance(seen.database, DatabaseSeen)
                assert seen.database.row is not None
                row = replace(seen.database.row, keys_revision=action.revision)
                vault = VaultSeen(seen.vault.hashes, action.revision, action.valid_until)
                seen = replace(seen, database=replace(seen.database, row=row), vault=vault)
            case RevokeKeys():
                assert isinstance(seen.database, DatabaseSeen)
                kept = tuple(key for key in seen.database.keys if key.id not in action.ids)
                seen = replace(seen, database=replace(seen.database, keys=kept))
            case _:
                assert isinstance(seen.database, DatabaseSeen)
                seen = replace(seen, database=_database_done(seen.database, action))
    return seen


def converged(asked: Manifest, seen: Observation) -> Observation:
    for _ in range(ROUNDS_MAX):
        actions = plan(asked, seen)
        if not actions:
            return seen
        seen = done(seen, actions)
    raise AssertionError(f"still to do: {plan(asked, seen)}")


def kinds(actions: Sequence[Action]) -> list[type[Action]]:
    return [type(action) for action in actions]


# --- any world -------------------------------------------------------------------------------------------------------

uids = st.sampled_from(["uid-1", "uid-2", "uid-3"])
ROTATIONS: tuple[dict[str, int], ...] = ({}, {"overlapHours": 0}, {"intervalDays": 2}, {"intervalDays": 1, "overlapHours": 23})
FREE: dict[str, object] = {"deletionProtection": False}
# As many as no other choice has, so that each comes with each.
KEEPING: tuple[dict[str, object], ...] = (FREE, FREE, FREE, {}, {"legalHold": True}, {**FREE, "adoptionPolicy": "Refuse"}, FREE)
ROOM: tuple[dict[str, object], ...] = ({}, {"storageGiB": 10}, {"storageGiB": 0.5}, {}, {"storageGiB": 11})
# Each value is one draw of many that were made before: what is drawn piece by piece takes longer than what is tested.
specs = st.sampled_from(
    [
        parse_spec(
            {
                "isolation": isolation,
                "retention": {"days": days},
                "quotas": {"eventsPerSecond": rate, "burst": rate * 2, **room},
                "suspend": suspend,
                "ingest": {"dedupWindow": window},
                "displayName": title,
                "credentials": {"rotation": rotation},
                **keeping,
            }
        )
        for (isolation, days, rate, suspend, window, title, rotation), keeping, room in zip(
            itertools.product(Isolation, [1, 30, 31, 90, 365], [1, 100], [False, True], ["30m", "24h"], ["", "Acme"], ROTATIONS),
            itertools.cycle(KEEPING),
            itertools.cycle(ROOM),
            strict=False,
        )
    ]
)
SIZES = [0, GIB // 2, GIB, *(int(GIB * used) for used in (9.4, 9.6, 10, 10.3, 10.5, 11.1))]
stored = st.sampled_from([*[None] * 9, *(Stored(9, 0, size) for size in SIZES)])
requests = st.sampled_from(["", "one", "two"])
manifests = st.builds(Manifest, st.sampled_from(["acme", "beta-2"]), uids, st.integers(1, 3), specs, requests)
CELLS = [*["default"] * 9, "eu-1"]
states = st.sampled_from(list(itertools.product(State, CELLS)))
installations = st.sampled_from([Installation(uid, cell=cell) for uid in (INSTALLATION, None) for cell in CELLS])
heads = st.sampled_from(
    [*[None] * 6, *(HeadSettings(state, 1, 2, 60, storage_used_up=used_up) for state in State for used_up in (False, True))]
)
drifts = st.lists(st.sampled_from(["one", "two"]), max_size=2, unique=True).map(tuple)
HASHES = [bytes([n]) * 32 for n in range(6)]
HOURS = [NOW + timedelta(hours=number - 48) for number in range(73)]
hashes = st.sampled_from(HASHES)
keys = st.lists(
    st.builds(
        lambda number, role, made, ends: IssuedKey("abcdef"[number], role, HASHES[number], made, ends),
        st.integers(0, 5),
        st.sampled_from(Role),
        st.sampled_from(HOURS),
        st.sampled_from([None, *HOURS]),
    ),
    max_size=6,
    unique_by=lambda key: key.id,
).map(tuple)
vaults = st.builds(
    VaultSeen,
    st.dictionaries(st.sampled_from(TENANT_ROLES), hashes),
    st.sampled_from([None, 0, 3]),
    st.sampled_from([None, "", "2026-01-02T03:04:05Z"]),
    drifts,
)
troubles = st.just(UNREACHABLE)


@st.composite
def rows(draw: st.DrawFn, asked: Manifest) -> Row:
    """A row that some manifest of this name left, of this or an older generation."""
    before = draw(st.just(asked) | st.builds(Manifest, st.just(asked.name), uids, st.integers(1, 3), specs))
    return registered(
        before,
        **dict(zip(("state", "cell"), draw(states), strict=True)),
        former_uids=draw(st.lists(uids, max_size=2, unique=True).map(tuple)),
        spec=draw(st.sampled_from([before.spec, None])),
        keys_revision=draw(st.sampled_from([0, 3])),
        keys_request=draw(requests),
    )


generation_rows = st.builds(
    GenerationRow,
    st.sampled_from(GENERATIONS),
    st.sampled_from(GenerationState),
    st.just(STARTS),
    st.tuples(*[st.sampled_from(["uuid-a", "uuid-b"])] * 2),
)


@st.composite
def worlds(draw: st.DrawFn, asked: Manifest, *, keys_seen: bool = False) -> Observation:
    # Mostly the right one, or nearly every world would be refused.
    right = INSTALLATION if asked.spec.isolation is Isolation.SHARED else asked.uid
    owners = st.sampled_from([*[right] * 9, "uid-1", "uid-2", "uid-3", INSTALLATION, None])
    database = st.builds(
        DatabaseSeen,
        row=st.none() | rows(asked),
        missing=drifts,
        partitions=st.booleans(),
        heads=heads,
        stored=stored,
        keys=keys,
        generations=st.lists(generation_rows, max_size=2, unique_by=(lambda row: row.name, lambda row: row.state)).map(tuple),
        indexed_from=st.sampled_from([None, STARTS[0], STARTS[1]]),
    ).map(lambda seen: seen if seen.row else replace(seen, heads=None, keys=()))
    base = index_name(asked.name, asked.spec)
    names = [base, *(range_index(base, name, start) for name in GENERATIONS for start in STARTS)]
    ranges = st.builds(RangeSeen, st.sampled_from(names), st.sampled_from(["uuid-a", "uuid-b"]), owners, drifts)
    index = st.builds(IndexSeen, st.just(2), st.lists(ranges, max_size=3, unique_by=lambda each: each.name).map(tuple))
    queue = st.lists(owners, max_size=1).map(lambda some: QueueSeen(owners=tuple(some))) | st.builds(
        QueueSeen, st.just(True), st.tuples(owners, owners), drifts
    )
    return Observation(
        draw(database if keys_seen else database | troubles),
        draw(installations),
        draw(index | troubles | st.none()),
        draw(queue | troubles | st.none()),
        draw(vaults if keys_seen else vaults | troubles | st.none()),
    )


@st.composite
def cases(draw: st.DrawFn, *, keys_seen: bool = False) -> tuple[Manifest, Observation]:
    """`keys_seen`: database and vault were both seen, for properties of keys."""
    asked = draw(manifests)
    return asked, draw(worlds(asked, keys_seen=keys_seen))


@given(cases())
def test_plan_is_empty_after_it_is_applied(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    end = converged(asked, seen)
    assert plan(asked, end) == []
    if refusal(asked, end) is None and isinstance(end.database, DatabaseSeen):
        assert end.database.row is not None
        assert (end.database.row.uid, end.database.row.spec) == (asked.uid, asked.spec)
        assert end.database.heads is not None
        used_up = end.database.heads.storage_used_up
        assert end.database.heads == head_settings(asked.spec, storage_used_up=used_up)
        if end.database.stored and (quota := (asked.spec.quotas.storage_gib or 0) * GIB):
            assert used_up or end.database.stored.bytes <= quota
            assert not used_up or end.database.stored.bytes > quota * 0.95
        assert not used_up or asked.spec.quotas.storage_gib
        if isinstance(end.vault, VaultSeen):
            assert set(current_keys(end.database.keys, end.vault.hashes)) == set(TENANT_ROLES)
            assert end.vault.drift == ()
            assert end.vault.revision in (None, end.database.row.keys_revision)
            assert asked.rotate in ("", end.database.row.keys_request)
        assert not isinstance(end.search, IndexSeen) or not any(each.drift for each in end.search.ranges) or unmarked(end, asked)
        assert not isinstance(end.queue, QueueSeen) or end.queue.drift == () or end.look(asked).owner is None


@given(cases())
def test_tenant_is_ready_when_every_backend_is_seen_and_converged(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    end = converged(asked, seen)
    said = verdicts(asked, end)
    seen_all = not any(isinstance(part, Trouble) for part in (end.database, end.search, end.queue, end.vault))
    assume(asked.spec.isolation is Isolation.DEDICATED or seen.installation.uid)
    assert (said[READY].status == "True") == (seen_all and refusal(asked, end) is None)
    assert set(said) == {READY, *Part, QUOTA_EXCEEDED, SYNCED}
    if isinstance(end.database, DatabaseSeen) and end.database.heads and refusal(asked, end) is None:
        assert (said[QUOTA_EXCEEDED].status == "True") is end.database.heads.storage_used_up


@given(cases())
def test_plan_has_no_action_that_removes_data(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    keeping = {
        CreateRelations, MakePartitions, RegisterTenant, UpdateTenant, AdoptTenant, SetHeads, RetireGenerations, RecordGeneration,
        CreateIndex, UpdateIndex, CreateQueue, SetQueueAttributes, IssueKeys, RestateKeys, RevokeKeys,
    }  # fmt: skip
    actions = plan(asked, seen)
    assert set(kinds(actions)) <= keeping
    for action in actions:
        if isinstance(action, RegisterTenant | UpdateTenant):
            assert action.row.state is not State.DELETED
        if isinstance(action, UpdateTenant):
            # Where the data is never changes.
            assert {"id", "isolation", "schema", "index", "queue"}.isdisjoint(action.changes)


@given(cases(keys_seen=True))
def test_role_has_one_current_key_and_at_most_one_that_ends(
    case: tuple[Manifest, Observation],
) -> None:
    asked, seen = case
    assume(refusal(asked, seen) is None)
    assert isinstance(seen.database, DatabaseSeen)
    end = converged(asked, seen)
    assert isinstance(end.database, DatabaseSeen)
    assert isinstance(end.vault, VaultSeen)
    before = {key.id: key for key in seen.database.keys}
    longest = NOW + timedelta(hours=asked.spec.credentials.rotation.overlap_hours)
    for role in TENANT_ROLES:
        [good] = [key for key in end.database.keys if key.role is role and key.expires_at is None]
        assert good.hash == end.vault.hashes[role]
        ending = [key for key in end.database.keys if key.role is role and key.expires_at is not None]
        assert len(ending) <= 1
        for key in ending:
            assert not key.expired(NOW)
            old = before[key.id].expires_at
            # Where the overlap was made shorter meanwhile, a new key lets the one before end sooner.
            assert key.expires_at == longest if old is None else key.expires_at in (old, min(old, longest))
    assert {key.role for key in end.database.keys} == set(TENANT_ROLES)


@given(cases(keys_seen=True))
def test_replaced_current_key_stays_valid_for_the_overlap(
    case: tuple[Manifest, Observation],
) -> None:
    asked, seen = case
    assert isinstance(seen.database, DatabaseSeen)
    assert isinstance(seen.vault, VaultSeen)
    current = current_keys(seen.database.keys, seen.vault.hashes)
    overlap = timedelta(hours=asked.spec.credentials.rotation.overlap_hours)
    for action in plan(asked, seen):
        if isinstance(action, IssueKeys):
            held = [key.id for role, key in current.items() if role in action.roles]
            assert set(held) <= set(action.succession.retired if overlap else action.succession.revoked)
            assert action.succession.retired_until in (None, NOW + overlap)
        revoked = action.succession.revoked if isinstance(action, IssueKeys) else getattr(action, "ids", ())
        renewed = action.roles if isinstance(action, IssueKeys) else ()
        assert {key.id for role, key in current.items() if role not in renewed}.isdisjoint(revoked)


@given(cases())
def test_plan_leaves_unseen_backend_alone(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    parts = {action.part for action in plan(asked, seen)}
    unseen = {
        part
        for part, value in zip(Part, (seen.database, seen.search, seen.queue, seen.vault), strict=True)
        if isinstance(value, Trouble) or value is None
    }
    assert parts.isdisjoint(unseen)


@given(manifests)
def test_unseen_backend_does_not_change_the_plan_of_others(asked: Manifest) -> None:
    whole = plan(asked, NOTHING)
    for part, name in zip(Part, ("database", "search", "queue", "vault"), strict=True):
        rest = plan(asked, replace(NOTHING, **{name: UNREACHABLE}))
        # Keys are rows of the database, and an index that is empty must be known as such there.
        waiting = {part, Part.CREDENTIALS, Part.SEARCH} if part is Part.DATABASE else {part}
        assert rest == [action for action in whole if action.part not in waiting]


# --- one world at a time ---------------------------------------------------------------------------------------------


def test_plan_orders_relations_row_and_keys_of_new_tenant() -> None:
    assert kinds(plan(manifest(), NOTHING)) == [
        CreateRelations,
        MakePartitions,
        RegisterTenant,
        SetHeads,
        CreateIndex,
        CreateQueue,
        IssueKeys,
    ]


def test_changed_quota_updates_row_and_heads_only() -> None:
    seen = converged(manifest(), NOTHING)
    wanted = manifest(generation=2, quotas={"eventsPerSecond": 5, "burst": 5})
    actions = plan(wanted, seen)
    assert kinds(actions) == [UpdateTenant, SetHeads]
    assert isinstance(actions[0], UpdateTenant)
    assert set(actions[0].changes) == {"spec", "generation"}


def test_suspension_updates_row_and_heads() -> None:
    seen = done(NOTHING, plan(manifest(), NOTHING))
    end = converged(manifest(generation=2, suspend=True), seen)
    assert isinstance(end.database, DatabaseSeen)
    assert end.database.row is not None
    assert end.database.heads is not None
    assert (end.database.row.state, end.database.heads.state) == (State.SUSPENDED, State.SUSPENDED)
    assert verdicts(manifest(generation=2, suspend=True), end)[READY].reason == "Suspended"


def test_retained_tenant_is_adopted_with_its_number_and_new_marks() -> None:
    old, new = manifest(uid="uid-1", generation=5), manifest(uid="uid-2", generation=1)
    seen = converged(old, NOTHING)
    retained = done(seen, plan_removal(old, seen, None))
    assert AdoptTenant in kinds(plan(new, retained))
    end = converged(new, retained)
    assert isinstance(end.database, DatabaseSeen)
    assert isinstance(end.search, IndexSeen)
    assert isinstance(end.queue, QueueSeen)
    assert end.database.row is not None
    assert (end.database.row.id, end.database.row.uid, end.database.row.former_uids) == (7, "uid-2", ("uid-1",))
    assert ({each.owner for each in end.search.ranges}, end.queue.owners) == ({"uid-2"}, ("uid-2", "uid-2"))
    assert {key.role for key in end.database.keys} == set(TENANT_ROLES)


def test_retained_tenant_is_refused_when_adoption_policy_is_refuse() -> None:
    old, new = manifest(uid="old"), manifest(uid="new", adoptionPolicy="Refuse")
    seen = converged(old, NOTHING)
    retained = done(seen, plan_removal(old, seen, None))
    refused = refusal(new, retained)
    assert refused is not None
    assert refused.reason == "AdoptionRefused"
    assert plan(new, retained) == []
    # It says nothing of a name that is new, nor of a tenant that is its own.
    assert refusal(new, NOTHING) is None
    assert refusal(new, converged(new, NOTHING)) is None


def lost(seen: Observation, *roles: Role) -> Observation:
    """Return the observation after the vault lost these keys."""
    assert isinstance(seen.vault, VaultSeen)
    left = {role: value for role, value in seen.vault.hashes.items() if role not in roles}
    return replace(seen, vault=replace(seen.vault, hashes=left))


def test_lost_key_is_replaced_for_its_role_only() -> None:
    seen = converged(manifest(), NOTHING)
    assert isinstance(seen.database, DatabaseSeen)
    [old] = [key.id for key in seen.database.keys if key.role is Role.AUDITOR]
    assert plan(manifest(), lost(seen, Role.AUDITOR)) == [
        IssueKeys((Role.AUDITOR,), Reason.LOST, 2, NOW, "", "", Succession((old,), NOW + timedelta(hours=24)))
    ]


def test_rotation_revokes_previous_key_without_an_overlap() -> None:
    asked = manifest(credentials={"rotation": {"overlapHours": 0}})
    seen = converged(asked, NOTHING)
    assert isinstance(seen.database, DatabaseSeen)
    old = {key.id for key in seen.database.keys}
    [action] = plan(replace(asked, rotate="now"), seen)
    assert isinstance(action, IssueKeys)
    assert (action.succession.retired, set(action.succession.revoked)) == ((), old)


def test_rotation_without_overlap_revokes_keys_of_an_earlier_overlap() -> None:
    one = converged(manifest(), NOTHING)
    two = done(one, plan(replace(manifest(), rotate="1"), one))
    assert isinstance(two.database, DatabaseSeen)
    assert len(two.database.keys) == 6
    leaked = replace(manifest(generation=2, credentials={"rotation": {"overlapHours": 0}}), rotate="2")
    [action] = [action for action in plan(leaked, two) if isinstance(action, IssueKeys)]
    assert set(action.succession.revoked) == {key.id for key in two.database.keys}


def test_rotation_request_replaces_every_key_once_per_value() -> None:
    asked = replace(manifest(), rotate="monday")
    seen = converged(manifest(), NOTHING)
    [action] = plan(asked, seen)
    assert isinstance(action, IssueKeys)
    assert (action.roles, action.reason, action.request) == (TENANT_ROLES, Reason.REQUESTED, "monday")
    end = done(seen, [action])
    assert plan(asked, end) == []
    assert plan(manifest(), end) == []
    assert kinds(plan(replace(asked, rotate="tuesday"), end)) == [IssueKeys]


def test_new_tenant_issues_keys_once_with_a_rotation_request() -> None:
    asked = replace(manifest(), rotate="monday")
    [action] = [action for action in plan(asked, NOTHING) if isinstance(action, IssueKeys)]
    assert (action.reason, action.request, action.revision) == (Reason.FIRST, "monday", 1)
    assert plan(asked, converged(asked, NOTHING)) == []


def test_second_rotation_within_overlap_keeps_the_last_two_keys() -> None:
    one = converged(manifest(), NOTHING)
    two = done(one, plan(replace(manifest(), rotate="1"), one))
    three = done(two, plan(replace(manifest(), rotate="2"), two))
    assert isinstance(one.database, DatabaseSeen)
    assert isinstance(two.database, DatabaseSeen)
    assert isinstance(three.database, DatabaseSeen)
    first = {key.hash for key in one.database.keys}
    assert len(three.database.keys) == 6
    assert first.isdisjoint(key.hash for key in three.database.keys)
    assert {key.hash for key in two.database.keys if key.expires_at is None} <= {key.hash for key in three.database.keys}


SCHEDULED = {"rotation": {"intervalDays": 7, "overlapHours": 12}}


def test_scheduled_rotation_replaces_keys_and_revokes_old_ones_after_the_overlap() -> None:
    asked = manifest(credentials=SCHEDULED)
    seen = converged(asked, NOTHING)
    due = NOW + timedelta(days=7)
    assert isinstance(seen.vault, VaultSeen)
    assert seen.vault.valid_until == "2026-01-09T15:04:05Z"
    assert plan(asked, seen, due - timedelta(seconds=1)) == []
    [action] = plan(asked, seen, due)
    assert isinstance(action, IssueKeys)
    assert (action.roles, action.reason) == (TENANT_ROLES, Reason.SCHEDULED)
    end = done(seen, [action])
    assert plan(asked, end, due + timedelta(hours=12, seconds=-1)) == []
    [clearing] = plan(asked, end, due + timedelta(hours=12))
    assert isinstance(clearing, RevokeKeys)
    assert set(clearing.ids) == set(action.succession.retired)


def test_scheduled_rotation_spares_role_that_is_still_in_its_overlap() -> None:
    asked = manifest(credentials=SCHEDULED)
    due = NOW + timedelta(days=7)
    seen = lost(converged(asked, NOTHING), Role.WRITER)
    late = done(seen, plan(asked, seen, due - timedelta(hours=1)))
    [action] = plan(asked, late, due)
    assert isinstance(action, IssueKeys)
    assert action.roles == (Role.AUDITOR, Role.ADMIN)
    early = done(seen, plan(asked, seen, due - timedelta(days=3)))
    early = done(early, plan(asked, early, due - timedelta(days=2)))
    [action] = plan(asked, early, due)
    assert isinstance(action, IssueKeys)
    assert action.roles == TENANT_ROLES


def test_notes_beside_keys_are_corrected_without_new_keys() -> None:
    seen = converged(manifest(), NOTHING)
    assert isinstance(seen.vault, VaultSeen)
    edited = replace(seen, vault=replace(seen.vault, revision=0, drift=("revision", "url")))
    assert plan(manifest(), edited) == [RestateKeys(2, "", ("revision", "url"))]
    scheduled = manifest(generation=2, credentials=SCHEDULED)
    assert plan(scheduled, seen)[-1] == RestateKeys(2, "2026-01-09T15:04:05Z", ("validUntil",))
    keeps_nothing = replace(seen, vault=VaultSeen(seen.vault.hashes))
    assert plan(manifest(), keeps_nothing) == []


def test_key_status_has_the_next_due_time() -> None:
    asked = manifest(credentials=SCHEDULED)
    due = NOW + timedelta(days=7)
    seen = converged(asked, NOTHING)
    first = decision(asked, seen).keys
    assert first is not None
    assert (first.revision, first.valid_until, first.overlap_until) == (1, "2026-01-09T15:04:05Z", "")
    assert first.rotate_at == first.wake_at == due
    seen = done(seen, plan(replace(asked, rotate="x"), seen, NOW + timedelta(days=1)))
    told = decision(asked, seen, NOW + timedelta(days=1)).keys
    assert told is not None
    assert (told.revision, told.rotated, told.overlap_until) == (2, "x", "2026-01-03T15:04:05Z")
    assert told.wake_at == NOW + timedelta(days=1, hours=12)
    assert told.rotate_at == NOW + timedelta(days=8)
    assert decision(asked, replace(seen, vault=UNREACHABLE)).keys is None


def test_lost_range_is_replaced_by_a_new_generation_after_the_old_one_is_retired() -> None:
    seen = lose_a_range(converged(manifest(), NOTHING))
    steps = []
    while actions := plan(manifest(), seen):
        steps += kinds(actions)
        seen = done(seen, actions)
    assert steps == [RetireGenerations, CreateIndex, RecordGeneration]
    assert isinstance(seen.database, DatabaseSeen)
    assert [(row.name, row.state) for row in seen.database.generations] == [
        ("v1-1", RETIRED),
        ("v1-2", GenerationState.LIVE),
    ]


def test_new_version_makes_a_generation_with_its_mapping_and_retires_the_old_one() -> None:
    seen = converged(manifest(), NOTHING)
    assert isinstance(seen.search, IndexSeen)
    newer = replace(seen, search=replace(seen.search, version=2))
    assert decision(manifest(), newer).repairs == ()
    end = converged(manifest(), newer)
    assert isinstance(end.database, DatabaseSeen)
    assert [(row.name, row.state) for row in end.database.generations] == [
        ("v1-1", RETIRED),
        ("v2-1", GenerationState.LIVE),
    ]
    # A process of the version before leaves it alone.
    assert isinstance(end.search, IndexSeen)
    assert plan(manifest(), replace(end, search=replace(end.search, version=1))) == []


def test_index_of_versions_before_generations_is_kept_beside_the_first_generation() -> None:
    asked = manifest()
    old = RangeSeen(index_name(asked.name, asked.spec), "uuid-old", asked.uid)
    seen = replace(NOTHING, search=IndexSeen(1, (old,)))
    end = converged(asked, seen)
    assert isinstance(end.search, IndexSeen)
    assert old in end.search.ranges
    assert verdicts(asked, end)[Part.SEARCH].status == "True"


def test_interrupted_creation_of_a_generation_goes_on_with_the_ranges_that_lack() -> None:
    asked = manifest(retention={"days": 8})
    first = next(action for action in plan(asked, NOTHING) if isinstance(action, CreateIndex))
    assert len(first.starts) > 1
    partly = done(NOTHING, [replace(first, starts=first.starts[:1])])
    [rest] = [action for action in plan(asked, partly) if isinstance(action, CreateIndex)]
    assert (rest.generation, rest.starts) == (first.generation, first.starts[1:])
    end = converged(asked, partly)
    assert isinstance(end.database, DatabaseSeen)
    assert [row.starts for row in end.database.generations] == [first.starts]


@given(cases())
def test_recorded_ranges_are_there_with_their_uuids(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    end = converged(asked, seen)
    if refusal(asked, end) is None and isinstance(end.database, DatabaseSeen) and isinstance(end.search, IndexSeen):
        there = {each.name: each.uuid for each in end.search.ranges}
        for row in end.database.generations:
            if row.state is not RETIRED:
                names = [range_index(end.look(asked).index, row.name, start) for start in row.starts]
                assert [there.get(name) for name in names] == list(row.uuids)


def in_order(asked: Manifest) -> Observation:
    """Return a converged observation in which every part is settled."""
    seen = converged(asked, NOTHING)
    assert isinstance(seen.database, DatabaseSeen)
    assert seen.database.row is not None
    return replace(seen, database=replace(seen.database, row=replace(seen.database.row, settled=tuple(Part))))


def test_repairs_leave_out_what_time_spec_or_version_made_due() -> None:
    asked = manifest(credentials={"rotation": {"intervalDays": 7}})

    def repaired(asked: Manifest, seen: Observation, at: datetime = NOW) -> list[type[Action]]:
        return kinds([step.action for step in decision(asked, seen, at).repairs])

    settled = in_order(asked)
    assert isinstance(settled.database, DatabaseSeen)
    assert repaired(asked, lost(settled, Role.AUDITOR)) == [IssueKeys]
    assert repaired(asked, replace(settled, queue=QueueSeen())) == [CreateQueue]
    assert repaired(asked, drifting(settled, "field action")) == [UpdateIndex]
    assert repaired(asked, replace(settled, database=replace(settled.database, heads=None, partitions=False))) == [SetHeads]
    assert repaired(asked, settled, NOW + timedelta(days=7)) == []
    assert repaired(manifest(generation=2, suspend=True), replace(settled, queue=QueueSeen())) == []
    assert repaired(asked, replace(NOTHING, search=UNREACHABLE)) == []
    assert repaired(asked, replace(settled, database=replace(settled.database, missing=(NEWER_TEMPLATE,)))) == []


def storing(gib: float, seen: Observation) -> Observation:
    return changed(seen, "database", stored=Stored(9, 0, int(gib * GIB)))


def test_storage_quota_stops_ingest_until_there_is_room_or_it_is_raised() -> None:
    asked = manifest(quotas={"storageGiB": 10})
    for policy in DriftPolicy:
        asked = replace(asked, spec=replace(asked.spec, drift_policy=policy))
        seen = in_order(asked)
        for gib, used_up in ((9, False), (10, False), (10.01, True), (9.9, True), (9.51, True), (9.5, False), (9.9, False)):
            now = storing(gib, seen)
            actions = plan(asked, now)
            assert kinds(actions) == ([SetHeads] if used_up is not _heads(seen).storage_used_up else []), gib
            assert decision(asked, now).repairs == decision(asked, now).withheld == ()
            seen = done(now, actions)
            said = verdicts(asked, seen)
            assert (said[QUOTA_EXCEEDED].status == "True") is _heads(seen).storage_used_up is used_up
            ready = ("True", "QuotaExceeded") if used_up else ("True", "Ready")
            assert (said[READY].status, said[READY].reason, said[SYNCED].status) == (*ready, "True")
    over = storing(10.4, in_order(manifest(quotas={"storageGiB": 10})))
    over = done(over, plan(manifest(quotas={"storageGiB": 10}), over))
    for quotas, used_up in (({"storageGiB": 10.5}, False), ({}, False), ({"storageGiB": 10.3}, True)):
        edited = manifest(generation=2, quotas=quotas)
        assert _heads(converged(edited, over)).storage_used_up is used_up


def _heads(seen: Observation) -> HeadSettings:
    assert isinstance(seen.database, DatabaseSeen)
    assert seen.database.heads is not None
    return seen.database.heads


def test_quota_condition_shows_both_figures_and_is_unknown_without_database() -> None:
    asked = manifest(quotas={"storageGiB": 0.5})
    said = verdicts(asked, storing(0.61, converged(asked, NOTHING)))[QUOTA_EXCEEDED]
    assert (said.status, said.reason) == ("True", "StorageUsedUp")
    assert "take 0.61 GiB, and spec.quotas.storageGiB is 0.5:" in said.message
    assert "Raise the quota" in said.message
    within = verdicts(asked, storing(0.2, converged(asked, NOTHING)))[QUOTA_EXCEEDED]
    assert within == verdicts(asked, storing(0.3, converged(asked, NOTHING)))[QUOTA_EXCEEDED]
    assert (within.status, within.reason) == ("False", "WithinQuota")
    assert verdicts(manifest(), storing(9_999, converged(manifest(), NOTHING)))[QUOTA_EXCEEDED].reason == "NoQuota"
    away = verdicts(asked, replace(NOTHING, database=UNREACHABLE))[QUOTA_EXCEEDED]
    assert (away.status, away.reason) == ("Unknown", "Unreachable")


def test_suspended_tenant_over_quota_is_ready_with_reason_suspended() -> None:
    asked = manifest(suspend=True, quotas={"storageGiB": 1})
    said = verdicts(asked, converged(asked, storing(2, converged(asked, NOTHING))))
    assert (said[READY].reason, said[QUOTA_EXCEEDED].status) == ("Suspended", "True")


def test_report_policy_applies_quota_beside_withheld_setting() -> None:
    asked = manifest(driftPolicy="Report", quotas={"storageGiB": 1})
    seen = storing(2, in_order(asked))
    seen = changed(seen, "database", heads=replace(_heads(seen), burst=1))
    actions = plan(asked, seen)
    assert kinds(actions) == [SetHeads]
    seen = done(seen, actions)
    assert (_heads(seen).burst, _heads(seen).storage_used_up) == (1, True)
    assert plan(asked, seen) == []
    assert [step.differing for step in decision(asked, seen).withheld] == [("heads burst",)]


REPORTING = manifest(driftPolicy="Report")


def changed(settled: Observation, part: str, **values: Any) -> Observation:
    if part == "search":
        return drifting(settled, *values["drift"])
    return replace(settled, **{part: replace(getattr(settled, part), **values)})


@pytest.mark.parametrize(
    ("part", "values", "named", "works"),
    [
        ("database", {"missing": ("index records_id", "partition records_20260103")}, "index records_id", True),
        ("database", {"missing": ("row-level security",)}, "row-level security", False),
        ("database", {"missing": ("grant INSERT on records",)}, "grant INSERT on records", False),
        ("database", {"heads": replace(head_settings(REPORTING.spec), burst=1)}, "heads burst", True),
        ("database", {"heads": replace(head_settings(REPORTING.spec), state=State.SUSPENDED)}, "heads state", False),
        ("database", {"heads": head_settings(REPORTING.spec, storage_used_up=True)}, "heads storage_used_up", False),
        ("database", {"heads": None}, "heads", False),
        ("search", {"drift": ("field action",)}, "field action", True),
        ("queue", {"settings": {"VisibilityTimeout": 1}}, "VisibilityTimeout", True),
        ("queue", {"drift": ("RedrivePolicy",)}, "RedrivePolicy", True),
        ("queue", {"tenants": ("acme", "zorg")}, "tag of the tenant", True),
        ("queue", {"exists": False, "owners": ("uid-1",), "missing": ("dead-letter queue",)}, "dead-letter queue", False),
        ("vault", {"drift": ("url",)}, "url", True),
        ("vault", {"hashes": {}}, "key of writer", False),
    ],
)
def test_report_policy_names_and_withholds_drift(part: str, values: dict[str, Any], named: str, works: bool) -> None:
    seen = changed(in_order(REPORTING), part, **values)
    assert plan(REPORTING, seen) == []
    assert decision(REPORTING, seen).withheld
    said = verdicts(REPORTING, seen)
    [drifted] = [each for each in Part if said[each].reason == "Drifted"]
    assert named in said[drifted].message
    assert (said[drifted].status == "True") is (said[READY].status == "True") is works
    assert (said[SYNCED].status, said[SYNCED].reason) == ("False", "Drifted")
    assert named in said[SYNCED].message
    repairing = replace(REPORTING, spec=replace(REPORTING.spec, drift_policy=DriftPolicy.REPAIR))
    fresh = changed(in_order(repairing), part, **values)
    assert {named} <= {name for step in decision(repairing, fresh).steps for name in step.differing}
    assert decision(repairing, fresh).withheld == ()


def test_report_policy_retires_the_generation_of_a_lost_range() -> None:
    seen = lose_a_range(in_order(REPORTING))
    assert kinds(plan(REPORTING, seen)) == [RetireGenerations]
    seen = done(seen, plan(REPORTING, seen))
    assert plan(REPORTING, seen) == []
    assert kinds([step.action for step in decision(REPORTING, seen).withheld]) == [CreateIndex]
    said = verdicts(REPORTING, seen)
    assert (said[Part.SEARCH].status, said[Part.SEARCH].reason) == ("False", "Drifted")


@given(cases())
def test_report_policy_withholds_nothing_of_new_or_edited_spec(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    asked = replace(asked, spec=replace(asked.spec, drift_policy=DriftPolicy.REPORT))
    row = seen.database.row if isinstance(seen.database, DatabaseSeen) else None
    assume(row is None or (row.uid, row.generation) != (asked.uid, asked.generation))
    assert decision(asked, seen).withheld == ()
    assert plan(asked, converged(asked, seen)) == []


def test_edited_spec_resets_settled_parts() -> None:
    edited = manifest(generation=2, suspend=True)
    [update] = [action for action in plan(edited, in_order(manifest())) if isinstance(action, UpdateTenant)]
    assert "settled" in update.changes
    assert update.row.settled == ()


def test_dedicated_tenant_sets_its_queue_attributes() -> None:
    asked = manifest(queue={"maxReceiveCount": 3, "visibilityTimeoutSeconds": 60})
    wanted = Queue(visibility_timeout_seconds=60, max_receive_count=3)
    [made] = [action for action in plan(asked, NOTHING) if isinstance(action, CreateQueue)]
    assert made.settings == wanted
    seen = changed(converged(asked, NOTHING), "queue", settings={"VisibilityTimeout": 30, "maxReceiveCount": 3})
    assert plan(asked, seen) == [SetQueueAttributes(made.queue, made.mark, ("VisibilityTimeout",), wanted)]


def test_lost_index_is_not_ready_until_it_is_created() -> None:
    seen = replace(converged(manifest(), NOTHING), search=IndexSeen(1))
    said = verdicts(manifest(), seen, {Part.DATABASE: UNREACHABLE})
    assert (said[Part.SEARCH].status, said[READY].status) == ("Unknown", "False")


def test_index_is_not_created_without_database() -> None:
    seen = replace(NOTHING, database=UNREACHABLE)
    assert kinds(plan(manifest(), seen)) == [CreateQueue]
    assert verdicts(manifest(), seen)[Part.SEARCH].status == "Unknown"


@given(cases())
def test_index_is_created_only_for_a_generation_without_cursors(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    for _ in range(ROUNDS_MAX):
        actions = plan(asked, seen)
        for action in actions:
            if isinstance(action, CreateIndex | RecordGeneration):
                assert isinstance(seen.database, DatabaseSeen)
                assert action.generation not in {row.name for row in seen.database.generations}
        seen = done(seen, actions)


@pytest.mark.parametrize(
    "strange",
    [
        {"search": IndexSeen(1, (RangeSeen("decklog-t-acme.v1-1.20260101", "x", "other"),))},
        {"search": IndexSeen(1, (RangeSeen("decklog-t-acme", "x", None),))},
        {"queue": QueueSeen(exists=True, owners=("other", "other"))},
        {"queue": QueueSeen(owners=("other",))},
        {"database": DatabaseSeen(row=registered(manifest(uid="other")))},
    ],
    ids=["index of another", "index without a mark", "queue of another", "dead-letter queue of another", "row of another"],
)
def test_foreign_owner_is_a_conflict_and_nothing_is_planned(strange: dict[str, object]) -> None:
    seen = replace(NOTHING, **strange)
    refused = refusal(manifest(), seen)
    assert refused is not None
    assert refused.reason == "Conflict"
    assert plan(manifest(), seen) == []
    said = verdicts(manifest(), seen)
    assert {said[READY].reason, said[SYNCED].reason} == {"Conflict"}
    assert said[READY].status == "False"


def test_unknown_mark_is_left_alone_without_database() -> None:
    seen = Observation(
        UNREACHABLE,
        Installation(INSTALLATION),
        IndexSeen(1, (RangeSeen("decklog-t-acme.v1-1.20260101", "x", "uid-0", ("field",)),)),
        QueueSeen(exists=True, owners=("uid-0", "uid-0"), drift=("attribute",)),
    )
    assert refusal(manifest(), seen) is None
    assert plan(manifest(), seen) == []
    said = verdicts(manifest(), seen)
    assert {said[Part.SEARCH].status, said[Part.QUEUE].status} == {"Unknown"}


@pytest.mark.parametrize(
    ("isolation", "days", "span"), [("Shared", 31, 1), ("Shared", 91, 7), ("Dedicated", 91, 1), ("Dedicated", 3650, 30)]
)
def test_partition_days_follow_retention_of_the_relation(isolation: str, days: int, span: int) -> None:
    asked = manifest(isolation=isolation, retention={"days": days})
    [made] = [action for action in plan(asked, NOTHING) if isinstance(action, CreateRelations)]
    assert made.partition_days == span


def test_shared_index_and_queue_carry_the_installation_mark() -> None:
    shared = manifest(isolation="Shared")
    marks = {action.mark.uid for action in plan(shared, NOTHING) if isinstance(action, CreateIndex | CreateQueue)}
    assert marks == {INSTALLATION}
    assert {Part.SEARCH, Part.QUEUE}.isdisjoint(
        action.part for action in plan(shared, replace(NOTHING, installation=Installation()))
    )


def test_reserved_tenant_marks_nothing_before_registration() -> None:
    platform = manifest(PLATFORM_TENANT, isolation="Shared", retention={"days": 365})
    first = plan(platform, replace(NOTHING, installation=Installation()))
    assert {action.part for action in first} == {Part.DATABASE, Part.CREDENTIALS}
    end = converged(platform, replace(NOTHING, installation=Installation()))
    assert isinstance(end.search, IndexSeen)
    assert {each.owner for each in end.search.ranges} == {platform.uid}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"isolation": "Shared"}),
        ({"isolation": "Shared"}, {}),
        ({"isolation": "Shared", "retention": {"days": 90}}, {"isolation": "Shared", "retention": {"days": 91}}),
        ({"isolation": "Shared", "retention": {"days": 90}}, {"isolation": "Shared", "retention": {"days": 30}}),
    ],
)
def test_isolation_and_retention_class_are_immutable(before: dict[str, Any], after: dict[str, Any]) -> None:
    seen = converged(manifest(**before), NOTHING)
    changed = manifest(generation=2, **after)
    refused = refusal(changed, seen)
    assert refused is not None
    assert refused.reason == "Immutable"
    assert plan(changed, seen) == []


def test_cell_is_immutable_when_installation_renames_it() -> None:
    seen = replace(converged(manifest(), NOTHING), installation=Installation(INSTALLATION, cell="eu-1"))
    moved = manifest(generation=2, cell="eu-1")
    refused = refusal(moved, seen)
    assert refused is not None
    assert (refused.reason, "'default'" in refused.message) == ("Immutable", True)
    assert plan(moved, seen) == []


@pytest.mark.parametrize("database", [DatabaseSeen(), UNREACHABLE], ids=["seen", "not seen"])
def test_unknown_cell_is_refused_and_names_the_known_one(
    database: DatabaseSeen | Trouble,
) -> None:
    asked = manifest(cell="us-2")
    seen = replace(NOTHING, database=database, installation=Installation(INSTALLATION, cell="eu-1"))
    assert plan(asked, seen) == []
    said = verdicts(asked, seen)
    assert {said[READY].reason, said[SYNCED].reason} == {"UnknownCell"} <= TERMINAL
    assert "no cell 'us-2' in this installation, which has 'eu-1' alone" in said[READY].message
    assert plan(manifest(cell="eu-1"), replace(seen, database=DatabaseSeen())) != []


def test_retention_days_may_change_within_class_or_when_dedicated() -> None:
    cases: tuple[tuple[dict[str, Any], int], ...] = (({"isolation": "Shared"}, 31), ({}, 3650))
    for before, after in cases:
        seen = converged(manifest(**before), NOTHING)
        wanted = manifest(generation=2, **{**before, "retention": {"days": after}})
        assert kinds(plan(wanted, seen)) == [UpdateTenant]


def test_older_generation_is_superseded() -> None:
    seen = converged(manifest(generation=3), NOTHING)
    stale = manifest(generation=2, suspend=True)
    assert plan(stale, seen) == []
    assert verdicts(stale, seen)[SYNCED].reason == "Superseded"


def test_cell_refuses_new_dedicated_tenants_over_the_limit() -> None:
    full = replace(NOTHING, database=DatabaseSeen(dedicated=DEDICATED_MAX))
    refused = refusal(manifest(), full)
    assert refused is not None
    assert refused.reason == "TooManyDedicated"
    assert refusal(manifest(isolation="Shared"), full) is None
    assert refusal(manifest(), replace(full, database=DatabaseSeen(row=registered(manifest()), dedicated=DEDICATED_MAX))) is None


def test_unconfigured_backend_is_ready_and_names_its_substitute() -> None:
    seen = converged(manifest(), Observation(DatabaseSeen(), Installation(INSTALLATION)))
    said = verdicts(manifest(), seen)
    assert said[READY].status == "True"
    assert (said[Part.SEARCH].status, said[Part.SEARCH].reason) == ("True", "NotConfigured")
    assert "Postgres" in said[Part.SEARCH].message
    assert (said[Part.QUEUE].status, said[Part.QUEUE].reason) == ("True", "NotConfigured")
    assert "sweep" in said[Part.QUEUE].message


def test_failed_action_appears_in_its_condition() -> None:
    seen = converged(manifest(), NOTHING)
    said = verdicts(manifest(), seen, {Part.QUEUE: Trouble("Unreachable", "SQS cannot be reached.")})
    assert (said[Part.QUEUE].status, said[Part.QUEUE].message) == ("False", "SQS cannot be reached.")
    assert said[Part.DATABASE].status == "True"
    assert (said[READY].status, said[SYNCED].status) == ("False", "False")
    assert Part.QUEUE in said[READY].message


def test_condition_keeps_transition_time_until_status_changes() -> None:
    good = verdicts(manifest(), converged(manifest(), NOTHING))
    bad = verdicts(manifest(), converged(manifest(), NOTHING), {Part.QUEUE: UNREACHABLE})
    first = conditions(good, 1, (), NOW)
    second = conditions(bad, 2, first, NOW + timedelta(minutes=1))
    third = conditions(bad, 3, second, NOW + timedelta(minutes=2))
    changed = {condition.type for condition in second if condition.last_transition_time != "2026-01-02T03:04:05Z"}
    assert changed == {READY, Part.QUEUE, SYNCED}
    assert {condition.observed_generation for condition in third} == {3}
    assert [each.last_transition_time for each in third] == [each.last_transition_time for each in second]
