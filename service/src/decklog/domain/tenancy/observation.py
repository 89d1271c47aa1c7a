"""What one look at every backend of a tenant found."""

from __future__ import annotations

import msgspec

from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.credentials import VaultSeen
from decklog.domain.tenancy.parts.part import Installation, Look
from decklog.domain.tenancy.parts.queue import QueueSeen
from decklog.domain.tenancy.parts.search import IndexSeen
from decklog.domain.tenancy.registered import DatabaseSeen, Row, Stopped
from decklog.domain.tenancy.status import Part
from decklog.domain.tenancy.trouble import Trouble

Found = DatabaseSeen | IndexSeen | QueueSeen | VaultSeen | Trouble | None
"""What was found of one part; None where its backend is not configured."""


class Observation(msgspec.Struct, frozen=True):
    """What each backend showed, or why it could not be seen. None: not configured; for the vault: no keys are wanted."""

    database: DatabaseSeen | Trouble
    installation: Installation = Installation()
    search: IndexSeen | Trouble | None = None
    queue: QueueSeen | Trouble | None = None
    vault: VaultSeen | Trouble | None = None

    @property
    def row(self) -> Row | None:
        """The tenant's registry row; None where there is none or the database could not be seen."""
        return self.database.row if isinstance(self.database, DatabaseSeen) else None

    @property
    def parts(self) -> dict[Part, Found]:
        """What was found of each part."""
        return {
            Part.DATABASE: self.database,
            Part.SEARCH: self.search,
            Part.QUEUE: self.queue,
            Part.CREDENTIALS: self.vault,
        }

    @property
    def troubles(self) -> dict[Part, Trouble]:
        """Why parts could not be seen."""
        return {part: found for part, found in self.parts.items() if isinstance(found, Trouble)}

    def look(self, manifest: Manifest, stopped: Stopped | None = None) -> Look:
        """Return what the parts decide by for this manifest."""
        return Look(manifest, self.installation, self.database, stopped)
