"""Protocols of storage, search and queues, and the values that cross them.

Each has two implementations: the real adapter, and one in memory for tests of the services. `tests/conformance` holds both to the
same behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from decklog.domain.errors import DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.log import Head, LogName, Span
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.records.idempotency import KeyBinding
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.order import Place
from decklog.domain.search.query import Query
from decklog.domain.search.stats import Bucket, Grouping
from decklog.domain.search.terms import Terms
from decklog.domain.tenant import Tenant


class ApiKey(msgspec.Struct, frozen=True):
    """An API key as the registry stores it: the SHA-256 of its secret. `tenant_id` is None for the platform."""

    id: str
    tenant_id: int | None
    role: Role
    hash: bytes
    expires_at: datetime | None = None


class RegistryChanges(msgspec.Struct, frozen=True):
    """Changes of the registry up to a version. Without `complete`, anything may have changed and nothing is listed."""

    version: int
    tenants: frozenset[int] = frozenset()
    keys: frozenset[str] = frozenset()
    complete: bool = True


class Registered(msgspec.Struct, frozen=True):
    """Tenants and keys at one version, without deleted tenants, their keys, and keys that are revoked or expired."""

    version: int
    tenants: list[Tenant]
    keys: list[ApiKey]


class Registry(Protocol):
    """The tenants and keys of an installation; provisioning writes it. Every change has a number, in the order of commits.

    Every method raises `storage-unavailable`.
    """

    async def changes(self, known: int | None) -> RegistryChanges:
        """Return the numbers of tenants and keys that changed after the version `known`; it is None where none is known.

        It lists at most `REGISTRY_CHANGES_MAX` of them; more are not `complete`.
        """
        ...

    async def find(self, *, tenants: Sequence[int] = (), names: Sequence[str] = (), keys: Sequence[str] = ()) -> Registered:
        """Return those of these that are there, as of one moment, with the tenants of the keys."""
        ...

    async def queues(self) -> set[str]:
        """Return the names of the queues of all tenants."""
        ...

    async def searching(self, *, after: int, limit: int) -> list[Tenant]:
        """Return tenants with `retention.searchDays` in the order of their numbers, those after the number `after`."""
        ...

    async def of_index(self, index: str, *, after: int, limit: int) -> list[Tenant]:
        """Return tenants whose records are in this index in the order of their numbers, those after the number `after`.

        Deleted tenants whose data is kept are among them. None has limits or generations.
        """
        ...


REGISTRY_CHANGES_MAX = 10_000
"""Changed tenants and keys that one poll of the registry reads; a process forgets all it knows where more have changed."""
READ_BYTES_MAX = 8 * 1024 * 1024
"""Content that one reading returns, plus at most one record: a thousand large records would exhaust a process's memory."""


