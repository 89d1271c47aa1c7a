"""The archive part of a tenant: whether records can be archived, and whether a deletion may remove them.

It has no actions: the workers write the archive. Its condition exists only where `deletionPolicy` is Archive.
"""

from __future__ import annotations

from decklog.domain.archive.manifest import ArchivePlace, ArchiveSeen
from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenancy.spec import DeletionPolicy, TenantSpec
from decklog.domain.tenancy.status import ARCHIVE, Verdict
from decklog.domain.tenancy.trouble import Trouble

ARCHIVING = "Archiving"
_NO_ARCHIVE = Verdict(
    "False",
    "NoArchive",
    "spec.deletionPolicy is Archive, and no worker reports an archive: a deletion stops ingest and reads and then waits, with all "
    "data kept. Give the workers DECKLOG_ARCHIVE_BUCKET, or set the policy to Retain or to Delete to go on.",
)


def archived_in(spec: TenantSpec, database: DatabaseSeen) -> str:
    """Return the manifest that holds all records; empty where none does, or where the policy asks for none."""
    wanted = spec.deletion_policy is DeletionPolicy.ARCHIVE
    return database.archive.manifest if wanted and database.archive is not None else ""


def may_go(spec: TenantSpec, database: DatabaseSeen) -> bool:
    """Return whether the deletion policy allows stored records to be removed now."""
    return spec.deletion_policy is DeletionPolicy.DELETE or archived_in(spec, database) != ""


def verdicts(spec: TenantSpec, database: DatabaseSeen | Trouble, *, deleted: bool = False) -> dict[str, Verdict]:
    """Return the condition `ArchiveReady`, where the policy asks for an archive.

    It says whether the archive can be used; of a `deleted` tenant, whether it holds all records.
    """
    if spec.deletion_policy is not DeletionPolicy.ARCHIVE:
        return {}
    if isinstance(database, Trouble):
        return {ARCHIVE: Verdict("Unknown", "WaitingForDatabase", "The workers' report on the archive is in the database.")}
    seen = database.archive or ArchiveSeen()
    if deleted and seen.manifest:
        return {ARCHIVE: archived(seen.manifest)}
    if seen.place is None:
        return {ARCHIVE: _NO_ARCHIVE}
    return {ARCHIVE: _deleting(seen, seen.place) if deleted else _available(spec, seen.place)}


def _available(spec: TenantSpec, place: ArchivePlace) -> Verdict:
    if place.reason:
        return Verdict("False", place.reason, f"{place.message} A deletion would wait for it, with all data kept.")
    days = spec.retention.archive_days
    kept = f", and is locked there for {days} days" if days and place.locked else f", with {days} days as advice" if days else ""
    return Verdict("True", "Available", f"A deletion puts all records into {place.place} first{kept}.")


def _deleting(seen: ArchiveSeen, place: ArchivePlace) -> Verdict:
    if place.reason:
        return Verdict("False", place.reason, f"{place.message} The deletion waits for it, with all data kept.")
    so_far = f"{seen.archived} of {seen.records} records are in {place.place}."
    return Verdict("False", ARCHIVING, f"{so_far} All are read once more before anything is removed.")


def archived(manifest: str) -> Verdict:
    """Return the verdict of a tenant whose records are all in the archive that this manifest describes."""
    return Verdict("True", "Archived", f"All records are in the archive, and were read back: {manifest}.")
