"""The plan makes of whatever is there what was asked for, then has nothing more to do, and never takes anything away."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from decklog.domain.access import Role
from decklog.domain.plan import (
    DEDICATED_MAX,
    TENANT_ROLES,
    Action,
    AdoptTenant,
    CreateIndex,
    CreateQueue,
    CreateRelations,
    DatabaseSeen,
    HeadSettings,
    IndexSeen,
    Installation,
    IssueKeys,
    LiveKey,
    MakePartitions,
    Observation,
    QueueSeen,
    RegisterTenant,
    RevokeKeys,
    RewindIndexer,
    Row,
    SetHeads,
    SetQueueAttributes,
    Trouble,
    UpdateIndex,
    UpdateTenant,
    VaultSeen,
    head_settings,
    owner,
    plan,
    plan_removal,
    refusal,
)
from decklog.domain.status import READY, SYNCED, Part, conditions
from decklog.domain.tenant import (
    PLATFORM_TENANT,
    Isolation,
    Manifest,
    State,
    index_name,
    parse_spec,
    queue_name,
    schema_name,
)
from decklog.domain.verdicts import removal_verdicts, verdicts

ROUNDS_MAX = 4
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UNREACHABLE = Trouble("Unreachable", "It cannot be reached.")
INSTALLATION = "installation"
_numbers = itertools.count()


def manifest(name: str = "acme", uid: str = "uid-1", generation: int = 1, **spec: object) -> Manifest:
    return Manifest(name, uid, generation, parse_spec({"retention": {"days": 90}, **spec}))


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
    )
    return replace(row, **changes)


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
        case RewindIndexer():
            return replace(seen, index_uuid=action.index_uuid)
    raise AssertionError(action)


def done(seen: Observation, actions: Sequence[Action]) -> Observation:
    """A world in which these actions were carried out."""
    for action in actions:
        match action:
            case CreateIndex():
                seen = replace(seen, search=IndexSeen(exists=True, owner=action.mark.uid, uuid=f"index-{next(_numbers)}"))
            case UpdateIndex():
                assert isinstance(seen.search, IndexSeen)
                seen = replace(seen, search=replace(seen.search, owner=action.mark.uid, drift=()))
            case CreateQueue() | SetQueueAttributes():
                seen = replace(seen, queue=QueueSeen(exists=True, owners=(action.mark.uid,) * 2))
            case IssueKeys():
                assert isinstance(seen.database, DatabaseSeen)
                assert isinstance(seen.vault, VaultSeen)
                keys = [LiveKey(f"key-{(n := next(_numbers))}", role, b"%32d" % n) for role in action.roles]
                seen = replace(
                    seen,
                    database=replace(seen.database, keys=(*seen.database.keys, *keys)),
                    vault=VaultSeen({**seen.vault.hashes, **{key.role: key.hash for key in keys}}),
                )
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
specs = st.builds(
    lambda shared, days, rate, suspend, window, title: parse_spec(
        {
            "isolation": "Shared" if shared else "Dedicated",
            "retention": {"days": days},
            "quotas": {"eventsPerSecond": rate, "burst": rate * 2},
            "suspend": suspend,
            "ingest": {"dedupWindow": window},
            "displayName": title,
        }
    ),
    st.booleans(),
    st.sampled_from([1, 30, 31, 90, 365]),
    st.sampled_from([1, 100]),
    st.booleans(),
    st.sampled_from(["30m", "24h"]),
    st.sampled_from(["", "Acme"]),
)
manifests = st.builds(Manifest, st.sampled_from(["acme", "beta-2"]), uids, st.integers(1, 3), specs)
drifts = st.lists(st.sampled_from(["one", "two"]), max_size=2, unique=True).map(tuple)
hashes = st.sampled_from([bytes([n]) * 32 for n in range(4)])
keys = st.lists(
    st.builds(LiveKey, st.sampled_from("abcdef"), st.sampled_from(TENANT_ROLES), hashes), max_size=5, unique_by=lambda key: key.id
).map(tuple)
vaults = st.builds(VaultSeen, st.dictionaries(st.sampled_from(TENANT_ROLES), hashes))
troubles = st.just(UNREACHABLE)


@st.composite
def rows(draw: st.DrawFn, asked: Manifest) -> Row:
    """A row for the manifest's name that some manifest left, now or long ago."""
    before = draw(st.just(asked) | st.builds(Manifest, st.just(asked.name), uids, st.integers(1, 3), specs))
    return registered(
        before,
        state=draw(st.sampled_from(State)),
        former_uids=draw(st.lists(uids, max_size=2, unique=True).map(tuple)),
        spec=draw(st.sampled_from([before.spec, None])),
    )


