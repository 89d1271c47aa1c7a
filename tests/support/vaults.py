"""Vaults for tests: keys of tenants in memory, with the faults of real vaults."""

from __future__ import annotations

from decklog.domain.identity.access import Role
from decklog.domain.tenancy.manifest import Manifest
from decklog.services.tenancy.vaults import Handout


class MemoryVault:
    """`KeyVault` over dictionaries. Every call raises `broken` while it is set; `writes` counts writes."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[Role, str]] = {}
        self.said: dict[str, tuple[int | None, str | None]] = {}
        """Revision and end of the keys, by tenant."""
        self.broken: Exception | None = None
        self.writes = 0

    async def read(self, manifest: Manifest) -> Handout | None:
        if self.broken is not None:
            raise self.broken
        kept = self.keys.get(manifest.name)
        return None if kept is None else Handout(dict(kept), *self.said[manifest.name])

    async def write(self, manifest: Manifest, handout: Handout) -> None:
        if self.broken is not None:
            raise self.broken
        self.writes += 1
        self.keys[manifest.name] = dict(handout.keys)
        self.said[manifest.name] = handout.revision, handout.valid_until
