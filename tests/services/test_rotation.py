"""Keys are rotated, lost, forged and restored while processes die between any two steps: the vault holds valid keys in the
end, and keys that it held before stay valid for the overlap."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.records.record import RecordInput
from decklog.domain.tenancy.decision import decide
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.credentials import IssueKeys
from decklog.domain.tenancy.parts.database import RemoveTenant
from decklog.domain.tenancy.parts.keys import TENANT_ROLES, IssuedKey, Reason, current_keys
from decklog.domain.tenancy.parts.part import Action
from decklog.domain.tenancy.registered import DatabaseSeen, Row, Stopped
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenancy.status import Condition, Part, TenantStatus
from decklog.services.identity.keys import key_hash, new_key
from decklog.services.tenancy.ports import DatabaseProvisioning, DatabaseVisit
from decklog.services.tenancy.provisioning import Provisioner
from decklog.services.tenancy.vaults import Handout
from decklog.timescale.connection import Pool
from decklog.timescale.control.provision import CONNECTIONS_MAX, PostgresProvisioning
from tests.support.control import Control, control, on_each_variant
from tests.support.examples import examples
from tests.support.memory_control import MemoryControl
from tests.support.vaults import MemoryVault

__all__ = ["control"]

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPECS: tuple[dict[str, int], ...] = (
    {},
    {"overlapHours": 0},
    {"intervalDays": 1, "overlapHours": 23},
    {"intervalDays": 7, "overlapHours": 24},
    {"intervalDays": 30, "overlapHours": 0},
)


class Killed(BaseException):
    """The process ended; a BaseException, so that nothing catches it."""


class Fuse:
    """Kills the process before or after the n-th changing step, once."""

    def __init__(self) -> None:
        self.steps: int | None = None
        self.after = False

    async def run(self, step: Awaitable[None]) -> None:
        if self.steps is not None:
            self.steps -= 1
            if self.steps < 0:
                self.steps = None
                if self.after:
                    await step
                else:
                    step.close()  # type: ignore[attr-defined]  # a coroutine that never began
                raise Killed
        await step


class FusedVault(MemoryVault):
    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self._fuse = fuse
        self.history: list[Handout] = []

    async def write(self, manifest: Manifest, handout: Handout) -> None:
        self.history.append(handout)
        await self._fuse.run(super().write(manifest, handout))


class FusedVisit:
    def __init__(self, inner: DatabaseVisit, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    async def row(self) -> Row | None:
        return await self._inner.row()

    async def observe(self, manifest: Manifest, index: str) -> DatabaseSeen:
        return await self._inner.observe(manifest, index)

    async def apply(self, actions: Sequence[Action]) -> None:
        await self._fuse.run(self._inner.apply(actions))

    async def take_revision(self, revision: int) -> None:
        await self._fuse.run(self._inner.take_revision(revision))

    async def issue(self, keys: Sequence[IssuedKey], action: IssueKeys) -> None:
        await self._fuse.run(self._inner.issue(keys, action))

    async def revoke(self, ids: Sequence[str]) -> None:
        await self._fuse.run(self._inner.revoke(ids))

    async def save_conditions(self, conditions: Sequence[Condition], settled: Sequence[str]) -> None:
        await self._fuse.run(self._inner.save_conditions(conditions, settled))

    async def record(self, entry: RecordInput) -> None:
        await self._fuse.run(self._inner.record(entry))

    async def stopped(self) -> Stopped | None:
        return await self._inner.stopped()

    async def remove(self, action: RemoveTenant, entry: RecordInput) -> None:
        await self._fuse.run(self._inner.remove(action, entry))

    async def platform_keys(self) -> tuple[IssuedKey, ...]:
        return await self._inner.platform_keys()

    async def replace_platform_keys(self, key_id: str, key_hash: bytes, revoked: Sequence[str]) -> None:
        await self._inner.replace_platform_keys(key_id, key_hash, revoked)


class FusedDatabase:
    def __init__(self, inner: DatabaseProvisioning, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    @asynccontextmanager
    async def visit(self, name: str) -> AsyncIterator[FusedVisit]:
        async with self._inner.visit(name) as visit:
            yield FusedVisit(visit, self._fuse)

    async def observe(self, asked: Sequence[tuple[Manifest, str]]) -> list[DatabaseSeen]:
        return await self._inner.observe(asked)

    async def installation(self) -> str | None:
        return await self._inner.installation()

    async def find(self, name: str) -> Row | None:
        return await self._inner.find(name)


class World:
    """One tenant, its vault, and a process that looks after it and may be killed."""

    def __init__(self, database: DatabaseProvisioning) -> None:
        self.now = START
        self.fuse = Fuse()
        self.vault = FusedVault(self.fuse)
        self.database = database
        self.manifest = Manifest("acme", "uid-1", 1, parse_spec({"retention": {"days": 30}}))
        self.revisions: dict[int, Handout] = {}
        self.ends: dict[str, datetime] = {}
        self.gone: set[str] = set()

    def provisioner(self) -> Provisioner:
        fused = FusedDatabase(self.database, self.fuse)
        return Provisioner(fused, None, None, directory=MemoryControl(), now=lambda: self.now)

    async def keys(self) -> tuple[IssuedKey, ...]:
        async with self.database.visit("acme") as visit:
            return (await visit.observe(self.manifest, "")).keys

    async def row(self) -> Row:
        row = await self.database.find("acme")
        assert row is not None
        return row

    def hashes(self) -> dict[Role, bytes]:
        return {role: key_hash(token) for role, token in self.vault.keys.get("acme", {}).items()}

    async def visit(self, *, kill: tuple[int, bool] | None = None) -> TenantStatus | None:
        """The status, None where the process was killed; checks the invariants."""
        before = [key for key in await self.keys() if key.expires_at is None]
        self.fuse.steps, self.fuse.after = kill or (None, False)
        told: TenantStatus | None = None
        with suppress(Killed):
            told = await self.provisioner().reconcile(self.manifest, self.vault)
        self.fuse.steps = None
        await self._check(before)
        return told

    async def _check(self, before: Sequence[IssuedKey]) -> None:
        keys = {key.id: key for key in await self.keys()}
        for role in TENANT_ROLES:
            live = [key for key in keys.values() if key.role is role and not key.expired(self.now)]
            assert len(live) <= 2
            assert len([key for key in live if key.expires_at is None]) <= 1
        assert self.gone.isdisjoint(keys), "a key that was revoked is back"
        self.gone |= self.ends.keys() - keys.keys()
        overlap = timedelta(hours=self.manifest.spec.credentials.rotation.overlap_hours)
        for key in keys.values():
            end = key.expires_at or datetime.max.replace(tzinfo=UTC)
            assert end <= self.ends.get(key.id, end), "an end was moved back"
            self.ends[key.id] = end
        for key in before:
            after = keys.get(key.id)
            assert after is not None or not overlap, "cut off without an overlap"
            if after is not None and after.expires_at is not None:
                assert after.expires_at == self.now + overlap
        for handout in self.vault.history:
            assert handout.revision is not None
            assert self.revisions.setdefault(handout.revision, handout) == handout, "two contents of the vault with one revision"

    async def settle(self) -> None:
        """An undisturbed visit, after which the tenant must be converged."""
        told = await self.visit()
        assert told is not None
        assert told.synced, told.conditions
        keys, row = await self.keys(), await self.row()
        assert set(current_keys(keys, self.hashes())) == set(TENANT_ROLES), "a key in the vault is not good"
        assert self.vault.said["acme"][0] == row.keys_revision
        assert self.manifest.rotate in ("", row.keys_request)
        assert told.keys is not None
        assert self.vault.said["acme"][1] == told.keys.valid_until
        assert decide(self.manifest, await self.provisioner().observe(self.manifest, self.vault), self.now).actions == []


def disturb(world: World, rng: random.Random) -> None:
    """An event outside Decklog: by users, time or an attacker."""
    kept = world.vault.keys.get("acme")
    match rng.randrange(9):
        case 0:
            world.now += timedelta(hours=rng.choice([0, 1, 12, 24]))
        case 1:
            world.now += timedelta(days=rng.choice([1, 7, 31]))
        case 2:
            world.manifest = replace(world.manifest, rotate=f"request-{rng.randrange(1_000_000)}")
        case 3:
            spec = parse_spec({"retention": {"days": 30}, "credentials": {"rotation": rng.choice(SPECS)}})
            world.manifest = replace(world.manifest, spec=spec, generation=world.manifest.generation + 1)
        case 4 if kept:
            del world.vault.keys["acme"]
        case 5 if kept:
            del kept[rng.choice(sorted(kept))]
        case 6 if kept:
            kept[rng.choice(TENANT_ROLES)] = new_key()[1]
        case 7 if world.vault.history:
            restored = rng.choice(world.vault.history)
            world.vault.keys["acme"] = dict(restored.keys)
            world.vault.said["acme"] = restored.revision, restored.valid_until
        case 8 if kept:
            world.vault.said["acme"] = rng.randrange(100), rng.choice(["", "2026-01-02T03:04:05Z"])


async def live(world: World, rng: random.Random, rounds: int) -> None:
    for _ in range(rounds):
        disturb(world, rng)
        while rng.randrange(3):
            await world.visit(kill=(rng.randrange(8), rng.random() < 0.5))
            if not rng.randrange(3):
                disturb(world, rng)
        await world.settle()


@settings(max_examples=examples(150), deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_rotation_ends_with_valid_keys_and_no_early_revocation(rng: random.Random, rounds: int) -> None:
    asyncio.run(live(World(MemoryControl()), rng, rounds))


@pytest.fixture
async def pool(control: Control) -> AsyncIterator[Pool]:
    made = Pool(control.database.owner_dsn, size_max=CONNECTIONS_MAX, role=None)
    yield made
    await made.close()


@on_each_variant
@pytest.mark.parametrize("seed", range(2))
async def test_rotation_ends_with_valid_keys_in_the_database(control: Control, pool: Pool, seed: int) -> None:
    await live(World(PostgresProvisioning(pool)), random.Random(seed), rounds=12)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(4))
async def test_rotation_killed_at_any_step_is_completed_by_the_next_visit(step: int, after: bool) -> None:
    world = World(MemoryControl())
    await world.settle()
    held = {key.id for key in await world.keys()}
    world.manifest = replace(world.manifest, rotate="now")
    assert await world.visit(kill=(step, after)) is None
    assert held <= {key.id for key in await world.keys()}
    world.now += timedelta(hours=1)
    await world.settle()
    keys = await world.keys()
    # Begun, given out, let in, recorded: once they are let in, the overlap runs from there.
    let_in = step > 2 or (step == 2 and after)
    assert {key.expires_at for key in keys if key.id in held} == {world.now + timedelta(hours=23 if let_in else 24)}
    assert len(keys) == 6


async def test_rotation_request_is_carried_out_once_across_processes() -> None:
    world = World(MemoryControl())
    world.manifest = replace(world.manifest, rotate="first")
    await world.settle()
    assert (await world.row()).keys_revision == 1
    world.manifest = replace(world.manifest, rotate="second")
    for _ in range(3):
        await world.settle()
    assert (await world.row()).keys_revision == 2
    told = await world.visit()
    assert told is not None
    assert told.keys is not None
    assert told.keys.rotated == "second"


@pytest.mark.parametrize("request_", ["x" * 65, "two\nlines", "nul\0", "ü"])
async def test_invalid_rotation_request_is_refused_by_name(request_: str) -> None:
    world = World(MemoryControl())
    world.manifest = replace(world.manifest, rotate=request_)
    told = await world.visit()
    assert told is not None
    assert told.condition("Synced").reason == "InvalidSpec"
    assert "at most 64 characters" in told.condition("Synced").message
    assert world.vault.keys == {}


async def test_unwritable_vault_changes_no_key() -> None:
    world = World(MemoryControl())
    await world.settle()
    before = await world.keys()
    refuse: Callable[[Any], Awaitable[None]] = world.vault.write  # type: ignore[assignment]

    async def refused(manifest: Manifest, handout: Handout) -> None:
        raise DecklogError(Code.FORBIDDEN, "The Secret may not be written.")

    world.vault.write = refused  # type: ignore[method-assign]
    world.manifest = replace(world.manifest, rotate="now")
    told = await world.visit()
    assert told is not None
    assert told.condition(Part.CREDENTIALS).status == "False"
    assert await world.keys() == before
    world.vault.write = refuse  # type: ignore[assignment,method-assign]
    await world.settle()
    assert len(await world.keys()) == 6


async def test_vault_without_notes_is_written_only_for_new_keys() -> None:
    class Bare(MemoryVault):
        async def write(self, manifest: Manifest, handout: Handout) -> None:
            await super().write(manifest, Handout(handout.keys))

    provisioner, vault = Provisioner(MemoryControl(), None, None, directory=MemoryControl()), Bare()
    manifest = Manifest("acme", "uid-1", 1, parse_spec({"retention": {"days": 30}}))
    for _ in range(3):
        assert (await provisioner.reconcile(manifest, vault)).synced
    assert vault.writes == 1
    assert (await provisioner.reconcile(replace(manifest, rotate="1"), vault)).synced
    assert vault.writes == 2


async def test_issued_keys_carry_the_reason_of_the_change() -> None:
    world = World(MemoryControl())
    seen = await world.provisioner().observe(world.manifest, world.vault)
    assert isinstance(seen.database, DatabaseSeen)
    [first] = [action for action in decide(world.manifest, seen, START).actions if isinstance(action, IssueKeys)]
    assert first.reason is Reason.FIRST
    await world.settle()
    del world.vault.keys["acme"]
    seen = await world.provisioner().observe(world.manifest, world.vault)
    [lost] = decide(world.manifest, seen, START).actions
    assert isinstance(lost, IssueKeys)
    assert lost.reason is Reason.LOST
