"""Vaults for tests: the keys of tenants in memory, with the faults that a real one may have."""

from __future__ import annotations

from decklog.domain.access import Role
from decklog.domain.tenant import Manifest


class MemoryVault:
    """`KeyVault` over a dictionary. `broken` makes it raise that; `writes` counts what was written."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[Role, str]] = {}
        self.broken: Exception | None = None
        self.writes = 0

    async def read(self, manifest: Manifest) -> dict[Role, str] | None:
        if self.broken is not None:
            raise self.broken
        kept = self.keys.get(manifest.name)
        return None if kept is None else dict(kept)

    async def write(self, manifest: Manifest, keys: dict[Role, str]) -> None:
        if self.broken is not None:
            raise self.broken
        self.writes += 1
        self.keys[manifest.name] = dict(keys)
