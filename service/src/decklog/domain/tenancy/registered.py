"""A tenant as the database has it: its registry row, heads, API keys and stored volume. All parts decide by this."""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from decklog.domain.archive.manifest import ArchiveSeen
from decklog.domain.index_generation import GenerationRow
from decklog.domain.tenancy.parts.keys import IssuedKey
from decklog.domain.tenancy.spec import TenantSpec, seconds
from decklog.domain.tenancy.status import Condition, Rejected
from decklog.domain.tenant import DEFAULT_CELL, Isolation, State


class HeadSettings(msgspec.Struct, frozen=True):
    """Settings of a tenant's heads.

    `events_per_second`, `burst`, `events_per_day` and `storage_used_up` apply to the log of events, `queries_per_minute` to
    the access log. `events_per_day` and `queries_per_minute` are 0 where there is no limit. While `storage_used_up` is set,
    the log of events refuses records.
    """

    state: State
    events_per_second: int
    burst: int
    dedup_seconds: int
    events_per_day: int = 0
    queries_per_minute: int = 0
    storage_used_up: bool = False

    def differing(self, other: HeadSettings) -> tuple[str, ...]:
        """Return the names of the settings that differ."""
        return tuple(name for name in self.__struct_fields__ if getattr(self, name) != getattr(other, name))


def head_settings(spec: TenantSpec, *, storage_used_up: bool = False) -> HeadSettings:
    """Return the head settings that a spec asks for."""
    return HeadSettings(
        State.SUSPENDED if spec.suspend else State.ACTIVE,
        spec.quotas.events_per_second,
        spec.quotas.burst,
        seconds(spec.ingest.dedup_window),
        spec.quotas.events_per_day or 0,
        spec.quotas.queries_per_minute or 0,
        storage_used_up,
    )


class Row(msgspec.Struct, frozen=True):
    """A tenant's row in the registry.

    `former_uids` owned the tenant before it was retained and adopted, oldest first. `spec` is None where this version cannot
    decode it. `keys_revision` counts writes to the vault; `keys_request` is the last request to rotate that was carried out.
    `settled` names the parts that were in order for this generation: a later difference in them is drift.
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
    """Volume of both logs: `records` accepted so far, the `unindexed` of them that no index holds yet, and their `bytes`.

    Where relations are shared, `bytes` is an estimate by the tenant's share of records. `events_bytes` is the estimated part of the
    events log, which the storage quota bounds; None where no quota asks for it. `rejected` records are no part of it.
    """

    records: int
    unindexed: int
    bytes: int
    events_bytes: int | None = None
    rejected: Rejected = Rejected()

    @property
    def charged(self) -> int:
        """Bytes that count into the storage quota: those of the events log."""
        return self.bytes if self.events_bytes is None else self.events_bytes


class DatabaseSeen(msgspec.Struct, frozen=True):
    """A tenant as the database shows it.

    `missing`: names of database objects that are absent or differ from the template. `partitions`: whether those of the
    coming days exist. `keys`: API keys that are not revoked. `dedicated`: Dedicated tenants of the cell. `generations`: those of
    the tenant's index. `indexed_from`: the day before which no tenant of the index has received a record, None where no tenant is
    registered. `archive`: None where the deletion policy asks for none.
    """

    row: Row | None = None
    missing: tuple[str, ...] = ("relations",)
    partitions: bool = False
    heads: HeadSettings | None = None
    keys: tuple[IssuedKey, ...] = ()
    dedicated: int = 0
    generations: tuple[GenerationRow, ...] = ()
    indexed_from: date | None = None
    stored: Stored | None = None
    archive: ArchiveSeen | None = None


class Stopped(msgspec.Struct, frozen=True):
    """Of a tenant that is marked as deleted: the `seconds` since then, and the receipt time of its last record."""

    seconds: float
    last_received: datetime | None
