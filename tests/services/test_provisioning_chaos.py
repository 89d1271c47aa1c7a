"""One tenant on real backends under random faults: processes die between two steps, backends refuse or answer late, two
processes work concurrently, and objects are changed without Decklog.

Afterwards, undisturbed visits must converge, no record may be lost, nothing may be left over, and no key may be anywhere but
in the vault.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from opensearchpy import AsyncOpenSearch

from decklog.domain.errors import Code, DecklogError
from decklog.domain.index_generation import IndexGeneration
from decklog.domain.records.append import Appended
from decklog.domain.tenancy.decision import decide
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.keys import TENANT_ROLES
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenancy.status import SYNCED, TenantStatus
from decklog.domain.tenant import Isolation
from decklog.opensearch.provision import OpenSearchProvisioning
from decklog.services.identity.keys import key_hash, new_key
from decklog.services.tenancy.provisioning import Provisioner
from decklog.sqs.provision import SqsProvisioning
from decklog.timescale.connection import Pool
from decklog.timescale.control.provision import CONNECTIONS_MAX, PostgresProvisioning
from decklog.timescale.control.registry import PostgresRegistry
from tests.backends import OpenSearchServer, SqsServer
from tests.services.test_drift import DAMAGES
from tests.services.test_removal import stops_apply_everywhere
from tests.services.test_rotation import Fuse, FusedDatabase, FusedVault, Killed
from tests.support.control import Control, control
from tests.support.generations import remove_indices

__all__ = ["control"]

ROUNDS = 7
VISITS_MAX = 12
"""Undisturbed ones until a tenant is in order; a deletion takes several."""
SPECS: tuple[dict[str, Any], ...] = (
    {"quotas": {"eventsPerSecond": 5, "burst": 50}},
    {"ingest": {"dedupWindow": "30m"}, "displayName": "Acme & Söhne"},
    {"credentials": {"rotation": {"intervalDays": 7, "overlapHours": 24}}},
    {"queue": {"visibilityTimeoutSeconds": 45, "maxReceiveCount": 3}},
    {"suspend": True},
)
_KEY = re.compile(r"dlk_[0-9a-z]{8,32}_[0-9A-Za-z]{32,128}")


class Perils(Fuse):
    """The fate of a step: done, not begun, or done without an answer, by a fault of the backend or the end of the process."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.likely = 0.0
        self.suffered = 0

    def kill_at(self, step: int, *, after: bool) -> None:
        """Let the process die at this changing step, and at no other."""
        self.steps, self.after = step, after

    def burnt(self) -> bool:
        """Whether the process died."""
        burnt, self.steps = self.steps is None, None
        return burnt

    async def run(self, step: Awaitable[None]) -> None:
        await (super().run(step) if self.steps is not None else self.risk(step))

    async def risk(self, step: Awaitable[Any]) -> Any:
        if self.rng.random() >= self.likely:
            return await step
        self.suffered += 1
        if self.rng.random() < 0.5:
            step.close()  # type: ignore[attr-defined]  # a coroutine that never began
        else:
            await step
        raise self.rng.choice(
            [
                Killed(),
                TimeoutError(),
                DecklogError(Code.STORAGE_UNAVAILABLE, "The backend throttles."),
                DecklogError(Code.SEARCH_UNAVAILABLE, "The backend is away."),
                RuntimeError("nobody thought of that"),
            ]
        )


class Perilous:
    """An adapter of search or queue whose calls may fail."""

    def __init__(self, inner: Any, perils: Perils) -> None:
        self._inner, self._perils = inner, perils

    async def observe(self, name: str) -> Any:
        return await self._perils.risk(self._inner.observe(name))

    async def apply(self, action: Any) -> None:
        await self._perils.run(self._inner.apply(action))