class RecordStore(Protocol):
    """The records of all tenants of one cell. Everything else follows them and can be rebuilt."""

    async def append(self, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        """Store all requests in one transaction and return the result of each, in order, after its commit.

        A refused request (`rate-limited`, `quota-exceeded`, `batch-exceeds-burst`, `tenant-suspended`, `not-found`, `clock-behind`)
        does not affect the others.

        Raises:
            DecklogError: `storage-unavailable` if nothing was stored, `outcome-unknown` if the commit may have happened.
        """
        ...

    async def bind_keys(self, bindings: Sequence[KeyBinding]) -> list[bool]:
        """Bind keys of bulks to their content, and return for each whether it belongs to this content.

        A key is bound for the tenant's dedup window and ten minutes more, counted from the last time that this content was bound, so a
        key outlives the ids of its items. The key of a tenant without heads is bound to nothing.

        Raises:
            DecklogError: `storage-unavailable`.
        """
        ...

    async def head(self, tenant: Tenant, log: LogName) -> Head:
        """Return the head of a log. Raises `not-found` and `storage-unavailable`."""
        ...

    async def heads(self, logs: Sequence[tuple[int, LogName]]) -> Mapping[tuple[int, LogName], Head]:
        """Return the heads of logs, which are named by the tenant's id, in one statement; unknown ones are left out.

        Raises:
            DecklogError: `storage-unavailable`.
        """
        ...

    async def first_received(self, tenant: Tenant, log: LogName, *, days: int, timeout: float) -> int:
        """Return the number of the oldest record received within so many days, or of the next record if there is none.

        Raises:
            DecklogError: `storage-unavailable`, also after `timeout` seconds.
        """
        ...

    async def first_since(self, tenant: Tenant, log: LogName, moment: datetime, *, timeout: float) -> int:
        """Return the number of the first record received at a time or later, or of the next record if there is none.

        Raises:
            DecklogError: `search-unavailable` after `timeout` seconds.
        """
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
        bytes_max: int = READ_BYTES_MAX,
    ) -> tuple[list[StoredRecord], int | None]:
        """Return the records of a span that satisfy what columns decide of `query`, ordered by `seq`.

        Records that are older by receipt than the tenant's retention are left out. `words` and `fields` of the query only narrow:
        the caller must match the terms of the records.

        Returns:
            At most `limit` records, none after those that fill `bytes_max`, which is at most `READ_BYTES_MAX`; and the `seq` at which
            the next call continues (as `end` of its span if newest first, else as `first`), or None at the end.

        Raises:
            DecklogError: `search-unavailable` after `timeout` seconds.
        """
        ...

    async def read_by_time(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        after: Place | None,
        limit: int,
        newest_first: bool,
        timeout: float,
        bytes_max: int = READ_BYTES_MAX,
    ) -> tuple[list[tuple[Place, StoredRecord]], Place | None]:
        """Return records as `read` does, those after a place, ordered by `occurred_at` and then by `seq`.

        Returns:
            The records with their places, and the place after which the next call continues, or None at the end.

        Raises:
            DecklogError: `search-unavailable` after `timeout` seconds.
        """
        ...

    async def fetch(self, tenant: Tenant, log: LogName, seqs: Sequence[int], *, newest_first: bool = True) -> list[StoredRecord]:
        """Return the records with these numbers that exist within retention, ordered by `seq`.

        Records after those that fill `READ_BYTES_MAX` are left out: the caller asks again for the numbers after the last one.
        """
        ...

    async def count(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, grouping: Grouping, limit: int, timeout: float
    ) -> list[Bucket]:
        """Return exact counts of the records of a span, for a query that columns decide; no bucket is empty.

        Raises:
            DecklogError: `too-many-buckets` above `limit` buckets, `search-unavailable` after `timeout` seconds.
        """
        ...

    async def facets(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, names: Sequence[str], limit: int, timeout: float
    ) -> list[list[Bucket]]:
        """Return exact counts by each of these countable fields alone, in their order, as `count` does."""
        ...


class Reading(msgspec.Struct, frozen=True):
    """The part of one log in a reading of several: the first `limit` records of a span."""

    tenant: Tenant
    log: LogName
    span: Span
    limit: int


class FollowedStore(RecordStore, Protocol):
    """The records as consumers of logs read them."""

    async def read_logs(
        self, readings: Sequence[Reading], *, timeout: float, bytes_max: int = READ_BYTES_MAX
    ) -> list[tuple[list[StoredRecord], int]]:
        """Return the first records of several logs, whose records are in one relation, each ordered by `seq`.

        Records beyond the tenant's retention are left out, as by `read`. Where `bytes_max` does not suffice for all, every log gets its
        first record before any gets its second one; the first one of all is returned whatever its size.

        Returns:
            For each reading its records, and the `seq` at which the next one begins: the end of the span where nothing is left of it.

        Raises:
            DecklogError: `search-unavailable` after `timeout` seconds.
        """
        ...


