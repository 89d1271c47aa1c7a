"""Consumers of logs: their names, what they are given, their cursors, and the protocol of the place where cursors are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import msgspec

from decklog.domain.log import LogName
from decklog.domain.records.record import StoredRecord
from decklog.domain.tenant import Tenant

LogKey: TypeAlias = tuple[int, LogName]
"""A log, by the id of its tenant."""

INDEXER = "indexer"
"""The consumer that fills the live generation of a search index. The index finds records below its cursor, `indexer_of`."""
REINDEXER = "reindexer"
"""The consumer that fills the generation that is being built. It moves the cursor of that generation."""
FILTERER = "filterer"
"""The consumer that makes the filters of terms, by which searches in Postgres leave out blocks of records."""
FORGETTER = "forgetter"
"""The consumer that lets the index forget old records. Searches ignore documents below its cursor."""


def indexer_of(tenant: Tenant) -> str:
    """Return the name of the cursor that counts for the live generation of the tenant's index."""
    return INDEXER if tenant.live is None else f"{INDEXER}.{tenant.live.name}"


class Cursor(msgspec.Struct, frozen=True):
    """The progress of a consumer in one log: records below `next_seq` are done. `owner` holds its lease."""

    consumer: str
    tenant_id: int
    log: LogName
    epoch: int
    next_seq: int
    owner: str

    @property
    def key(self) -> LogKey:
        """The log of the cursor."""
        return self.tenant_id, self.log


class Behind(msgspec.Struct, frozen=True):
    """A log that a consumer has not finished."""

    tenant_id: int
    log: LogName
    next_seq: int
    head_seq: int


class Standing(msgspec.Struct, frozen=True):
    """A cursor beside the head of its log, at one moment. `cursor.owner` is empty unless the lease is held by who asked."""

    cursor: Cursor
    head_seq: int

    @property
    def behind(self) -> bool:
        """True if the consumer has not finished the log."""
        return self.cursor.next_seq < self.head_seq


class LogRecords(msgspec.Struct, frozen=True):
    """Records of one log, in the order of `seq`, without a gap except for those beyond the tenant's retention."""

    tenant: Tenant
    log: LogName
    records: Sequence[StoredRecord]


class Cursors(Protocol):
    """Cursors of consumers, with leases and compare-and-set, so that two workers never undo each other's progress."""

    async def behind(self, consumer: str, *, limit: int) -> list[Behind]:
        """Return logs whose head is beyond the consumer's cursor and that are not leased, most behind first."""
        ...

    async def lease(self, consumer: str, tenant_id: int, log: LogName, *, owner: str, seconds: float) -> Cursor | None:
        """Take or renew the lease; return None if another owner holds it. A new cursor starts at 0."""
        ...

    async def move(self, cursor: Cursor, to: int, *, seconds: float) -> Cursor | None:
        """Set `next_seq` to `to` and renew the lease; return None if the cursor is no longer as given or has another owner."""
        ...

    async def release(self, cursor: Cursor) -> None:
        """End the lease if `cursor.owner` still holds it."""
        ...

    async def lease_all(self, consumer: str, logs: Sequence[LogKey], *, owner: str, seconds: float) -> list[Standing]:
        """Take the leases of those logs that are behind and that no other owner holds, in one statement.

        Returns the standing of each log that exists: `owner` is empty where the lease was not taken.
        """
        ...

    async def renew_all(self, cursors: Sequence[Cursor], *, seconds: float) -> set[LogKey]:
        """Renew the leases of one consumer that their owner still holds, in one statement; return their logs."""
        ...

    async def move_all(self, moves: Sequence[tuple[Cursor, int]], *, seconds: float) -> list[Standing]:
        """Set `next_seq` of many cursors of one consumer and owner, in one statement.

        A cursor that is no longer as given stays, and is not among the standings; it does not affect the others. The lease of a cursor
        that has reached its head ends, and `owner` is empty then. Other leases are renewed.
        """
        ...

    async def release_all(self, cursors: Sequence[Cursor]) -> None:
        """End the leases of one consumer that their owner still holds, in one statement."""
        ...

    async def next_seq(self, consumer: str, tenant_id: int, log: LogName) -> int:
        """Return the consumer's cursor; 0 if it has not begun."""
        ...

    async def next_seqs(self, consumers: Sequence[str], tenant_id: int, log: LogName) -> list[int]:
        """Return the cursors of several consumers at one moment, in their order."""
        ...
