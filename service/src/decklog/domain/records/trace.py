"""Where the trace of a commit is found: by ids that whoever has one of its records can compute.

So a worker's trace leads to that of the commit, and nothing of a trace is stored with a record, sent in a message or
kept anywhere between the two.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from decklog.domain.log import LogName, microseconds
from decklog.domain.tenant import Tenant


def commit_ids(tenant: Tenant, log: LogName, epoch: int, received_at: datetime) -> tuple[int, int]:
    """Ids of a trace (128 bits) and of its span (64 bits), neither of them 0: of the commit that gave records of this log
    this receipt time. All records of one log in one commit have the same; two commits have, where the clock went back."""
    place = f"{tenant.id}/{tenant.name}/{log.text}/{epoch}/{microseconds(received_at)}"
    digest = hashlib.sha256(place.encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1