class Life:
    """The tenant `acme`, which two processes look after."""

    def __init__(self, control: Control, search: AsyncOpenSearch, queue: Any, isolation: Isolation, rng: random.Random) -> None:
        self.control, self.search, self.queue, self.rng = control, search, queue, rng
        self.perils = Perils(rng)
        self.vault = FusedVault(self.perils)
        self.pools: list[Pool] = []
        self.base: dict[str, Any] = {"retention": {"days": 30}, "isolation": isolation.value, "deletionProtection": False}
        self.manifest = Manifest("acme", "uid-0", 1, parse_spec(self.base))
        self.shared = isolation is Isolation.SHARED
        self.processes = [self._process(), self._process()]
        self.records = 0
        self.statuses: list[TenantStatus] = []
        self.lives = 0

    def _process(self) -> Provisioner:
        pool = Pool(self.control.database.owner_dsn, size_max=CONNECTIONS_MAX, role=None)
        self.pools.append(pool)
        return Provisioner(
            FusedDatabase(PostgresProvisioning(pool), self.perils),
            Perilous(OpenSearchProvisioning(self.search, replicas=0), self.perils),
            Perilous(SqsProvisioning(self.queue), self.perils),
            directory=PostgresRegistry(pool),
            prefix=self.control.prefix,
        )

    async def close(self) -> None:
        for pool in self.pools:
            await pool.close()

    # --- what processes do -------------------------------------------------------------------------------------------

    async def _visit(self, process: Provisioner, *, remove: bool) -> TenantStatus | None:
        """None where the process died in the call."""
        try:
            done = process.remove if remove else process.reconcile
            told = await done(self.manifest, self.vault)
        except (Killed, asyncio.CancelledError):  # a death in a shared observation cancels those that wait for it
            return None
        self.statuses.append(told)
        return told

    async def disturbed(self, *, remove: bool = False) -> None:
        """Visits under faults, by one process or by both concurrently."""
        self.perils.likely = self.rng.choice([0.05, 0.2, 0.5])
        for _ in range(self.rng.randrange(1, 4)):
            working = self.processes[: self.rng.randrange(1, 3)]
            await asyncio.gather(*(self._visit(process, remove=remove) for process in working))
            if remove:
                await stops_apply_everywhere(self.control)
        self.perils.likely = 0.0

    async def until_synced(self, *, remove: bool = False) -> TenantStatus:
        """Undisturbed visits, by either process, until nothing is left to do."""
        for _ in range(VISITS_MAX):
            told = await self._visit(self.rng.choice(self.processes), remove=remove)
            assert told is not None, "nothing kills it now"
            if told.synced:
                return told
            if remove:
                await stops_apply_everywhere(self.control)
        raise AssertionError(f"never in order: {self.statuses[-1].conditions}")

    # --- what people do ----------------------------------------------------------------------------------------------

    def edit(self) -> None:
        """Another spec, without fields that a Shared tenant may not set."""
        chosen = self.rng.choice(SPECS)
        self.change({name: value for name, value in chosen.items() if not (self.shared and name == "queue")})

    def change(self, spec: dict[str, Any]) -> None:
        self.manifest = replace(self.manifest, spec=parse_spec({**self.base, **spec}), generation=self.manifest.generation + 1)

    async def meddle(self) -> None:
        """Change something without Decklog, in any backend."""
        row = await self.processes[0]._database.find("acme")
        if row is None:
            return
        kept = self.vault.keys.get("acme")
        match self.rng.randrange(9):
            case 0:
                await remove_indices(self.search, row.index)
            case 1:
                await self.search.indices.put_settings(
                    index=f"{row.index}.*", body={"index.refresh_interval": "1s"}, params={"ignore_unavailable": "true"}
                )
            case 2:
                for url in self.queues(row.queue)[: self.rng.randrange(1, 3)]:
                    self.queue.delete_queue(QueueUrl=url)
            case 3:
                for url in self.queues(row.queue):
                    self.queue.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "5"})
            case 4:
                damage = self.rng.choice([sql for sql, _ in DAMAGES if "DROP FUNCTION" not in sql])
                if await self.control.database.execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", row.schema):
                    for statement in damage.format(schema=row.schema).replace("DROP INDEX", "DROP INDEX IF EXISTS").split(";"):
                        await self.control.database.execute(statement)
            case 5:
                await self.control.database.execute("UPDATE decklog.heads SET burst = 7 WHERE tenant_id = $1 AND log = 0", row.id)
            case 6:
                await self.control.database.execute(
                    "UPDATE decklog.api_keys SET revoked_at = now() WHERE tenant_id = $1 AND role = $2",
                    row.id,
                    self.rng.choice(TENANT_ROLES).value,
                )
            case 7 if kept:
                kept[self.rng.choice(TENANT_ROLES)] = new_key()[1]
            case 8 if kept:
                del self.vault.keys["acme"]

    def queues(self, prefix: str) -> list[str]:
        return list(self.queue.list_queues(QueueNamePrefix=prefix).get("QueueUrls", ()))

    def again(self) -> None:
        """The same name, applied as another object."""
        self.lives += 1
        self.manifest = Manifest("acme", f"uid-{self.lives}", 1, parse_spec(self.base))

    async def deleted(self, policy: str) -> None:
        self.manifest = replace(
            self.manifest, spec=parse_spec({**self.base, "deletionPolicy": policy}), generation=self.manifest.generation + 1
        )
        await self.disturbed(remove=True)
        await self.until_synced(remove=True)
        assert "acme" not in {tenant.name for tenant in (await self.control.snapshot()).tenants.values()}
        if policy == "Delete":
            assert await self.processes[0]._database.find("acme") is None
            self.records = 0
        self.again()

    async def refused_to_go(self) -> None:
        """Delete the tenant while it is held: it must be looked after as before."""
        hold = self.rng.choice([{"legalHold": True}, {"deletionProtection": True}])
        spec = parse_spec({**self.base, "deletionPolicy": "Delete", **hold})
        self.manifest = replace(self.manifest, spec=spec, generation=self.manifest.generation + 1)
        await self.disturbed(remove=True)
        told = await self._visit(self.processes[0], remove=True)
        assert told is not None
        assert told.condition(SYNCED).reason in {"LegalHold", "DeletionProtected"}

    async def something_happens(self) -> None:
        match self.rng.randrange(8):
            case 0 | 1:
                self.edit()
            case 2:
                self.manifest = replace(self.manifest, rotate=f"request-{self.rng.randrange(1_000_000)}")
            case 3:
                await self.deleted("Retain")
            case 4:
                await self.deleted("Delete")
            case 5:
                await self.refused_to_go()
            case _:
                await self.meddle()

    # --- what must be true in the end --------------------------------------------------------------------------------

    async def in_order(self) -> None:
        assert (await self.rng.choice(self.processes).ensure_platform_tenant()).synced
        await self.until_synced()
        assert decide(self.manifest, await self.processes[0].observe(self.manifest, self.vault), datetime.now(UTC)).actions == []
        row = await self.processes[0]._database.find("acme")
        assert row is not None
        assert row.uid == self.manifest.uid
        live = await self.control.database.execute(
            "SELECT role, hash FROM decklog.api_keys WHERE tenant_id = $1 AND revoked_at IS NULL AND expires_at IS NULL", row.id
        )
        given = self.vault.keys["acme"]
        assert {(role.value, key_hash(token)) for role, token in given.items()} == {(key["role"], key["hash"]) for key in live}
        await self.no_record_is_lost()
        await self.nothing_is_left_over()

    async def no_record_is_lost(self) -> None:
        stored = await self.control.append()
        if self.manifest.spec.suspend:
            assert isinstance(stored, DecklogError)
            assert stored.code is Code.TENANT_SUSPENDED
        else:
            assert isinstance(stored, Appended)
            assert stored.receipts[0].seq == self.records
            self.records += 1
        tenant = await self.control.tenant()
        rows = await self.control.database.execute(
            f"SELECT seq FROM {tenant.schema}.records WHERE tenant_id = $1 AND log = 0 ORDER BY seq", tenant.id
        )
        assert [row["seq"] for row in rows] == list(range(self.records))

    async def nothing_is_left_over(self) -> None:
        """Exactly the objects that the registry names must exist; generations that nothing uses any more are for workers."""
        rows = await self.control.database.execute("SELECT schema, index, queue FROM decklog.tenants")
        indices = await self.search.indices.get(index=f"{self.control.prefix}-*", params={"filter_path": "*.settings.index.uuid"})
        assert {name.partition(".")[0] for name in indices} == {row["index"] for row in rows}
        used = "SELECT index, generation, starts FROM decklog.search_generations WHERE state <> 2"
        for row in await self.control.database.execute(used):
            assert set(IndexGeneration(*row).range_indices) <= set(indices)
        there = {url.rpartition("/")[2].removesuffix("-dlq") for url in self.queues(self.control.prefix)}
        assert there == {row["queue"] for row in rows}
        relations = await self.control.database.execute("SELECT schema_name FROM decklog.relations")
        assert {row["schema_name"] for row in relations} >= {row["schema"] for row in rows}
        assert not [row for row in relations if row["schema_name"] == "t_acme"] or not self.shared


