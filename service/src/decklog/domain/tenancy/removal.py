"""What is to be done for a Tenant that somebody deleted: from its policy and what is there, the next actions. Pure.

First nobody writes or reads any more, and every process has heard of it; then, where the policy asks for it, all records go into
the archive, which the workers see to; then the queue and the index go, and storage last. A Tenant under a hold keeps everything,
whatever is there, and so does a backend that cannot be seen: then nothing is removed anywhere, as whose it is, or what is left of
it, could not be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from decklog.domain.archive.manifest import ArchiveSeen
from decklog.domain.log import rfc3339_seconds
from decklog.domain.tenancy.decision import Observation
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import index_name, queue_name
from decklog.domain.tenancy.parts.credentials import RevokeKeys
from decklog.domain.tenancy.parts.database import RemoveTenant, SetHeads, UpdateTenant, partition_days
from decklog.domain.tenancy.parts.part import Action, Refusal, Trouble
from decklog.domain.tenancy.parts.queue import QueueSeen, RemoveQueue
from decklog.domain.tenancy.parts.search import IndexSeen, RemoveDocuments, RemoveIndex
from decklog.domain.tenancy.registered import DatabaseSeen, Row, Stopped
from decklog.domain.tenancy.spec import DeletionPolicy, TenantSpec, retention_class
from decklog.domain.tenancy.status import ARCHIVE, READY, SYNCED, Part, Verdict
from decklog.domain.tenant import Isolation, State

STOP_SECONDS = 5.0
"""How long ago a tenant must have been marked as deleted before anything of it goes: no process serves by a registry that is
older than two seconds, so nobody writes, reads or indexes it any more."""
DELETING = "Deleting"
ARCHIVING = "Archiving"
_NO_ARCHIVE = Verdict(
    "False",
    "NoArchive",
    "spec.deletionPolicy is Archive, and no worker tells of an archive: a deletion stops ingest and reads and then waits, with all "
    "data kept. Give the workers DECKLOG_ARCHIVE_BUCKET, or set the policy to Retain or to Delete to go on.",
)


def deletion_refusal(spec: TenantSpec) -> Refusal | None:
    """Why a deletion is not carried out, whatever is there; the tenant goes on as if nobody had asked for it."""
    if spec.legal_hold:
        return Refusal(
            "LegalHold",
            "The Tenant is not deleted: spec.legalHold is set. Nothing is removed before it is lifted (set to false).",
        )
    if spec.deletion_protection:
        return Refusal(
            "DeletionProtected",
            "The Tenant is not deleted: spec.deletionProtection is set. Nothing is removed before it is set to false.",
        )
    return None


def plan_removal(manifest: Manifest, seen: Observation, stopped: Stopped | None) -> list[Action]:
    """The next actions, in their order: if one fails, those of other parts after it are not to be done. Nothing for a tenant
    of another uid. `stopped` is None for a tenant that is not marked as deleted."""
    database = seen.database
    if deletion_refusal(manifest.spec) or isinstance(database, Trouble):
        return []
    row = database.row
    if row is not None and row.uid != manifest.uid:
        return []
    if row is not None and (stop := _stop(manifest, row, database)):
        return stop
    if row is not None and not (_heard(stopped) and may_go(manifest, database)):
        return []
    if isinstance(seen.search, Trouble) or isinstance(seen.queue, Trouble):
        return []
    actions = [*_outside(manifest, seen, row)]
    if row is not None:
        actions.append(RemoveTenant(row, purged_after(row, stopped), _archived_in(manifest, database)))
    return actions


def may_go(manifest: Manifest, database: DatabaseSeen) -> bool:
    """Whether the policy lets go of what is stored, as things are now."""
    policy = manifest.spec.deletion_policy
    return policy is DeletionPolicy.DELETE or (policy is DeletionPolicy.ARCHIVE and _archived_in(manifest, database) != "")


def _archived_in(manifest: Manifest, database: DatabaseSeen) -> str:
    """The manifest that holds everything, where one has to; else empty."""
    asked = manifest.spec.deletion_policy is DeletionPolicy.ARCHIVE
    return database.archive.manifest if asked and database.archive is not None else ""


def purged_after(row: Row, stopped: Stopped | None) -> datetime | None:
    """When the retention of the class that a tenant shares has ended for its last record: the end of that record's partition,
    and the days of the class. None where nothing is left that long."""
    if row.isolation is Isolation.DEDICATED or stopped is None or stopped.last_received is None:
        return None
    days = retention_class(row.retention_days)
    span = timedelta(days=partition_days(days))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + ((stopped.last_received - epoch) // span + 1) * span + timedelta(days=days)


def names(manifest: Manifest, row: Row | None, prefix: str) -> tuple[str, str]:
    """Of the index and the queue: as they were made, whatever the manifest or the settings say by now."""
    if row is not None:
        return row.index, row.queue
    return index_name(manifest.name, manifest.spec, prefix), queue_name(manifest.name, manifest.spec, prefix)


def _stop(manifest: Manifest, row: Row, database: DatabaseSeen) -> list[Action]:
    """Ingest and reads are refused and the keys revoked: the first step of every policy, and all that Retain does. Who archives
    goes by the registry's spec, which is brought up to date for that."""
    actions = list[Action]()
    wanted = replace(row, state=State.DELETED)
    if manifest.spec.deletion_policy is DeletionPolicy.ARCHIVE:
        wanted = replace(wanted, spec=manifest.spec)
    if changes := tuple(name for name in ("state", "spec") if getattr(row, name) != getattr(wanted, name)):
        actions.append(UpdateTenant(wanted, changes))
    if database.heads is not None and database.heads.state is not State.DELETED:
        actions.append(SetHeads(replace(database.heads, state=State.DELETED)))
    if database.keys:
        actions.append(RevokeKeys(tuple(sorted(key.id for key in database.keys))))
    return actions