class Announcements(Protocol):
    """Announcements of grown logs between processes. They may get lost; they only wake."""

    def announce(self, tenant_id: int, log: LogName, next_seq: int) -> None:
        """Announce the head of a log to every process, soon and coalesced. It never waits and never fails."""
        ...

    def subscribe(self, heard: Callable[[int, LogName, int], None]) -> Callable[[], None]:
        """Call `heard(tenant_id, log, next_seq)` for each announcement of any process; return a function that ends this."""
        ...


class SearchDocument(msgspec.Struct, frozen=True):
    """A record as the index stores it. Its id is made of tenant, log, epoch and seq."""

    tenant_id: int
    log: LogName
    epoch: int
    seq: int
    received_at: datetime
    terms: Terms


class SearchIndex(Protocol):
    """An index that finds sequence numbers. It can be deleted and rebuilt from the records."""

    async def add(self, tenant: Tenant, documents: Sequence[SearchDocument]) -> int:
        """Write documents into the ranges of the live generation; one of an older receipt time has none, and is left out.

        Documents of a Dedicated tenant are its own. Those of a Shared one may be of any tenant that has its generation.

        Writing a document again changes nothing. Raises `search-unavailable` unless every one was stored.
        Returns how many are stored without a field that the index refused.
        """
        ...

    async def ping(self) -> None:
        """Return if the index answers at all, whatever it can answer. Raises `search-unavailable`."""
        ...

    def covers(self, tenant: Tenant) -> bool:
        """Return whether the tenant's index has a live generation that this process can read."""
        ...

    async def refresh(self, *tenants: Tenant) -> None:
        """Make all documents findable that were written before into the indices of these tenants, by one request.

        Raises `search-unavailable` unless every index was refreshed.
        """
        ...

    async def find(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        limit: int,
        newest_first: bool,
        doubted: set[int] | None = None,
    ) -> list[int]:
        """Return the numbers of at most `limit` matching records of a span, ordered. Raises `search-unavailable`.

        Unless `query.index_decides`, the numbers of some other records may be among them. So may those of records of which the index
        refused what decides; they are added to `doubted`.
        """
        ...

    async def find_by_time(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        after: Place | None,
        limit: int,
        newest_first: bool,
        doubted: set[int] | None = None,
    ) -> list[Place]:
        """Return the places of at most `limit` matching records of a span after a place, ordered by `occurred_at` and then by `seq`.

        As with `find`, others may be among them. Raises `search-unavailable`.
        """
        ...

    async def count(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, grouping: Grouping, limit: int
    ) -> list[Bucket]:
        """Return counts as `RecordStore.count` does. Raises `search-unavailable`, `too-many-buckets` and UndecidedError."""
        ...

    async def facets(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, names: Sequence[str], limit: int
    ) -> list[list[Bucket]]:
        """Return counts as `RecordStore.facets` does, for any query. Raises `search-unavailable`, `too-many-buckets` and UndecidedError."""
        ...


class WakeUp(msgspec.Struct, frozen=True):
    """A message: the head of a log has reached `next_seq`.

    `receipt` is the queue's handle of the message. `waited` is its age in seconds, None if the queue does not report it.
    """

    tenant_id: int
    log: LogName
    next_seq: int
    receipt: str = ""
    waited: float | None = None


class WakeQueue(Protocol):
    """Wake-ups from the API to workers. Messages may be lost, doubled and reordered; no data depends on one."""

    async def send(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
        """Send messages, best effort. Raises `storage-unavailable` if the queue cannot be reached."""
        ...

    async def receive(self, queue: str, *, wait: float) -> list[WakeUp]:
        """Return the wake-ups of up to ten messages after at most `wait` seconds (20 or less). Unreadable ones are deleted and logged."""
        ...

    async def delete(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
        """Delete received messages, so that they are not delivered again."""
        ...


class Readiness(Protocol):
    """The health of a backend, for `/readyz`."""

    async def check(self) -> None:
        """Return if the backend answers; raise DecklogError otherwise."""
        ...
