"""A glance needs no exclusive access, shares its query with other tenants, and returns the status of a visit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.refusal import refusal
from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenancy.status import READY, TenantStatus
from decklog.services.tenancy.observing import Observer
from decklog.services.tenancy.provisioning import Provisioner
from tests.support.memory_control import MemoryControl, MemoryVisit
from tests.support.vaults import MemoryVault

SPEC: dict[str, Any] = {"isolation": "Shared", "retention": {"days": 90}}


class Counted(MemoryControl):
    """Records which tenants were visited, and which were queried together."""

    def __init__(self) -> None:
        super().__init__()
        self.visited: list[str] = []
        self.asked: list[list[str]] = []

    @asynccontextmanager
    async def visit(self, name: str) -> AsyncIterator[MemoryVisit]:
        self.visited.append(name)
        async with super().visit(name) as visit:
            yield visit

    async def observe(self, asked: Sequence[tuple[Manifest, str]]) -> list[DatabaseSeen]:
        self.asked.append([manifest.name for manifest, _ in asked])
        await asyncio.sleep(0)
        return await super().observe(asked)


class World:
    def __init__(self) -> None:
        self.control, self.vault = Counted(), MemoryVault()
        self.provisioner = Provisioner(self.control, None, None, directory=self.control)

    async def made(self, name: str) -> tuple[Manifest, TenantStatus]:
        manifest = Manifest(name, f"uid-{name}", 1, parse_spec(SPEC))
        return manifest, await self.provisioner.reconcile(manifest, self.vault)

    async def look(self, manifest: Manifest, before: TenantStatus) -> TenantStatus:
        """Reconcile again; `visited` and `asked` then describe this call only."""
        self.control.visited, self.control.asked = [], []
        return await self.provisioner.reconcile(manifest, self.vault, before.conditions)


@pytest.fixture
def world() -> World:
    return World()


async def test_glance_returns_the_status_of_a_visit_for_converged_tenant(world: World) -> None:
    manifest, first = await world.made("acme")
    visited = await world.provisioner.reconcile(manifest, world.vault)
    glanced = await world.look(manifest, first)
    assert world.control.visited == []
    assert replace(glanced, usage=None) == replace(visited, usage=None)
    assert glanced.ready


async def test_glances_query_the_database_for_many_tenants_together(world: World) -> None:
    made = [await world.made(f"t-{number}") for number in range(50)]
    world.control.visited, world.control.asked = [], []
    looks = (world.provisioner.reconcile(manifest, world.vault, told.conditions) for manifest, told in made)
    assert all(told.ready for told in await asyncio.gather(*looks))
    assert world.control.visited == []
    assert len(world.control.asked) <= 3
    assert sorted(name for names in world.control.asked for name in names) == sorted(manifest.name for manifest, _ in made)


async def test_glance_becomes_a_visit_when_there_is_drift(world: World) -> None:
    manifest, told = await world.made("acme")
    world.control.heads["acme"] = replace(world.control.heads["acme"], burst=1)
    assert (await world.look(manifest, told)).drift is not None
    assert world.control.visited == ["acme"]
    assert world.control.heads["acme"].burst != 1
    del world.vault.keys["acme"]
    assert (await world.look(manifest, told)).ready
    assert world.control.visited == ["acme"]
    assert len(world.vault.keys["acme"]) == 3


async def test_glance_becomes_a_visit_when_stored_conditions_differ(world: World) -> None:
    manifest, told = await world.made("acme")
    world.control.rows["acme"] = replace(world.control.rows["acme"], conditions=())
    await world.look(manifest, told)
    assert world.control.visited == ["acme"]
    assert world.control.rows["acme"].conditions == told.conditions


async def test_reconcile_visits_new_tenant_and_new_spec_without_a_glance(world: World) -> None:
    manifest, told = await world.made("acme")
    assert world.control.asked == []
    changed = replace(manifest, generation=2, spec=parse_spec({**SPEC, "displayName": "Acme"}))
    assert (await world.look(changed, told)).observed_generation == 2
    assert (world.control.visited, world.control.asked) == (["acme"], [])


async def test_glance_refuses_foreign_tenant_like_a_visit(world: World) -> None:
    manifest, told = await world.made("acme")
    refused = await world.look(replace(manifest, uid="another"), told)
    assert refused.condition(READY).reason == "Conflict"
    assert world.control.rows["acme"].uid == manifest.uid


async def test_reconcile_computes_the_refusal_once_per_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals, looks = Mock(wraps=refusal), Mock()
    monkeypatch.setattr("decklog.domain.tenancy.decision.refusal", refusals)
    for name in ("glance", "visit"):
        observe = getattr(Observer, name)

        def counted(*args: Any, observe: Any = observe) -> Any:
            looks()
            return observe(*args)

        monkeypatch.setattr(Observer, name, counted)

    async def counts(manifest: Manifest, previous: TenantStatus | None = None) -> tuple[int, int]:
        refusals.reset_mock()
        looks.reset_mock()
        await world.provisioner.reconcile(manifest, world.vault, previous.conditions if previous else ())
        return refusals.call_count, looks.call_count

    manifest, told = await world.made("acme")  # with the reserved tenant, which is made first
    assert await counts(replace(manifest, name="beta", uid="uid-beta")) == (2, 2)
    assert await counts(manifest, told) == (1, 1)
    assert await counts(replace(manifest, uid="another"), told) == (2, 2)
    del world.vault.keys["acme"]
    assert await counts(manifest, told) == (3, 3)