@st.composite
def worlds(draw: st.DrawFn, asked: Manifest) -> Observation:
    # Mostly the right one, or nearly every world would be refused.
    right = INSTALLATION if asked.spec.isolation is Isolation.SHARED else asked.uid
    owners = st.sampled_from([*[right] * 9, "uid-1", "uid-2", "uid-3", INSTALLATION, None])
    database = st.builds(
        DatabaseSeen,
        row=st.none() | rows(asked),
        missing=drifts,
        partitions=st.booleans(),
        heads=st.none() | st.builds(HeadSettings, st.sampled_from(State), st.just(1), st.just(2), st.just(60)),
        keys=keys,
        index_uuid=st.sampled_from([None, "index-a", "index-b"]),
    ).map(lambda seen: seen if seen.row else replace(seen, heads=None, keys=()))
    index = st.just(IndexSeen()) | st.builds(IndexSeen, st.just(True), owners, st.sampled_from(["index-a", "index-b"]), drifts)
    queue = st.lists(owners, max_size=1).map(lambda some: QueueSeen(owners=tuple(some))) | st.builds(
        QueueSeen, st.just(True), st.tuples(owners, owners), drifts
    )
    return Observation(
        draw(database | troubles),
        Installation(draw(st.sampled_from([INSTALLATION, None]))),
        draw(index | troubles | st.none()),
        draw(queue | troubles | st.none()),
        draw(vaults | troubles | st.none()),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Manifest, Observation]:
    asked = draw(manifests)
    return asked, draw(worlds(asked))


