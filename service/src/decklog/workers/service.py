"""What a worker needs of the running service: the attributes of `factory.Service` that it uses, and no others."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from decklog.domain.store import Cursors, RecordStore, SearchIndex, WakeQueue
from decklog.services.identity.registry import RegistryCache
from decklog.workers.duties.archiver import Archiving


class Keeper(Protocol):
    """Looks after partitions; what it may do beyond the service's own rights are narrow functions of the database."""

    async def make_partitions_ahead(self) -> datetime | None:
        """Make the partitions that will be written to soon, and tell until when those of all tenants reach; None where there
        is nothing that needs any. Raises `storage-unavailable`."""
        ...


class WorkerService(Protocol):
    @property
    def registry(self) -> RegistryCache: ...
    @property
    def store(self) -> RecordStore: ...
    @property
    def cursors(self) -> Cursors: ...
    @property
    def search_index(self) -> SearchIndex | None: ...
    @property
    def queue(self) -> WakeQueue | None: ...
    @property
    def keeper(self) -> Keeper: ...
    @property
    def archiver(self) -> Archiving | None: ...
