"""`DatabaseProvisioning` in memory: rows and keys as in the control tables, everything else always in order.

It lets tests try many histories quickly; `tests/services/test_rotation.py` checks it and the real one by the same tests.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from decklog.domain.identity.access import Role
from decklog.domain.records.record import RecordInput
from decklog.domain.store import ApiKey
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import index_name, queue_name, schema_name
from decklog.domain.tenancy.parts.credentials import IssueKeys
from decklog.domain.tenancy.parts.database import MakePartitions, RegisterTenant, RemoveTenant, SetHeads, UpdateTenant
from decklog.domain.tenancy.parts.keys import IssuedKey
from decklog.domain.tenancy.parts.part import Action
from decklog.domain.tenancy.parts.search import RecordGeneration, RetireGenerations
from decklog.domain.tenancy.registered import DatabaseSeen, HeadSettings, Row, Stopped, head_settings
from decklog.domain.tenancy.removal import STOP_SECONDS
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenancy.status import Condition, TenantListing
from decklog.domain.tenant import PLATFORM_TENANT, State, Tenant
from tests.support.memory import MemoryRegistry, make_tenant
from tests.support.memory_store import MemoryStore


class StoredKey(msgspec.Struct):
    """A row of `api_keys`, which is never deleted."""

    tenant: str | None
    key: IssuedKey
    revoked: bool = False


class MemoryControl:
    """The control tables of one database."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.recorded: list[RecordInput] = []
        self.heads: dict[str, HeadSettings] = {}
        self.keys: list[StoredKey] = []
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def visit(self, name: str) -> AsyncIterator[MemoryVisit]:
        async with self._locks[name]:
            yield MemoryVisit(self, name)

    async def observe(self, asked: Sequence[tuple[Manifest, str]]) -> list[DatabaseSeen]:
        return [await MemoryVisit(self, manifest.name).observe(manifest, index) for manifest, index in asked]

    async def installation(self) -> str | None:
        row = self.rows.get(PLATFORM_TENANT)
        return row.uid if row else None

    async def find(self, name: str) -> Row | None:
        return self.rows.get(name)

    async def tenants(self, *, after: str = "", limit: int | None = None) -> list[TenantListing]:
        names = sorted(name for name in self.rows if name > after)
        return [_listing(name, self.rows[name]) for name in names[:limit]]

    async def tenant(self, name: str) -> TenantListing | None:
        row = self.rows.get(name)
        return None if row is None else _listing(name, row)


def _listing(name: str, row: Row) -> TenantListing:
    values = {field: getattr(row, field) for field in TenantListing.__struct_fields__ if field in Row.__struct_fields__}
    gone = datetime(2026, 2, 1, tzinfo=UTC) if row.state is State.DELETED else None
    return TenantListing(name=name, created_at=datetime(2026, 1, 1, tzinfo=UTC), deleted_at=gone, **values)


class ServedControl(MemoryControl):
    """Control tables whose tenants and keys are served at once by the registry and the store."""

    def __init__(self, registry: MemoryRegistry, store: MemoryStore) -> None:
        super().__init__()
        self._registry = registry
        self._store = store

    @asynccontextmanager
    async def visit(self, name: str) -> AsyncIterator[MemoryVisit]:
        async with super().visit(name) as visit:
            yield visit
        self._serve(name)

    def put(self, tenant: Tenant, keys: Iterable[IssuedKey]) -> None:
        """A tenant that is ready and served already, as if it had been made earlier."""
        spec = parse_spec({"isolation": tenant.isolation.value, "retention": {"days": tenant.retention_days}})
        ready = (Condition("Ready", "True", "Ready", "", 1, "2026-01-01T00:00:00Z"),)
        names = schema_name(tenant.name, spec), index_name(tenant.name, spec), queue_name(tenant.name, spec)
        days, text = tenant.retention_days, tenant.display_name
        self.rows[tenant.name] = Row(
            tenant.id, "uid-0", tenant.isolation, *names, days, tenant.state, text, spec, generation=1, conditions=ready
        )
        self.heads[tenant.name] = head_settings(spec)
        self.keys += [StoredKey(tenant.name, key) for key in keys]

    def _serve(self, name: str) -> None:
        row = self.rows.get(name)
        if row is None:
            return
        known = next((tenant for tenant in self._registry.tenants.values() if tenant.name == name), None)
        if known is None:
            known = make_tenant(name, isolation=row.isolation, state=row.state)
            self._store.register(known)
            self._registry.add_tenant(known)
        for key in (stored.key for stored in self.keys if stored.tenant == name and not stored.revoked):
            served = ApiKey(key.id, known.id, key.role, key.hash, key.expires_at)
            if self._registry.keys.get(key.id) != served:
                self._registry.put_key(served)
        for stored in self.keys:
            if stored.tenant == name and stored.revoked and stored.key.id in self._registry.keys:
                self._registry.drop_key(stored.key.id)


