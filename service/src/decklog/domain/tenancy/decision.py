"""What is to be done for a tenant: one decision per look, from the manifest and from what every backend shows. Pure."""

from __future__ import annotations

import msgspec

from decklog.domain.tenancy.parts.credentials import VaultSeen
from decklog.domain.tenancy.parts.part import Installation, Trouble
from decklog.domain.tenancy.parts.queue import QueueSeen
from decklog.domain.tenancy.parts.search import IndexSeen
from decklog.domain.tenancy.registered import DatabaseSeen


class Observation(msgspec.Struct, frozen=True):
    """What is there, each backend for itself. None: not configured (for the vault: no keys are wanted)."""

    database: DatabaseSeen | Trouble
    installation: Installation = Installation()
    search: IndexSeen | Trouble | None = None
    queue: QueueSeen | Trouble | None = None
    vault: VaultSeen | Trouble | None = None