def _heard(stopped: Stopped | None) -> bool:
    return stopped is not None and stopped.seconds >= STOP_SECONDS


def _outside(manifest: Manifest, seen: Observation, row: Row | None) -> list[Action]:
    """What of the index and the queue is to go. Of a tenant that was never registered there may be some, too, and no records."""
    actions = list[Action]()
    if (row.isolation if row else manifest.spec.isolation) is Isolation.SHARED:
        shared = (
            isinstance(seen.search, IndexSeen) and seen.search.owner is not None and seen.search.owner == seen.installation.uid
        )
        if row is not None and shared:
            actions.append(RemoveDocuments(row.index, row.id))
        return actions
    ours = frozenset((manifest.uid, *(row.former_uids if row else ())))
    index, queue = names(manifest, row, seen.installation.prefix)
    if isinstance(seen.search, IndexSeen) and seen.search.owner in ours:
        actions.append(RemoveIndex(index))
    if isinstance(seen.queue, QueueSeen) and not ours.isdisjoint(seen.queue.owners):
        actions.append(RemoveQueue(queue, ours))
    return actions


def removal_verdicts(
    manifest: Manifest,
    seen: Observation,
    troubles: Mapping[Part, Trouble],
    *,
    left: Sequence[Action] = (),
    removed: RemoveTenant | None = None,
) -> dict[str, Verdict]:
    """Every condition after a visit; `Synced` says whether the removal is complete, and else what it waits for. `left` is what
    is still to do, `removed` what this very visit did last."""
    observed = {Part.DATABASE: seen.database, Part.SEARCH: seen.search, Part.QUEUE: seen.queue}
    failed = {part: each for part, each in observed.items() if isinstance(each, Trouble)} | dict(troubles)
    if failed:
        first = next(iter(failed.values()))
        unknown = Verdict("Unknown", first.reason, "Being deleted; see Synced.")
        parts = {part: Verdict("False", each.reason, each.message) for part, each in failed.items()}
        waits = f"The deletion waits for {', '.join(failed)}, and nothing is lost meanwhile. {first.message}"
        return {
            **_all(unknown, Verdict("False", first.reason, waits), parts),
            **archive_verdict(manifest.spec, seen, deleted=True),
        }
    row = seen.database.row if isinstance(seen.database, DatabaseSeen) else None
    if row is not None and row.uid == manifest.uid and (waiting := _waiting(manifest, seen, left)):
        going = Verdict("False", DELETING, "Being deleted: ingest and reads are refused, the keys are revoked; see Synced.")
        return {**_all(going, waiting), **archive_verdict(manifest.spec, seen, deleted=True)}
    gone = _gone(manifest, row, removed)
    archived = {ARCHIVE: _archived(removed.archive)} if removed is not None and removed.archive else {}
    return {**_all(gone, Verdict("True", gone.reason, gone.message)), **archived}


