"""What provisioning needs of the database, the search engine and the queue service. The adapters implement it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from decklog.domain.records.record import RecordInput
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.credentials import IssueKeys
from decklog.domain.tenancy.parts.database import RemoveTenant
from decklog.domain.tenancy.parts.keys import IssuedKey
from decklog.domain.tenancy.parts.part import Action
from decklog.domain.tenancy.parts.queue import CreateQueue, QueueSeen, RemoveQueue, SetQueueAttributes
from decklog.domain.tenancy.parts.search import CreateIndex, IndexSeen, RemoveDocuments, RemoveIndex, UpdateIndex
from decklog.domain.tenancy.registered import DatabaseSeen, Row, Stopped
from decklog.domain.tenancy.status import Condition, StoredUsage, TenantListing

IndexAction = CreateIndex | UpdateIndex | RemoveIndex | RemoveDocuments
QueueAction = CreateQueue | SetQueueAttributes | RemoveQueue


class DatabaseVisit(Protocol):
    """Exclusive work on one tenant in the database; see `timescale/control/provision.py`.

    Every method raises `storage-unavailable` and `misconfigured`.
    """

    async def row(self) -> Row | None:
        """Return the tenant's registry row."""
        ...

    async def observe(self, manifest: Manifest, index: str) -> DatabaseSeen:
        """Return the tenant as the database has it; `index` is the index that the manifest asks for."""
        ...

    async def apply(self, actions: Sequence[Action]) -> None:
        """Carry out the actions of the database part, in order."""
        ...

    async def take_revision(self, revision: int) -> None:
        """Store the revision of the vault's next content, so that no two contents ever have the same one."""
        ...

    async def issue(self, keys: Sequence[IssuedKey], action: IssueKeys) -> None:
        """Register new keys, and retire or revoke older ones as the action says."""
        ...

    async def revoke(self, ids: Sequence[str]) -> None:
        """Revoke the keys with these ids."""
        ...

    async def save_conditions(self, conditions: Sequence[Condition], settled: Sequence[str]) -> None:
        """Store the conditions and the settled parts in the tenant's row."""
        ...

    async def stopped(self) -> Stopped | None:
        """Return since when the tenant is marked as deleted; None where it is not."""
        ...

    async def remove(self, action: RemoveTenant, entry: RecordInput) -> None:
        """Remove the tenant, and write the entry to the platform's access log."""
        ...

    async def record(self, entry: RecordInput) -> None:
        """Write the entry to the tenant's own access log."""
        ...

    async def platform_keys(self) -> tuple[IssuedKey, ...]:
        """Return the platform's API keys that are not revoked."""
        ...

    async def replace_platform_keys(self, key_id: str, key_hash: bytes, revoked: Sequence[str]) -> None:
        """Register a new platform key, and revoke the others."""
        ...


class DatabaseProvisioning(Protocol):
    """The database that tenants are made in."""

    def visit(self, name: str) -> AbstractAsyncContextManager[DatabaseVisit]:
        """Begin exclusive work on a tenant, after other visits to it have ended. Raises `storage-unavailable`."""
        ...

    async def observe(self, asked: Sequence[tuple[Manifest, str]]) -> list[DatabaseSeen]:
        """Return what a visit would observe of each tenant, without exclusive access, in the order asked.

        Raises `storage-unavailable` and `misconfigured`.
        """
        ...

    async def installation(self) -> str | None:
        """Return the UID of the reserved tenant; None before it is registered."""
        ...

    async def find(self, name: str) -> Row | None:
        """Return the registry row of a tenant."""
        ...


class IndexProvisioning(Protocol):
    """The search engine that indices are made in. Its methods raise `search-unavailable`."""

    async def observe(self, index: str) -> IndexSeen:
        """Return the index as it is."""
        ...

    async def apply(self, action: IndexAction) -> None:
        """Carry out one action. Raises `conflict` and `misconfigured`, too."""
        ...


class QueueProvisioning(Protocol):
    """The service that queues are made in. Its methods raise `storage-unavailable`."""

    async def observe(self, queue: str) -> QueueSeen:
        """Return the queue and its dead-letter queue as they are."""
        ...

    async def apply(self, action: QueueAction) -> None:
        """Carry out one action. Raises `conflict`, too."""
        ...


class Usages(Protocol):
    """The stored volume of tenants."""

    async def usage(self, name: str) -> StoredUsage | None:
        """Return what the tenant of this name uses now; None where there is none. Raises `storage-unavailable`."""
        ...


class TenantDirectory(Protocol):
    """The registered tenants, with those that are deleted and retained."""

    async def tenants(self, *, after: str = "", limit: int | None = None) -> list[TenantListing]:
        """Return tenants by name, those after the name `after`."""
        ...

    async def tenant(self, name: str) -> TenantListing | None:
        """Return the tenant of this name."""
        ...
