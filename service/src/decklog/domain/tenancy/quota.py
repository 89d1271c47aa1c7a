"""How much a tenant may keep: when it is too much, when there is room again, and what the condition `QuotaExceeded` says. Pure.

The bytes are an observation, so this is decided by each visit; what comes of it is on the tenant's heads, where every process
heeds it. What is over the quota meanwhile is what comes in between two visits.
"""

from __future__ import annotations

from decklog.domain.tenancy.spec import Quotas
from decklog.domain.tenancy.status import QUOTA_EXCEEDED, Verdict

GIB = 1 << 30
ROOM_SHARE = 0.95
"""How much of its quota a tenant that was over it may use before more is taken in: one that is just at it must not change
with every visit."""


def is_used_up(quotas: Quotas, stored_bytes: int, *, refusing: bool) -> bool:
    """Whether nothing more may be taken in. `refusing`: nothing is by now, under this very quota."""
    if not quotas.storage_gib:
        return False
    return stored_bytes > quotas.storage_gib * GIB * (ROOM_SHARE if refusing else 1)


def quota_verdict(quotas: Quotas, stored_bytes: int, *, used_up: bool) -> dict[str, Verdict]:
    """Of the condition `QuotaExceeded`. What it says is the same from visit to visit as long as nothing happens."""
    if not quotas.storage_gib:
        verdict = Verdict("False", "NoQuota", "No spec.quotas.storageGiB is set: the records may take any room.")
    elif not used_up:
        verdict = Verdict(
            "False", "WithinQuota", f"The records take no more than spec.quotas.storageGiB, {quotas.storage_gib:g} GiB."
        )
    else:
        verdict = Verdict(
            "True",
            "StorageUsedUp",
            f"The records take {stored_bytes / GIB:.3g} GiB, and spec.quotas.storageGiB is {quotas.storage_gib:g}: nothing more is "
            "taken in, and all can be read. Raise the quota, which takes effect at once; or ingest goes on when they take "
            f"{quotas.storage_gib * ROOM_SHARE:.3g} GiB.",
        )
    return {QUOTA_EXCEEDED: verdict}