def archive_verdict(spec: TenantSpec, seen: Observation, *, deleted: bool = False) -> dict[str, Verdict]:
    """Of the condition `ArchiveReady`, where an archive is asked for: whether it can be used, and of a deleted tenant whether
    all is in it. Without the database nothing is known of it."""
    if spec.deletion_policy is not DeletionPolicy.ARCHIVE:
        return {}
    if isinstance(seen.database, Trouble):
        return {ARCHIVE: Verdict("Unknown", "WaitingForDatabase", "What the workers tell of the archive is in the database.")}
    told = seen.database.archive or ArchiveSeen()
    if deleted and told.manifest:
        return {ARCHIVE: _archived(told.manifest)}
    if (place := told.place) is None:
        return {ARCHIVE: _NO_ARCHIVE}
    if place.reason:
        waits = "The deletion waits for it" if deleted else "A deletion would wait for it"
        return {ARCHIVE: Verdict("False", place.reason, f"{place.message} {waits}, with all data kept.")}
    if deleted:
        so_far = f"{told.archived} of {told.records} records are in {place.place}."
        return {ARCHIVE: Verdict("False", ARCHIVING, f"{so_far} All are read once more before anything is removed.")}
    days = spec.retention.archive_days
    kept = f", and is locked there for {days} days" if days and place.locked else f", with {days} days as advice" if days else ""
    return {ARCHIVE: Verdict("True", "Available", f"A deletion puts all records into {place.place} first{kept}.")}


def _archived(manifest: str) -> Verdict:
    return Verdict("True", "Archived", f"All records are in the archive, and were read back: {manifest}.")


def _waiting(manifest: Manifest, seen: Observation, left: Sequence[Action]) -> Verdict | None:
    policy = manifest.spec.deletion_policy
    if policy is DeletionPolicy.RETAIN:
        return None
    if left:
        return Verdict("False", DELETING, f"Still to do: {', '.join(type(action).__name__ for action in left)}.")
    archive = archive_verdict(manifest.spec, seen, deleted=True).get(ARCHIVE)
    if archive is not None and archive.status != "True":
        return archive
    return Verdict("False", DELETING, "Waits until every process has heard that the tenant is deleted.")


def _gone(manifest: Manifest, row: Row | None, removed: RemoveTenant | None) -> Verdict:
    if row is not None and row.uid == manifest.uid:
        return Verdict("False", "Retained", "Deleted: ingest and reads are refused, the keys are revoked, all data is kept.")
    if removed is not None and removed.purged_after is not None:
        return Verdict(
            "False",
            "Removed",
            "Deleted: nobody can read its records any more. They are in partitions that it shared with others, the last of which "
            f"has done its time at purgedAfter {rfc3339_seconds(removed.purged_after)}.",
        )
    if row is None and manifest.spec.deletion_policy is DeletionPolicy.DELETE:
        return Verdict("False", "Removed", "Deleted: nothing is kept of it.")
    if row is None and manifest.spec.deletion_policy is DeletionPolicy.ARCHIVE:
        return Verdict("False", "Removed", "Deleted: nothing is kept of it but what is in the archive.")
    return Verdict("False", "NothingToRetain", "Deleted: nothing was ever made for this object.")


def _all(ready: Verdict, synced: Verdict, parts: Mapping[Part, Verdict] | None = None) -> dict[str, Verdict]:
    return {READY: ready, **{part.value: (parts or {}).get(part, ready) for part in Part}, SYNCED: synced}
