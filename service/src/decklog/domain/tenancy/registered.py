"""A tenant as the database has it: its registry row, heads, API keys and stored volume. All parts decide by this."""

from __future__ import annotations

from datetime import datetime

import msgspec

from decklog.domain.archive.manifest import ArchiveSeen
from decklog.domain.tenancy.parts.keys import IssuedKey
from decklog.domain.tenancy.spec import TenantSpec
from decklog.domain.tenancy.status import Condition
from decklog.domain.tenant import DEFAULT_CELL, Isolation, State


class HeadSettings(msgspec.Struct, frozen=True):
    """What is decided of the heads of a tenant: the log of events takes `events_per_second`, `burst` and `events_per_day`,
    that of accesses `queries_per_minute`. 0 of what may be absent is no limit. `storage_used_up`: the log of events takes
    nothing in."""

    state: State
    events_per_second: int
    burst: int
    dedup_seconds: int
    events_per_day: int = 0
    queries_per_minute: int = 0
    storage_used_up: bool = False


class Row(msgspec.Struct, frozen=True):
    """A tenant as the registry has it.

    `former_uids` owned the tenant before it was retained and adopted. `spec` is None where it cannot be read any more.
    `keys_revision` counts how often the vault was written to, `keys_request` is the request to rotate that was done last.
    `settled` has the parts that were in order for this generation: what differs in them later was changed by somebody else.
    """

    id: int
    uid: str
    isolation: Isolation
    schema: str
    index: str
    queue: str
    retention_days: int
    state: State
    display_name: str
    spec: TenantSpec | None
    generation: int
    former_uids: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    keys_revision: int = 0
    keys_request: str = ""
    settled: tuple[str, ...] = ()
    cell: str = DEFAULT_CELL


class Stored(msgspec.Struct, frozen=True):
    """Of both logs: `records` taken in so far, the `unindexed` of them that no index has yet, and the bytes that they take, an
    estimate by the share of records where the relations are shared."""

    records: int
    unindexed: int
    bytes: int


class DatabaseSeen(msgspec.Struct, frozen=True):
    """`missing` lists what of the relations is not as it should be. `partitions` is whether those of the coming days
    are there. `keys` are those that were not revoked. `dedicated` counts the Dedicated tenants of the cell. `index_uuid` is the life of the index that the
    indexer's cursors count for; None where they are at the beginning. `archive` is None where none is asked for."""

    row: Row | None = None
    missing: tuple[str, ...] = ("relations",)
    partitions: bool = False
    heads: HeadSettings | None = None
    keys: tuple[IssuedKey, ...] = ()
    dedicated: int = 0
    index_uuid: str | None = None
    stored: Stored | None = None
    archive: ArchiveSeen | None = None


class Stopped(msgspec.Struct, frozen=True):
    """Of a tenant that is marked as deleted: the seconds since then, and when it took in its last record."""

    seconds: float
    last_received: datetime | None
