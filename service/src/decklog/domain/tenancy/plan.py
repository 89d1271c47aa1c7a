"""What is to be done for a tenant: from what was asked for and what is there, a list of typed actions. Pure.

`services/provisioning` observes every backend, asks `plan` and applies. The plan of what it asked for is empty, so it
may be made as often as one likes; no action of it removes data (see `removal`). What must not be done at all is a `Refusal`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from decklog.domain.tenancy.decision import Observation
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import index_name, queue_name, schema_name
from decklog.domain.tenancy.parts.credentials import IssueKeys, RestateKeys, RevokeKeys, VaultSeen
from decklog.domain.tenancy.parts.database import (
    DEDICATED_MAX,
    FORMER_UIDS_MAX,
    NEWER_TEMPLATE,
    AdoptTenant,
    CreateRelations,
    MakePartitions,
    RegisterTenant,
    SetHeads,
    UpdateTenant,
    head_settings,
    partition_days,
)
from decklog.domain.tenancy.parts.keys import (
    Reason,
    current_keys,
    due_roles,
    key_status,
    succession,
    valid_until,
)
from decklog.domain.tenancy.parts.part import Action, Mark, Refusal, Trouble
from decklog.domain.tenancy.parts.queue import CreateQueue, QueueSeen, SetQueueAttributes, queue_values
from decklog.domain.tenancy.parts.search import CreateIndex, IndexSeen, RewindIndexer, UpdateIndex
from decklog.domain.tenancy.quota import is_used_up
from decklog.domain.tenancy.registered import DatabaseSeen, HeadSettings, Row
from decklog.domain.tenancy.spec import AdoptionPolicy, DriftPolicy, Queue, retention_class
from decklog.domain.tenancy.status import KeyStatus, Usage
from decklog.domain.tenant import PLATFORM_TENANT, Isolation, State

# --- the decisions ---------------------------------------------------------------------------------------------------


def _shared(manifest: Manifest) -> bool:
    return manifest.spec.isolation is Isolation.SHARED


def owner(manifest: Manifest, seen: Observation) -> str | None:
    """The uid that index and queue are to be marked with, or None where it cannot be known now."""
    if not _shared(manifest):
        return manifest.uid
    if manifest.name == PLATFORM_TENANT:
        # Only once it is registered: two processes may have thought of a uid at once.
        return seen.database.row.uid if isinstance(seen.database, DatabaseSeen) and seen.database.row else None
    return seen.installation.uid


def _mark(manifest: Manifest, seen: Observation) -> Mark | None:
    uid = owner(manifest, seen)
    return None if uid is None else Mark(PLATFORM_TENANT if _shared(manifest) else manifest.name, uid)


def _former(manifest: Manifest, database: DatabaseSeen | Trouble) -> frozenset[str]:
    """Uids whose marks are the tenant's own from before it was adopted."""
    if _shared(manifest) or not isinstance(database, DatabaseSeen) or database.row is None:
        return frozenset()
    return frozenset((database.row.uid, *database.row.former_uids))


def _foreign_registration(manifest: Manifest, seen: DatabaseSeen, prefix: str) -> Refusal | None:
    row = seen.row
    if row is None:
        if not _shared(manifest) and seen.dedicated >= DEDICATED_MAX:
            return Refusal(
                "TooManyDedicated",
                f"This cell has its {DEDICATED_MAX} Dedicated tenants. Use isolation Shared, or another cell.",
            )
        return None
    if row.uid != manifest.uid and row.state is not State.DELETED:
        return Refusal(
            "Conflict",
            f"A tenant {manifest.name!r} is registered for another object, with UID {row.uid}. Delete that one first, or use another name.",
        )
    if row.uid != manifest.uid and manifest.spec.adoption_policy is AdoptionPolicy.REFUSE:
        return Refusal(
            "AdoptionRefused",
            f"A deleted tenant {manifest.name!r} left its data, and spec.adoptionPolicy is Refuse. Set it to Adopt to take that over, or use another name.",
        )
    if row.isolation is not manifest.spec.isolation:
        return Refusal("Immutable", f"spec.isolation is {row.isolation.value} and cannot be changed.")
    if row.cell != manifest.spec.cell:
        return Refusal("Immutable", f"spec.cell is {row.cell!r} and cannot be changed: the records are there.")
    if row.schema != schema_name(manifest.name, manifest.spec):
        kept = row.schema.removeprefix("shared_")
        return Refusal(
            "Immutable",
            f"spec.retention.days may change only within the class of {kept} days that the tenant was created in; "
            f"{manifest.spec.retention.days} is of the class of {retention_class(manifest.spec.retention.days)} days.",
        )
    names = index_name(manifest.name, manifest.spec, prefix), queue_name(manifest.name, manifest.spec, prefix)
    if (row.index, row.queue) != names:
        return Refusal("Immutable", f"The tenant was made with the index {row.index!r}; the prefix of names cannot be changed.")
    if row.uid == manifest.uid and row.generation > manifest.generation:
        return Refusal("Superseded", f"Generation {row.generation} of this tenant was already applied.")
    return None