class MemoryVisit:
    def __init__(self, control: MemoryControl, name: str) -> None:
        self._control = control
        self._name = name

    async def row(self) -> Row | None:
        return self._control.rows.get(self._name)

    async def observe(self, manifest: Manifest, index: str) -> DatabaseSeen:
        row, heads = self._control.rows.get(self._name), self._control.heads.get(self._name)
        return DatabaseSeen(row, (), partitions=True, heads=heads, keys=self._keys(self._name))

    async def apply(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case RegisterTenant(row=row):
                    self._control.rows[self._name] = replace(row, id=len(self._control.rows) + 1)
                case UpdateTenant():
                    changed = {name: getattr(action.row, name) for name in action.changes}
                    self._change(**changed)
                case SetHeads(settings=settings):
                    self._control.heads[self._name] = settings
                case MakePartitions() | RecordGeneration() | RetireGenerations():
                    pass
                case _:
                    raise TypeError(f"{type(action).__name__} is never needed here")

    async def take_revision(self, revision: int) -> None:
        self._change(keys_revision=revision)

    async def issue(self, keys: Sequence[IssuedKey], action: IssueKeys) -> None:
        after = action.succession
        for stored in self._control.keys:
            if stored.tenant == self._name and stored.key.id in after.revoked:
                stored.revoked = True
            if stored.tenant == self._name and stored.key.id in after.retired:
                assert after.retired_until is not None
                until = min(stored.key.expires_at or after.retired_until, after.retired_until)
                stored.key = replace(stored.key, expires_at=until)
        self._control.keys += [StoredKey(self._name, key) for key in keys]
        self._change(keys_request=action.request)

    async def revoke(self, ids: Sequence[str]) -> None:
        for stored in self._control.keys:
            if stored.tenant == self._name and stored.key.id in ids:
                stored.revoked = True

    async def save_conditions(self, conditions: Sequence[Condition], settled: Sequence[str]) -> None:
        self._change(conditions=tuple(conditions), settled=tuple(settled))

    async def record(self, entry: RecordInput) -> None:
        assert self._name in self._control.rows
        self._control.recorded.append(entry)

    async def stopped(self) -> Stopped | None:
        row = self._control.rows.get(self._name)
        return Stopped(STOP_SECONDS, None) if row is not None and row.state is State.DELETED else None

    async def remove(self, action: RemoveTenant, entry: RecordInput) -> None:
        assert PLATFORM_TENANT in self._control.rows, "the platform's log has the last word"
        del self._control.rows[self._name]
        self._control.heads.pop(self._name, None)
        self._control.keys = [stored for stored in self._control.keys if stored.tenant != self._name]

    async def platform_keys(self) -> tuple[IssuedKey, ...]:
        return self._keys(None)

    async def replace_platform_keys(self, key_id: str, key_hash: bytes, revoked: Sequence[str]) -> None:
        self._control.keys.append(StoredKey(None, IssuedKey(key_id, Role.PLATFORM, key_hash, datetime.now(UTC))))
        for stored in self._control.keys:
            if stored.tenant is None and stored.key.id in revoked:
                stored.revoked = True

    def _keys(self, tenant: str | None) -> tuple[IssuedKey, ...]:
        return tuple(stored.key for stored in self._control.keys if stored.tenant == tenant and not stored.revoked)

    def _change(self, **values: object) -> None:
        self._control.rows[self._name] = replace(self._control.rows[self._name], **values)
