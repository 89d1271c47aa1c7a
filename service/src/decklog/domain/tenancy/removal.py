"""What is to be done for a Tenant that was deleted: the next actions by its policy, and its conditions. Pure.

The order: ingest and reads are refused until every process applies that; where the policy is Archive, the workers archive all
records; then the queue and the index are removed, and storage last. Nothing is removed under a hold. If any backend is
unreachable, nothing is removed: ownership cannot be verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from decklog.domain.log import rfc3339_seconds
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import index_name, queue_name
from decklog.domain.tenancy.observation import Observation
from decklog.domain.tenancy.parts import archive, credentials, database, queue, search
from decklog.domain.tenancy.parts.database import RemoveTenant
from decklog.domain.tenancy.parts.part import Action
from decklog.domain.tenancy.parts.queue import QueueSeen
from decklog.domain.tenancy.parts.search import IndexSeen
from decklog.domain.tenancy.registered import Row, Stopped
from decklog.domain.tenancy.spec import DeletionPolicy, TenantSpec
from decklog.domain.tenancy.status import ARCHIVE, READY, SYNCED, Part, Verdict
from decklog.domain.tenancy.trouble import Refusal, Trouble

STOP_SECONDS = 5.0
"""Seconds between marking a tenant as deleted and removing anything of it: no process serves by a registry that is older than
two seconds, so none writes, reads or indexes the tenant any more."""
DELETING = "Deleting"


def deletion_refusal(spec: TenantSpec) -> Refusal | None:
    """Return why a deletion is not carried out, whatever exists. The tenant is then looked after as before."""
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
    """Return the next actions in their order; after one fails, those of other parts must not be done.

    Nothing is done for a tenant of another UID. `stopped` is None for a tenant that is not marked as deleted.
    """
    if deletion_refusal(manifest.spec) or isinstance(seen.database, Trouble):
        return []
    look, row = seen.look(manifest, stopped), seen.row
    if row is not None:
        if row.uid != manifest.uid:
            return []
        if stop := [*database.stop(look, seen.database), *credentials.stop(seen.database)]:
            return stop
        if stopped is None or stopped.seconds < STOP_SECONDS or not archive.may_go(manifest.spec, seen.database):
            return []
    if isinstance(seen.search, Trouble) or isinstance(seen.queue, Trouble):
        return []
    actions = list[Action]()
    if isinstance(seen.search, IndexSeen):
        actions += search.removal(look, seen.search)
    if isinstance(seen.queue, QueueSeen):
        actions += queue.removal(look, seen.queue)
    return [*actions, *database.removal(look, seen.database)]


def names(manifest: Manifest, row: Row | None, prefix: str) -> tuple[str, str]:
    """Return the names of the index and the queue as they were created, whatever manifest and settings say now."""
    if row is not None:
        return row.index, row.queue
    return index_name(manifest.name, manifest.spec, prefix), queue_name(manifest.name, manifest.spec, prefix)


def removal_verdicts(
    manifest: Manifest,
    seen: Observation,
    troubles: Mapping[Part, Trouble],
    *,
    left: Sequence[Action] = (),
    removed: RemoveTenant | None = None,
) -> dict[str, Verdict]:
    """Return the verdict of every condition after a visit.

    `Synced` says whether the removal is complete, and otherwise what it waits for. `left` is still to do; `removed` is the
    last action of this visit, where it was carried out.
    """
    archived = archive.verdicts(manifest.spec, seen.database, deleted=True)
    unseen = {part: each for part, each in seen.troubles.items() if part is not Part.CREDENTIALS}  # vaults are not emptied
    if failed := unseen | dict(troubles):
        return _failed(failed) | archived
    row = seen.row
    if row is not None and row.uid == manifest.uid and (waiting := _waiting(manifest.spec, archived, left)):
        going = Verdict("False", DELETING, "Being deleted: ingest and reads are refused, the keys are revoked; see Synced.")
        return {**_all(going, waiting), **archived}
    gone = _gone(manifest, row, removed)
    kept = {ARCHIVE: archive.archived(removed.archive)} if removed is not None and removed.archive else {}
    return {**_all(gone, Verdict("True", gone.reason, gone.message)), **kept}


def _failed(failed: Mapping[Part, Trouble]) -> dict[str, Verdict]:
    first = next(iter(failed.values()))
    unknown = Verdict("Unknown", first.reason, "Being deleted; see Synced.")
    waits = f"The deletion waits for {', '.join(failed)}, and nothing is lost meanwhile. {first.message}"
    parts = {part: Verdict("False", each.reason, each.message) for part, each in failed.items()}
    return _all(unknown, Verdict("False", first.reason, waits), parts)


def _waiting(spec: TenantSpec, archived: Mapping[str, Verdict], left: Sequence[Action]) -> Verdict | None:
    if spec.deletion_policy is DeletionPolicy.RETAIN:
        return None
    if left:
        return Verdict("False", DELETING, f"Still to do: {', '.join(type(action).__name__ for action in left)}.")
    if ARCHIVE in archived and archived[ARCHIVE].status != "True":
        return archived[ARCHIVE]
    return Verdict("False", DELETING, "Waits until every process applies the deletion, a few seconds.")


def _gone(manifest: Manifest, row: Row | None, removed: RemoveTenant | None) -> Verdict:
    if row is not None and row.uid == manifest.uid:
        return Verdict("False", "Retained", "Deleted: ingest and reads are refused, the keys are revoked, all data is kept.")
    if removed is not None and removed.purged_after is not None:
        return Verdict("False", "Removed", _purged(removed.purged_after))
    if row is None and manifest.spec.deletion_policy is DeletionPolicy.DELETE:
        return Verdict("False", "Removed", "Deleted: nothing is kept of it.")
    if row is None and manifest.spec.deletion_policy is DeletionPolicy.ARCHIVE:
        return Verdict("False", "Removed", "Deleted: nothing is kept of it but what is in the archive.")
    return Verdict("False", "NothingToRetain", "Deleted: nothing was ever made for this object.")


def _purged(at: datetime) -> str:
    return (
        "Deleted: its records cannot be read any more. They are in partitions that the tenant shared with others; the last of "
        f"these is dropped after purgedAfter {rfc3339_seconds(at)}."
    )


def _all(ready: Verdict, synced: Verdict, parts: Mapping[Part, Verdict] | None = None) -> dict[str, Verdict]:
    return {READY: ready, **{part.value: (parts or {}).get(part, ready) for part in Part}, SYNCED: synced}