def _foreign_marks(manifest: Manifest, seen: Observation) -> Refusal | None:
    """A mark of somebody else on what would be ours; no mark at all counts as somebody else's."""
    ours, former = owner(manifest, seen), _former(manifest, seen.database)
    found: list[tuple[str, str, str | None]] = []
    if isinstance(seen.search, IndexSeen) and seen.search.exists:
        found.append(("index", index_name(manifest.name, manifest.spec, seen.installation.prefix), seen.search.owner))
    if isinstance(seen.queue, QueueSeen):
        found += (
            ("queue", queue_name(manifest.name, manifest.spec, seen.installation.prefix), owner) for owner in seen.queue.owners
        )
    # Without the registry it cannot be told who owned a tenant before; a strange mark is not written to meanwhile.
    untold = ours is None or (isinstance(seen.database, Trouble) and not _shared(manifest))
    for kind, name, mark in found:
        if mark == ours or mark in former or (mark is not None and untold):
            continue
        whose = f"belongs to UID {mark}" if mark else "was not made by Decklog"
        return Refusal("Conflict", f"The {kind} {name!r} {whose}. Nothing is written to it. Remove it, or use another name.")
    return None


def refusal(manifest: Manifest, seen: Observation) -> Refusal | None:
    """Why nothing may be done for this manifest, or None."""
    if manifest.spec.cell != (cell := seen.installation.cell):
        return Refusal(
            "UnknownCell",
            f"There is no cell {manifest.spec.cell!r} in this installation, which has {cell!r} alone. Make the Tenant anew with that "
            "cell, or give it to the installation that has the other one (DECKLOG_CELL).",
        )
    registered = (
        _foreign_registration(manifest, seen.database, seen.installation.prefix)
        if isinstance(seen.database, DatabaseSeen)
        else None
    )
    return registered or _foreign_marks(manifest, seen)


def plan(manifest: Manifest, seen: Observation, now: datetime) -> list[Action]:
    """What is to be done so that what is there becomes what is asked for at this time; nothing where that is refused.

    Backends that could not be seen are left alone, the others are not held up by them.
    """
    actions = _asked_for(manifest, seen, now)
    if manifest.spec.drift_policy is DriftPolicy.REPAIR:
        return actions
    left_alone = repairs(manifest, seen, actions)
    return [action for action in actions if action not in left_alone]


def withheld(manifest: Manifest, seen: Observation, now: datetime) -> list[Action]:
    """What driftPolicy Report keeps the plan from putting right."""
    if manifest.spec.drift_policy is DriftPolicy.REPAIR:
        return []
    return repairs(manifest, seen, _asked_for(manifest, seen, now))


def _asked_for(manifest: Manifest, seen: Observation, now: datetime) -> list[Action]:
    if refusal(manifest, seen):
        return []
    return [*_database(manifest, seen), *_search(manifest, seen), *_queue(manifest, seen), *_credentials(manifest, seen, now)]


def repairs(manifest: Manifest, seen: Observation, actions: Iterable[Action]) -> list[Action]:
    """Those that put right what somebody changed behind our back: it was in order for this very spec. What time alone asks
    for (partitions ahead, keys on schedule, the end of old ones), another repair or a newer Decklog is not among them."""
    row = seen.database.row if isinstance(seen.database, DatabaseSeen) else None
    if row is None or (row.uid, row.generation) != (manifest.uid, manifest.generation):
        return []
    return [action for action in actions if action.part in row.settled and not _of_itself(action, manifest, seen)]


def _of_itself(action: Action, manifest: Manifest, seen: Observation) -> bool:
    """Whether this becomes due without anybody's doing."""
    match action:
        case SetHeads():
            heads = _heads(seen)
            only = heads is not None and replace(heads, storage_used_up=action.settings.storage_used_up) == action.settings
            return only and bool(manifest.spec.quotas.storage_gib)
        case MakePartitions() | RewindIndexer() | RevokeKeys():
            return True
        case IssueKeys():
            return action.reason is not Reason.LOST
        case CreateRelations():
            return NEWER_TEMPLATE in action.missing
        case UpdateIndex():
            return "version" in action.drift
    return False


