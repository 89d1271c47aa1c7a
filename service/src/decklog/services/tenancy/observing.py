"""Looks at every backend of a tenant. Nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import index_name, queue_name
from decklog.domain.tenancy.observation import Observation
from decklog.domain.tenancy.parts.archive import may_go
from decklog.domain.tenancy.parts.credentials import VaultSeen, held
from decklog.domain.tenancy.parts.part import Action, Installation
from decklog.domain.tenancy.parts.queue import QueueSeen
from decklog.domain.tenancy.parts.search import IndexSeen
from decklog.domain.tenancy.registered import DatabaseSeen, Stopped
from decklog.domain.tenancy.removal import names
from decklog.domain.tenancy.status import Part
from decklog.domain.tenancy.trouble import Trouble
from decklog.services.coalescing import Coalescing
from decklog.services.tenancy import vaults
from decklog.services.tenancy.calls import attempt
from decklog.services.tenancy.metrics import WAITING
from decklog.services.tenancy.observations import gathered, joined
from decklog.services.tenancy.ports import DatabaseProvisioning, DatabaseVisit, IndexProvisioning, QueueProvisioning
from decklog.services.tenancy.vaults import Handover, KeyVault

GLANCES_MAX = 256
"""Tenants observed concurrently without exclusive access; more wait, before the time bound of their calls begins."""


class Observer:
    """Observes tenants of one installation. `installation.uid` is None until the provisioner sets it."""

    def __init__(
        self,
        database: DatabaseProvisioning,
        search: IndexProvisioning | None,
        queue: QueueProvisioning | None,
        installation: Installation,
    ) -> None:
        self.installation = installation
        self._database = database
        self._indices = None if search is None else joined(search.observe)
        self._queues = None if queue is None else joined(queue.observe)
        self._gathered = gathered(database.observe)
        self._glances = asyncio.Semaphore(GLANCES_MAX)

    @asynccontextmanager
    async def entered(self, name: str) -> AsyncIterator[DatabaseVisit | Trouble]:
        """Begin a visit to the tenant in the database, or say why there is none: other backends are looked after anyway."""
        entering = self._database.visit(name)
        # Waiting for other visits has no bound of its own, because each of them is bounded.
        with WAITING.track_inprogress():
            visit = await attempt(entering.__aenter__(), Part.DATABASE, "enter", seconds=None)
        try:
            yield visit
        finally:
            if not isinstance(visit, Trouble):
                # An error here was already reported by the statements of the visit.
                await attempt(entering.__aexit__(None, None, None), Part.DATABASE, "leave")

    async def glance(self, manifest: Manifest, vault: KeyVault | None) -> Observation:
        """Observe the tenant without exclusive access, together with other tenants that are observed now."""
        async with self._glances:
            index = index_name(manifest.name, manifest.spec, self.installation.prefix)
            return await self._observe(manifest, attempt(self._gathered((manifest, index)), Part.DATABASE), vault, {})

    async def visit(
        self,
        manifest: Manifest,
        visit: DatabaseVisit | Trouble,
        vault: KeyVault | None,
        kept: Mapping[Part, Any] | None = None,
    ) -> Observation:
        """Observe the tenant in its visit. `kept` was seen earlier in the visit, and nothing was done there since."""
        return await self._observe(manifest, self._in_database(manifest, visit), vault, kept or {})

    async def removal(self, manifest: Manifest, visit: DatabaseVisit | Trouble) -> tuple[Observation, Stopped | None]:
        """Observe a tenant that is deleted. Index and queue are not looked at where all data is kept."""
        installation = self.installation
        if isinstance(visit, Trouble):
            return Observation(visit, installation), None
        database = await self._in_database(manifest, visit)
        stopped = await attempt(visit.stopped(), Part.DATABASE)
        if isinstance(stopped, Trouble):
            return Observation(stopped, installation), None
        if isinstance(database, Trouble):
            return Observation(database, installation), None
        row = database.row
        if row is not None and (row.uid != manifest.uid or not may_go(manifest.spec, database)):
            return Observation(database, installation), stopped
        index, queue = names(manifest, row, installation.prefix)
        indices, queues = await self._outside(index, queue, {})
        return Observation(database, installation, indices, queues), stopped

    async def _in_database(self, manifest: Manifest, visit: DatabaseVisit | Trouble) -> DatabaseSeen | Trouble:
        if isinstance(visit, Trouble):
            return visit
        index = index_name(manifest.name, manifest.spec, self.installation.prefix)
        return await attempt(visit.observe(manifest, index), Part.DATABASE)

    async def _observe(
        self,
        manifest: Manifest,
        database: Coroutine[Any, Any, DatabaseSeen | Trouble],
        vault: KeyVault | None,
        kept: Mapping[Part, Any],
    ) -> Observation:
        index, queue = (each(manifest.name, manifest.spec, self.installation.prefix) for each in (index_name, queue_name))
        looking = asyncio.ensure_future(database)
        registered, (indices, queues), keys = await asyncio.gather(
            looking, self._outside(index, queue, kept, after=looking), _in_vault(manifest, vault)
        )
        if isinstance(vault, Handover) and vault.kept is None and isinstance(registered, DatabaseSeen):
            keys = held(registered)
        return Observation(registered, self.installation, indices, queues, keys)

    async def _outside(
        self, index: str, queue: str, kept: Mapping[Part, Any], *, after: asyncio.Future[Any] | None = None
    ) -> tuple[IndexSeen | Trouble | None, QueueSeen | Trouble | None]:
        """The indices, which are looked at once `after` has ended, and the queue; None where there is no such backend.

        Workers make a range before they record it. So a range that is recorded, and is missing in a later look, is lost.
        """

        async def one(part: Part, observe: Coalescing[str, Any] | None, name: str) -> Any:
            if observe is None or part in kept:
                return kept.get(part)
            return await attempt(observe(name), part)

        async def indices() -> Any:
            if after is not None:
                await asyncio.wait((after,))
            return await one(Part.SEARCH, self._indices, index)

        found: tuple[Any, Any] = await asyncio.gather(indices(), one(Part.QUEUE, self._queues, queue))
        return found


async def _in_vault(manifest: Manifest, vault: KeyVault | None) -> VaultSeen | Trouble | None:
    return None if vault is None else await attempt(vaults.observe(vault, manifest), Part.CREDENTIALS)


def untouched(seen: Observation, actions: Sequence[Action]) -> dict[Part, Any]:
    """Return what stays valid of an observation after these actions: the queue, unless they change it.

    Indices must never be older than what the database shows of them.
    """
    touched = {action.part for action in actions}
    return {part: found for part, found in seen.parts.items() if part in {Part.QUEUE} - touched}