@pytest.mark.parametrize("isolation", Isolation)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.endurance)])
async def test_tenant_converges_without_lost_records_or_leaked_keys_under_any_faults(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer, isolation: Isolation, seed: int
) -> None:
    life = Life(control, control.search(opensearch_server), control.queue(sqs_server), isolation, random.Random(seed))
    happening: list[Callable[[], Awaitable[None]]] = [life.something_happens, life.disturbed]
    with structlog.testing.capture_logs() as logged:
        await life.in_order()
        for _ in range(ROUNDS):
            for each in happening:
                await each()
            await life.in_order()
    assert life.perils.suffered >= ROUNDS, "the weather was too good"
    given = {token for handout in life.vault.history for token in handout.keys.values()}
    assert len(given) >= len(TENANT_ROLES)
    assert "info" in {line["log_level"] for line in logged}, "what is to hold no key must have been seen"
    assert not _KEY.findall(f"{life.statuses}{logged}")
    await life.close()


@pytest.mark.parametrize(
    ("isolation", "after"),
    [
        pytest.param(Isolation.DEDICATED, True, id="after-Dedicated"),
        pytest.param(Isolation.SHARED, False, id="before-Shared"),
        # A death before an action is one after the action before it, but for the first.
        pytest.param(Isolation.DEDICATED, False, marks=pytest.mark.endurance, id="before-Dedicated"),
        pytest.param(Isolation.SHARED, True, marks=pytest.mark.endurance, id="after-Shared"),
    ],
)
async def test_next_process_completes_creation_or_change_killed_at_any_action(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer, isolation: Isolation, after: bool
) -> None:
    life = Life(control, control.search(opensearch_server), control.queue(sqs_server), isolation, random.Random(0))
    kills = {"creation": 0, "change": 0}
    for what, least in (("creation", 6), ("change", 3 if life.shared else 4)):
        burnt, steps = True, 0
        while burnt:
            if what == "change":
                queue = {} if life.shared else {"queue": {"visibilityTimeoutSeconds": 45 + steps}}
                life.change({"retention": {"days": 20 + steps}, "quotas": {"eventsPerSecond": 5, "burst": 50 + steps}, **queue})
            life.perils.kill_at(steps, after=after)
            await life._visit(life.processes[0], remove=False)
            burnt, steps = life.perils.burnt(), steps + 1
            kills[what] += burnt
            await life.in_order()
            if what == "creation" and burnt:
                await life.deleted("Delete")
        assert kills[what] >= least, (what, kills)
    await life.close()