def fields(action: Action, seen: Observation) -> tuple[str, ...]:
    """Names of what an action puts right."""
    match action:
        case CreateRelations():
            return action.missing
        case UpdateTenant():
            return tuple(f"registered {name}" for name in action.changes)
        case SetHeads():
            heads = _heads(seen)
            names = HeadSettings.__struct_fields__
            differing = (name for name in names if heads and getattr(heads, name) != getattr(action.settings, name))
            return tuple(f"heads {name}" for name in differing) or ("heads",)
        case CreateIndex():
            return ("index",)
        case CreateQueue():
            return (isinstance(seen.queue, QueueSeen) and seen.queue.missing) or ("queue",)
        case UpdateIndex() | SetQueueAttributes() | RestateKeys():
            return action.drift
        case IssueKeys():
            return tuple(f"key of {role.value}" for role in action.roles)
    return (type(action).__name__,)


def disabling(action: Action, seen: Observation) -> bool:
    """Whether its part does not do its work while this is left undone. Without an index of the database, with another
    quota or with another attribute it works, if worse."""
    match action:
        case CreateRelations():
            return not all(thing.startswith(("index ", "partition ")) for thing in action.missing)
        case SetHeads():
            heads, wanted = _heads(seen), action.settings
            return heads is None or (heads.state, heads.storage_used_up) != (wanted.state, wanted.storage_used_up)
        case UpdateTenant():
            return not {"state", "schema"}.isdisjoint(action.changes)
    return not isinstance(action, UpdateIndex | SetQueueAttributes | RestateKeys)


def _heads(seen: Observation) -> HeadSettings | None:
    return seen.database.heads if isinstance(seen.database, DatabaseSeen) else None


def storage_used_up(manifest: Manifest, database: DatabaseSeen) -> bool:
    """Whether the tenant's records take more room than they may. A quota that was changed is one that was never exceeded."""
    quotas, row = manifest.spec.quotas, database.row
    refusing = database.heads is not None and database.heads.storage_used_up
    if database.stored is None:
        return refusing and bool(quotas.storage_gib)
    same = row is not None and row.spec is not None and row.spec.quotas.storage_gib == quotas.storage_gib
    return is_used_up(quotas, database.stored.bytes, refusing=refusing and same)


def _wanted_row(manifest: Manifest, row: Row | None, prefix: str) -> Row:
    spec = manifest.spec
    former: tuple[str, ...] = ()
    if row is not None:
        known = (*row.former_uids, row.uid) if row.uid != manifest.uid else row.former_uids
        former = tuple(dict.fromkeys(known))[-FORMER_UIDS_MAX:]
    return Row(
        id=row.id if row else 0,
        uid=manifest.uid,
        isolation=spec.isolation,
        schema=schema_name(manifest.name, spec),
        index=index_name(manifest.name, spec, prefix),
        queue=queue_name(manifest.name, spec, prefix),
        retention_days=spec.retention.days,
        state=head_settings(spec).state,
        display_name=spec.display_name,
        spec=spec,
        generation=manifest.generation,
        former_uids=former,
        conditions=row.conditions if row else (),
        keys_revision=row.keys_revision if row else 0,
        keys_request=row.keys_request if row else "",
        settled=row.settled if row and (row.uid, row.generation) == (manifest.uid, manifest.generation) else (),
        cell=spec.cell,
    )


def _database(manifest: Manifest, seen: Observation) -> Iterable[Action]:
    database = seen.database
    if isinstance(database, Trouble):
        return
    wanted = _wanted_row(manifest, database.row, seen.installation.prefix)
    if database.missing:
        days = partition_days(retention_class(wanted.retention_days) if _shared(manifest) else wanted.retention_days)
        yield CreateRelations(wanted.schema, _shared(manifest), days, database.missing)
    if not database.partitions:
        yield MakePartitions(wanted.schema)
    if database.row is None:
        yield RegisterTenant(wanted)
    elif database.row != wanted:
        changes = tuple(name for name in Row.__struct_fields__ if getattr(database.row, name) != getattr(wanted, name))
        update = AdoptTenant if database.row.state is State.DELETED else UpdateTenant
        yield update(wanted, changes)
    heads, used_up = database.heads, storage_used_up(manifest, database)
    if heads is not None and heads.storage_used_up is not used_up:
        # By itself, as it is asked for by what is stored: a setting that somebody changed besides is drift.
        heads = replace(heads, storage_used_up=used_up)
        yield SetHeads(heads)
    if heads != (settings := head_settings(manifest.spec, storage_used_up=used_up)):
        yield SetHeads(settings)
    if isinstance(seen.search, IndexSeen) and seen.search.uuid != database.index_uuid:
        yield RewindIndexer(wanted.index, seen.search.uuid)


