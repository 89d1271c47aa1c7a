"""Trace ids of a commit, derived from the position of its records.

A worker links its trace to the trace of the commit by computing the id, so no trace context is stored or sent in messages.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from decklog.domain.log import LogName, microseconds
from decklog.domain.tenant import Tenant


def commit_ids(tenant: Tenant, log: LogName, epoch: int, received_at: datetime) -> tuple[int, int]:
    """Return the ids of the trace (128 bits) and of its span (64 bits) of a commit; neither is 0.

    All records of one log in one commit share `received_at`, and so the ids. Two commits share them if the clock was set back.
    """
    place = f"{tenant.id}/{tenant.name}/{log.text}/{epoch}/{microseconds(received_at)}"
    digest = hashlib.sha256(place.encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1
