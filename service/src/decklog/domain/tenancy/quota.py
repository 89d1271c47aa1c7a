"""The storage quota of a tenant: when it is used up, when ingest resumes, and the condition `QuotaExceeded`. Pure.

Each look decides this from the bytes that it observes; the result goes to the tenant's heads, where every process applies it.
Between two looks a tenant can exceed its quota by what it appends meanwhile.
"""

from __future__ import annotations

from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenancy.spec import Quotas
from decklog.domain.tenancy.status import QUOTA_EXCEEDED, Verdict
from decklog.domain.tenancy.trouble import Trouble

GIB = 1 << 30
ROOM_SHARE = 0.95
"""Share of its quota below which ingest resumes for a tenant that exceeded it, so that the state does not flap."""


def storage_used_up(quotas: Quotas, database: DatabaseSeen) -> bool:
    """Return whether ingest must be refused. A quota that has just changed counts as never exceeded."""
    row = database.row
    refusing = database.heads is not None and database.heads.storage_used_up
    if not quotas.storage_gib:
        return False
    if database.stored is None:
        return refusing
    same = row is not None and row.spec is not None and row.spec.quotas.storage_gib == quotas.storage_gib
    return database.stored.charged > quotas.storage_gib * GIB * (ROOM_SHARE if refusing and same else 1)


def quota_verdicts(quotas: Quotas, database: DatabaseSeen | Trouble) -> dict[str, Verdict]:
    """Return the condition `QuotaExceeded`. Its message stays the same from look to look while its status does not change."""
    if isinstance(database, Trouble):
        unknown = "The stored volume can only be read when the database can be reached."
        return {QUOTA_EXCEEDED: Verdict("Unknown", database.reason, unknown)}
    return {QUOTA_EXCEEDED: _verdict(quotas, database)}


def _verdict(quotas: Quotas, database: DatabaseSeen) -> Verdict:
    if not quotas.storage_gib:
        return Verdict("False", "NoQuota", "No spec.quotas.storageGiB is set: the stored volume has no limit.")
    if not storage_used_up(quotas, database):
        within = f"The records of events take no more than spec.quotas.storageGiB, {quotas.storage_gib:g} GiB."
        return Verdict("False", "WithinQuota", within)
    stored = database.stored.charged if database.stored else 0
    return Verdict(
        "True",
        "StorageUsedUp",
        f"The records of events take {stored / GIB:.3g} GiB, and spec.quotas.storageGiB is {quotas.storage_gib:g}: ingest is refused, "
        "reads are served. Raise the quota, which takes effect at once; or ingest resumes when they take "
        f"{quotas.storage_gib * ROOM_SHARE:.3g} GiB.",
    )