def _search(manifest: Manifest, seen: Observation) -> Iterable[Action]:
    mark, index = _mark(manifest, seen), seen.search
    if not isinstance(index, IndexSeen) or mark is None:
        return
    name = index_name(manifest.name, manifest.spec, seen.installation.prefix)
    if not index.exists:
        # Only when no cursor says any more that records are in it: what is not found must not look as if it were not there.
        if isinstance(seen.database, DatabaseSeen) and seen.database.index_uuid is None:
            yield CreateIndex(name, mark)
    elif index.owner != mark.uid:
        if index.owner in _former(manifest, seen.database):
            yield UpdateIndex(name, mark, (*index.drift, "owner"))
    elif index.drift:
        yield UpdateIndex(name, mark, index.drift)


def _queue(manifest: Manifest, seen: Observation) -> Iterable[Action]:
    mark, queue = _mark(manifest, seen), seen.queue
    if not isinstance(queue, QueueSeen) or mark is None:
        return
    name = queue_name(manifest.name, manifest.spec, seen.installation.prefix)
    marks = set(queue.owners) - {mark.uid}
    if not marks <= _former(manifest, seen.database):
        return  # perhaps somebody else's: the registry will tell
    settings = manifest.spec.queue or Queue()
    wanted = queue_values(settings)
    drift = [each for each, value in wanted.items() if queue.settings.get(each, value) != value]
    drift += queue.drift
    if marks:
        drift.append("owner")
    elif set(queue.tenants) - {mark.tenant}:
        drift.append("tag of the tenant")
    if drift:
        yield SetQueueAttributes(name, mark, tuple(drift), settings)  # makes the one that is missing, too
    elif not queue.exists:
        yield CreateQueue(name, mark, settings)


def _credentials(manifest: Manifest, seen: Observation, now: datetime) -> Iterable[Action]:
    database, vault = seen.database, seen.vault
    if not isinstance(database, DatabaseSeen) or not isinstance(vault, VaultSeen):
        return
    rotation = manifest.spec.credentials.rotation
    revision, done = (database.row.keys_revision, database.row.keys_request) if database.row else (0, "")
    current = current_keys(database.keys, vault.hashes)
    roles, reason = due_roles(manifest, done, database.keys, current, now)
    after = succession(rotation, database.keys, current, roles, now)
    if roles:
        made = [now, *(key.created_at for role, key in current.items() if role not in roles)]
        # A request is for all roles, so it is done whenever any are issued.
        request = manifest.rotate or done
        yield IssueKeys(roles, reason, revision + 1, now, valid_until(rotation, made), request, after)
        return
    until = valid_until(rotation, [key.created_at for key in current.values()])
    said = {"revision": (vault.revision, revision), "validUntil": (vault.valid_until, until)}
    drift = [name for name, (found, wanted) in said.items() if found is not None and found != wanted]
    if drift := [*drift, *(name for name in vault.drift if name not in drift)]:
        yield RestateKeys(revision + 1, until, tuple(drift))
    # Keys that are over, and keys that nobody was given and that nothing ends: they are of no use to anybody.
    if after.revoked:
        yield RevokeKeys(after.revoked)


def keys_told(manifest: Manifest, seen: Observation, now: datetime) -> KeyStatus | None:
    """What may be told of the tenant's keys, as far as they could be seen."""
    database, vault = seen.database, seen.vault
    if not isinstance(database, DatabaseSeen) or not isinstance(vault, VaultSeen) or database.row is None:
        return None
    current = current_keys(database.keys, vault.hashes).values()
    row, rotation = database.row, manifest.spec.credentials.rotation
    return key_status(rotation, database.keys, current, revision=row.keys_revision, rotated=row.keys_request, now=now)


def used(seen: Observation, now: datetime) -> Usage | None:
    """What the tenant uses, as far as it could be seen."""
    stored = seen.database.stored if isinstance(seen.database, DatabaseSeen) else None
    if stored is None:
        return None
    depth = seen.queue.depth if isinstance(seen.queue, QueueSeen) and seen.queue.exists else None
    return Usage(stored.records, stored.bytes, depth, None if seen.search is None else stored.unindexed, now)
