"""What the services need of storage, search and queues: the protocols that the adapters fulfil.

They stand here because two things fulfil each of them: the real adapter and, in the tests of the services, one in
memory; `tests/conformance` holds both to the same behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from decklog.domain.errors import DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.log import Head, LogName, Span
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.query import Query
from decklog.domain.search.stats import Bucket, Grouping
from decklog.domain.search.terms import Terms
from decklog.domain.tenant import Tenant


class ApiKey(msgspec.Struct, frozen=True):
    """A key as the registry holds it: never the secret, only its SHA-256. `tenant_id` is None for the platform."""

    id: str
    tenant_id: int | None
    role: Role
    hash: bytes
    expires_at: datetime | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """The whole registry at one version. Revoked keys and deleted tenants are not in it."""

    version: int
    tenants: dict[int, Tenant]
    keys: dict[str, ApiKey]


class Registry(Protocol):
    """Who exists and which keys are good; written by provisioning, read by everything."""

    async def load(self, known: int | None) -> Snapshot | None:
        """The registry, or None where it is still at version `known`. Raises `storage-unavailable`."""
        ...


READ_BYTES_MAX = 8 * 1024 * 1024
"""Of content that one reading gives, and one record more: pages of a thousand large records would take a process's memory."""


class RecordStore(Protocol):
    """The truth: records of all tenants of one cell."""

    async def append(self, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        """Store all requests in one transaction and return what became of each, in order, after its commit.

        A request that is refused (`rate-limited`, `batch-exceeds-burst`, `tenant-suspended`, `not-found`,
        `clock-behind`) does not touch the others. Raises `storage-unavailable` when certainly nothing was stored, and
        `outcome-unknown` when that cannot be known.
        """
        ...

    async def head(self, tenant: Tenant, log: LogName) -> Head: ...

    async def first_received(self, tenant: Tenant, log: LogName, *, days: int, timeout: float) -> int:
        """The number of the oldest record that was received within so many days, of the next one where none was.
        Raises `storage-unavailable`, also after `timeout` seconds."""
        ...

    async def read(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        limit: int,
        newest_first: bool,
        timeout: float,
    ) -> tuple[list[StoredRecord], int | None]:
        """Records with `first <= seq < end` that satisfy what columns can decide of `query`, ordered by `seq`.

        Not older (by receipt) than the tenant's retention. Returns at most `limit` records, none after those that fill
        `READ_BYTES_MAX`, and the `seq` from which a further call would go on (as its new `end` when newest first, else its
        new `first`), or None at the end.
        `words` and `fields` of the query are only narrowed, never decided: the caller matches terms.
        Raises `search-unavailable` after `timeout` seconds.
        """
        ...

    async def fetch(self, tenant: Tenant, log: LogName, seqs: Sequence[int], *, newest_first: bool = True) -> list[StoredRecord]:
        """The records with these numbers that exist and are within retention, ordered by `seq`, but none after those that
        fill `READ_BYTES_MAX`: a further call is for the numbers behind the last one."""
        ...

    async def count(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        grouping: Grouping,
        limit: int,
        timeout: float,
    ) -> list[Bucket]:
        """Counts of records with `first <= seq < end`, exact, for a query that columns decide.

        `by`: up to two of action, actor, resource_type, severity, outcome. `interval`: minute, hour, day, week,
        month or None, by `occurred_at` in UTC (weeks start on Monday). Raises `too-many-buckets` above `limit` buckets
        and `search-unavailable` after `timeout` seconds.
        """
        ...


INDEXER = "indexer"
"""The consumer that fills the search index; its cursor says how much of a log can be found there."""
FORGETTER = "forgetter"
"""The consumer that empties it again; below its cursor nothing is looked for there, whatever it still has."""


class Cursor(msgspec.Struct, frozen=True):
    """How far a consumer has come in one log: records below `next_seq` are done. Held under a lease by `owner`."""

    consumer: str
    tenant_id: int
    log: LogName
    epoch: int
    next_seq: int
    owner: str


class Behind(msgspec.Struct, frozen=True):
    """A log that a consumer has not finished."""

    tenant_id: int
    log: LogName
    next_seq: int
    head_seq: int


class Cursors(Protocol):
    """Where consumers are, and who is at work: leases and compare-and-set, so that two workers never undo each other."""

    async def behind(self, consumer: str, *, limit: int) -> list[Behind]:
        """Logs whose head is beyond the consumer's cursor and that nobody holds a live lease on, most behind first."""
        ...

    async def lease(self, consumer: str, tenant_id: int, log: LogName, *, owner: str, seconds: float) -> Cursor | None:
        """Take or renew the lease; None where another owner holds it. Creates the cursor at 0 when there is none."""
        ...

    async def move(self, cursor: Cursor, to: int, *, seconds: float) -> Cursor | None:
        """Set `next_seq` to `to` and renew, if the cursor is still as given and ours; else None (stop, it was taken)."""
        ...

    async def release(self, cursor: Cursor) -> None: ...

    async def next_seq(self, consumer: str, tenant_id: int, log: LogName) -> int:
        """How far the consumer is; 0 where it has not begun."""
        ...

    async def next_seqs(self, consumers: Sequence[str], tenant_id: int, log: LogName) -> list[int]:
        """How far each of them is, at one moment."""
        ...


class Announcements(Protocol):
    """News of logs that have grown, between processes. Lossy by nature: they only wake."""

    def announce(self, tenant_id: int, log: LogName, next_seq: int) -> None:
        """Tell every process, soon and coalesced; never waits and never fails."""
        ...

    def subscribe(self, heard: Callable[[int, LogName, int], None]) -> Callable[[], None]:
        """Call `heard(tenant_id, log, next_seq)` for each announcement of any process; returns how to stop."""
        ...


class SearchDocument(msgspec.Struct, frozen=True):
    """What the index gets of one record. Its id is made of tenant, log, epoch and seq."""

    tenant_id: int
    log: LogName
    epoch: int
    seq: int
    received_at: datetime
    terms: Terms


class SearchIndex(Protocol):
    """Finds sequence numbers; can be thrown away and rebuilt from the records."""

    async def add(self, tenant: Tenant, documents: Sequence[SearchDocument]) -> None:
        """Write documents (again is harmless). Returns only when every single one was taken; raises
        `search-unavailable` otherwise."""
        ...

    async def refresh(self, tenant: Tenant) -> None:
        """Make everything written before findable. Raises `search-unavailable`."""
        ...

    async def forget(self, tenant: Tenant, log: LogName, below: int) -> None:
        """Remove documents with `seq < below`: all of them, or so many that the next call goes on. Raises `search-unavailable`."""
        ...

    async def find(self, tenant: Tenant, log: LogName, span: Span, *, query: Query, limit: int, newest_first: bool) -> list[int]:
        """Numbers of matching records within a span, ordered. Raises `search-unavailable`."""
        ...

    async def count(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        grouping: Grouping,
        limit: int,
    ) -> list[Bucket]:
        """As `RecordStore.count`, for any query. Raises `search-unavailable` and `too-many-buckets`."""
        ...


class WakeUp(msgspec.Struct, frozen=True):
    """A message: log `log` of tenant `tenant_id` has reached `next_seq`. `receipt` is the queue's handle for it, `waited` the
    seconds that it was in the queue, where that tells them."""

    tenant_id: int
    log: LogName
    next_seq: int
    receipt: str = ""
    waited: float | None = None


class WakeQueue(Protocol):
    """Wake-ups between API and workers. May lose, double and reorder; nothing depends on any message."""

    async def send(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
        """Best effort; raises `storage-unavailable` when the queue cannot be reached."""
        ...

    async def receive(self, queue: str, *, wait: float) -> list[WakeUp]:
        """Up to ten messages, waiting up to `wait` seconds (at most 20). What cannot be read is dropped and logged."""
        ...

    async def delete(self, queue: str, wake_ups: Sequence[WakeUp]) -> None: ...


class Readiness(Protocol):
    """A backend's health for `/readyz`."""

    async def check(self) -> None:
        """Returns when the backend answers; raises DecklogError otherwise."""
        ...