@given(cases())
def test_from_any_world_the_plan_leads_to_one_with_nothing_left_to_do(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    end = converged(asked, seen)
    assert plan(asked, end) == []
    if refusal(asked, end) is None and isinstance(end.database, DatabaseSeen):
        assert end.database.row is not None
        assert (end.database.row.uid, end.database.row.spec) == (asked.uid, asked.spec)
        assert end.database.heads == head_settings(asked.spec)
        if isinstance(end.vault, VaultSeen):
            live = sorted((key.role, key.hash) for key in end.database.keys)
            assert live == sorted((role, end.vault.hashes[role]) for role in TENANT_ROLES)
        assert not isinstance(end.search, IndexSeen) or end.search.drift == () or owner(asked, end) is None
        assert not isinstance(end.queue, QueueSeen) or end.queue.drift == () or owner(asked, end) is None


@given(cases())
def test_a_world_in_order_is_ready_when_every_backend_could_be_seen(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    end = converged(asked, seen)
    said = verdicts(asked, end, {})
    seen_all = not any(isinstance(part, Trouble) for part in (end.database, end.search, end.queue, end.vault))
    assume(asked.spec.isolation is Isolation.DEDICATED or seen.installation.uid)
    assert (said[READY].status == "True") == (seen_all and refusal(asked, end) is None)
    assert set(said) == {READY, *Part, SYNCED}


@given(cases())
def test_no_action_of_a_plan_takes_anything_away(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    keeping = {
        CreateRelations, MakePartitions, RegisterTenant, UpdateTenant, AdoptTenant, SetHeads, RewindIndexer, CreateIndex,
        UpdateIndex, CreateQueue, SetQueueAttributes, IssueKeys, RevokeKeys,
    }  # fmt: skip
    actions = plan(asked, seen)
    assert set(kinds(actions)) <= keeping
    for action in actions:
        if isinstance(action, RegisterTenant | UpdateTenant):
            assert action.row.state is not State.DELETED
        if isinstance(action, UpdateTenant):
            # Where the data is never changes.
            assert {"id", "isolation", "schema", "index", "queue"}.isdisjoint(action.changes)


@given(cases())
def test_no_key_is_revoked_that_somebody_was_given_and_that_is_good(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    assume(isinstance(seen.database, DatabaseSeen) and isinstance(seen.vault, VaultSeen))
    assert isinstance(seen.database, DatabaseSeen)
    assert isinstance(seen.vault, VaultSeen)
    revoked = {key for action in plan(asked, seen) if isinstance(action, RevokeKeys) for key in action.ids}
    end = converged(asked, seen)
    assert isinstance(end.database, DatabaseSeen)
    for role, given_hash in seen.vault.hashes.items():
        good = [key for key in seen.database.keys if (key.role, key.hash) == (role, given_hash)]
        if good:
            assert len([key for key in good if key.id not in revoked]) >= 1


@given(cases())
def test_a_backend_that_cannot_be_seen_is_left_alone(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    parts = {action.part for action in plan(asked, seen)}
    unseen = {
        part
        for part, value in zip(Part, (seen.database, seen.search, seen.queue, seen.vault), strict=True)
        if isinstance(value, Trouble) or value is None
    }
    assert parts.isdisjoint(unseen)


@given(manifests)
def test_a_broken_backend_does_not_change_what_is_done_for_the_others(asked: Manifest) -> None:
    whole = plan(asked, NOTHING)
    for part, name in zip(Part, ("database", "search", "queue", "vault"), strict=True):
        rest = plan(asked, replace(NOTHING, **{name: UNREACHABLE}))
        # Keys are rows of the database, and an index that is empty must be known as such there.
        waiting = {part, Part.CREDENTIALS, Part.SEARCH} if part is Part.DATABASE else {part}
        assert rest == [action for action in whole if action.part not in waiting]


@given(cases())
def test_removing_keeps_all_data_and_is_done_once(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    actions = plan_removal(asked, seen)
    assert set(kinds(actions)) <= {UpdateTenant, SetHeads, RevokeKeys}
    end = done(seen, actions)
    assert plan_removal(asked, end) == []
    assert (end.search, end.queue) == (seen.search, seen.queue)
    if isinstance(end.database, DatabaseSeen) and end.database.row and end.database.row.uid == asked.uid:
        assert isinstance(seen.database, DatabaseSeen)
        assert seen.database.row is not None
        assert end.database.row == replace(seen.database.row, state=State.DELETED)
        assert end.database.keys == ()
        assert end.database.heads is None or end.database.heads.state is State.DELETED
    else:
        assert actions == []


# --- one world at a time ---------------------------------------------------------------------------------------------


def test_a_new_tenant_gets_its_relations_before_its_row_and_its_row_before_its_keys() -> None:
    assert kinds(plan(manifest(), NOTHING)) == [
        CreateRelations,
        MakePartitions,
        RegisterTenant,
        SetHeads,
        CreateIndex,
        CreateQueue,
        IssueKeys,
    ]


def test_a_changed_quota_changes_the_row_and_the_heads_and_nothing_else() -> None:
    seen = converged(manifest(), NOTHING)
    wanted = manifest(generation=2, quotas={"eventsPerSecond": 5, "burst": 5})
    actions = plan(wanted, seen)
    assert kinds(actions) == [UpdateTenant, SetHeads]
    assert isinstance(actions[0], UpdateTenant)
    assert set(actions[0].changes) == {"spec", "generation"}


def test_suspension_reaches_the_row_and_the_heads() -> None:
    seen = done(NOTHING, plan(manifest(), NOTHING))
    end = converged(manifest(generation=2, suspend=True), seen)
    assert isinstance(end.database, DatabaseSeen)
    assert end.database.row is not None
    assert end.database.heads is not None
    assert (end.database.row.state, end.database.heads.state) == (State.SUSPENDED, State.SUSPENDED)
    assert verdicts(manifest(generation=2, suspend=True), end, {})[READY].reason == "Suspended"


def test_a_retained_tenant_is_adopted_with_its_number_and_its_marks_are_renewed() -> None:
    old, new = manifest(uid="uid-1", generation=5), manifest(uid="uid-2", generation=1)
    seen = converged(old, NOTHING)
    retained = done(seen, plan_removal(old, seen))
    assert AdoptTenant in kinds(plan(new, retained))
    end = converged(new, retained)
    assert isinstance(end.database, DatabaseSeen)
    assert isinstance(end.search, IndexSeen)
    assert isinstance(end.queue, QueueSeen)
    assert end.database.row is not None
    assert (end.database.row.id, end.database.row.uid, end.database.row.former_uids) == (7, "uid-2", ("uid-1",))
    assert (end.search.owner, end.queue.owners) == ("uid-2", ("uid-2", "uid-2"))
    assert {key.role for key in end.database.keys} == set(TENANT_ROLES)


def test_a_lost_key_is_replaced_for_its_role_alone() -> None:
    seen = converged(manifest(), NOTHING)
    assert isinstance(seen.vault, VaultSeen)
    assert isinstance(seen.database, DatabaseSeen)
    left: dict[Role, bytes] = {role: value for role, value in seen.vault.hashes.items() if role is not Role.AUDITOR}
    actions = plan(manifest(), replace(seen, vault=VaultSeen(left)))
    [lost] = [key.id for key in seen.database.keys if key.role is Role.AUDITOR]
    assert actions == [IssueKeys((Role.AUDITOR,)), RevokeKeys((lost,))]


def test_an_index_that_was_lost_is_made_again_only_when_no_cursor_says_that_anything_is_in_it() -> None:
    seen = replace(converged(manifest(), NOTHING), search=IndexSeen())
    steps = []
    while actions := plan(manifest(), seen):
        steps += kinds(actions)
        seen = done(seen, actions)
    assert steps == [RewindIndexer, CreateIndex, RewindIndexer]


def test_a_lost_index_is_not_called_ready_while_it_could_not_be_made_again() -> None:
    seen = replace(converged(manifest(), NOTHING), search=IndexSeen())
    said = verdicts(manifest(), seen, {Part.DATABASE: UNREACHABLE}, left=plan(manifest(), seen))
    assert (said[Part.SEARCH].status, said[READY].status) == ("Unknown", "False")


def test_no_index_is_made_while_the_database_cannot_be_told() -> None:
    seen = replace(NOTHING, database=UNREACHABLE)
    assert kinds(plan(manifest(), seen)) == [CreateQueue]
    assert verdicts(manifest(), seen, {})[Part.SEARCH].status == "Unknown"


@given(cases())
def test_an_index_is_made_only_where_the_indexer_begins_at_the_beginning(case: tuple[Manifest, Observation]) -> None:
    asked, seen = case
    for _ in range(ROUNDS_MAX):
        actions = plan(asked, seen)
        if CreateIndex in kinds(actions):
            assert isinstance(seen.database, DatabaseSeen)
            assert seen.database.index_uuid is None
        seen = done(seen, actions)


@pytest.mark.parametrize(
    "strange",
    [
        {"search": IndexSeen(exists=True, owner="other", uuid="x")},
        {"search": IndexSeen(exists=True, owner=None, uuid="x")},
        {"queue": QueueSeen(exists=True, owners=("other", "other"))},
        {"queue": QueueSeen(owners=("other",))},
        {"database": DatabaseSeen(row=registered(manifest(uid="other")))},
    ],
    ids=["index of another", "index without a mark", "queue of another", "dead-letter queue of another", "row of another"],
)
def test_what_belongs_to_another_is_a_conflict_and_nothing_is_written_anywhere(strange: dict[str, object]) -> None:
    seen = replace(NOTHING, **strange)
    refused = refusal(manifest(), seen)
    assert refused is not None
    assert refused.reason == "Conflict"
    assert plan(manifest(), seen) == []
    said = verdicts(manifest(), seen, {})
    assert {said[READY].reason, said[SYNCED].reason} == {"Conflict"}
    assert said[READY].status == "False"


def test_a_strange_mark_is_neither_written_to_nor_condemned_while_the_registry_cannot_tell_whose_it_was() -> None:
    seen = Observation(
        UNREACHABLE,
        Installation(INSTALLATION),
        IndexSeen(exists=True, owner="uid-0", uuid="x", drift=("field",)),
        QueueSeen(exists=True, owners=("uid-0", "uid-0"), drift=("attribute",)),
    )
    assert refusal(manifest(), seen) is None
    assert plan(manifest(), seen) == []
    said = verdicts(manifest(), seen, {})
    assert {said[Part.SEARCH].status, said[Part.QUEUE].status} == {"Unknown"}


@pytest.mark.parametrize(
    ("isolation", "days", "span"), [("Shared", 31, 1), ("Shared", 91, 7), ("Dedicated", 91, 1), ("Dedicated", 3650, 30)]
)
def test_partitions_span_what_the_retention_of_the_relation_asks_for(isolation: str, days: int, span: int) -> None:
    asked = manifest(isolation=isolation, retention={"days": days})
    [made] = [action for action in plan(asked, NOTHING) if isinstance(action, CreateRelations)]
    assert made.partition_days == span


def test_what_tenants_share_is_marked_with_the_installation() -> None:
    shared = manifest(isolation="Shared")
    marks = {action.mark.uid for action in plan(shared, NOTHING) if isinstance(action, CreateIndex | CreateQueue)}
    assert marks == {INSTALLATION}
    assert {Part.SEARCH, Part.QUEUE}.isdisjoint(
        action.part for action in plan(shared, replace(NOTHING, installation=Installation()))
    )


def test_the_reserved_tenant_marks_nothing_before_it_is_registered() -> None:
    platform = manifest(PLATFORM_TENANT, isolation="Shared", retention={"days": 365})
    first = plan(platform, replace(NOTHING, installation=Installation()))
    assert {action.part for action in first} == {Part.DATABASE, Part.CREDENTIALS}
    end = converged(platform, replace(NOTHING, installation=Installation()))
    assert isinstance(end.search, IndexSeen)
    assert end.search.owner == platform.uid


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"isolation": "Shared"}),
        ({"isolation": "Shared"}, {}),
        ({"isolation": "Shared", "retention": {"days": 90}}, {"isolation": "Shared", "retention": {"days": 91}}),
        ({"isolation": "Shared", "retention": {"days": 90}}, {"isolation": "Shared", "retention": {"days": 30}}),
    ],
)
def test_isolation_and_retention_class_cannot_be_changed(before: dict[str, Any], after: dict[str, Any]) -> None:
    seen = converged(manifest(**before), NOTHING)
    changed = manifest(generation=2, **after)
    refused = refusal(changed, seen)
    assert refused is not None
    assert refused.reason == "Immutable"
    assert plan(changed, seen) == []


def test_retention_may_change_within_its_class_and_for_a_dedicated_tenant_at_will() -> None:
    cases: tuple[tuple[dict[str, Any], int], ...] = (({"isolation": "Shared"}, 31), ({}, 3650))
    for before, after in cases:
        seen = converged(manifest(**before), NOTHING)
        wanted = manifest(generation=2, **{**before, "retention": {"days": after}})
        assert kinds(plan(wanted, seen)) == [UpdateTenant]


def test_an_older_generation_does_not_undo_a_newer_one() -> None:
    seen = converged(manifest(generation=3), NOTHING)
    stale = manifest(generation=2, suspend=True)
    assert plan(stale, seen) == []
    assert verdicts(stale, seen, {})[SYNCED].reason == "Superseded"


def test_a_cell_takes_a_bounded_number_of_dedicated_tenants_and_goes_on_with_those_it_has() -> None:
    full = replace(NOTHING, database=DatabaseSeen(dedicated=DEDICATED_MAX))
    refused = refusal(manifest(), full)
    assert refused is not None
    assert refused.reason == "TooManyDedicated"
    assert refusal(manifest(isolation="Shared"), full) is None
    assert refusal(manifest(), replace(full, database=DatabaseSeen(row=registered(manifest()), dedicated=DEDICATED_MAX))) is None


def test_what_is_not_configured_is_ready_and_says_who_does_its_work() -> None:
    seen = converged(manifest(), Observation(DatabaseSeen(), Installation(INSTALLATION)))
    said = verdicts(manifest(), seen, {})
    assert said[READY].status == "True"
    assert (said[Part.SEARCH].status, said[Part.SEARCH].reason) == ("True", "NotConfigured")
    assert "Postgres" in said[Part.SEARCH].message
    assert (said[Part.QUEUE].status, said[Part.QUEUE].reason) == ("True", "NotConfigured")
    assert "sweep" in said[Part.QUEUE].message


def test_what_could_not_be_done_is_told_where_it_failed() -> None:
    said = verdicts(manifest(), NOTHING, {Part.QUEUE: Trouble("Unreachable", "SQS cannot be reached.")})
    assert (said[Part.QUEUE].status, said[Part.QUEUE].message) == ("False", "SQS cannot be reached.")
    assert said[Part.DATABASE].status == "True"
    assert (said[READY].status, said[SYNCED].status) == ("False", "False")
    assert Part.QUEUE in said[READY].message


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    good = verdicts(manifest(), converged(manifest(), NOTHING), {})
    bad = verdicts(manifest(), converged(manifest(), NOTHING), {Part.QUEUE: UNREACHABLE})
    first = conditions(good, 1, (), NOW)
    second = conditions(bad, 2, first, NOW + timedelta(minutes=1))
    third = conditions(bad, 3, second, NOW + timedelta(minutes=2))
    changed = {condition.type for condition in second if condition.last_transition_time != "2026-01-02T03:04:05Z"}
    assert changed == {READY, Part.QUEUE, SYNCED}
    assert {condition.observed_generation for condition in third} == {3}
    assert [each.last_transition_time for each in third] == [each.last_transition_time for each in second]


def test_a_removal_is_complete_only_when_the_database_took_it() -> None:
    seen = converged(manifest(), NOTHING)
    assert removal_verdicts(manifest(), seen, {})[SYNCED].status == "True"
    assert removal_verdicts(manifest(), Observation(UNREACHABLE), {})[SYNCED].status == "False"
    assert removal_verdicts(manifest(), seen, {Part.DATABASE: UNREACHABLE})[SYNCED].status == "False"
    assert removal_verdicts(manifest(uid="other"), seen, {})[SYNCED].reason == "NothingToRetain"
