"""Tenants over the API: who may see which, and that looking is recorded."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from decklog.api import shapes
from decklog.domain.access import Role
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.query import Query
from decklog.domain.tenant import State
from tests.api.conftest import World
from tests.api.test_append import code_of

NAMES_OF_NOBODY = ["nobody", "Acme", "acme-", "a" * 41, "a" * 2_000, "a%00b", "%F0%9F%9A%A2", "a'--", "acme%0A", "ACME"]


async def access_records(world: World, name: str) -> list[dict[str, Any]]:
    """What stands in a tenant's access log, oldest first."""
    tenant = world.tenant(name)
    found, _ = await world.store.read(
        tenant, LogName.ACCESS, query=Query(), first=0, end=10_000, limit=1_000, newest_first=False, timeout=5
    )
    return [msgspec.json.decode(record.content) for record in found]


async def test_the_platform_lists_tenants_and_that_is_recorded(world: World) -> None:
    async with world.client(Role.PLATFORM) as client:
        response = await client.get("/api/v1/tenants")
        items = msgspec.json.decode(response.content, type=shapes.TenantsAnswer).items
        assert [item.name for item in items] == ["acme", "decklog", "other"]
        assert items[0].conditions[0].type == "Ready"
    [record] = await access_records(world, "decklog")
    assert (record["action"], record["metadata"]["count"]) == ("tenants.list", 3)


async def test_the_platform_sees_any_tenant_and_that_is_recorded_in_its_own_log(world: World) -> None:
    async with world.client(Role.PLATFORM) as client:
        listed = (await client.get("/api/v1/tenants")).json()["items"]
        for item in listed:
            response = await client.get(f"/api/v1/tenants/{item['name']}")
            assert response.json() == item
            assert msgspec.json.decode(response.content, type=shapes.TenantItem).spec is not None
    records = [record for record in await access_records(world, "decklog") if record["action"] == "tenants.read"]
    assert [record["resource"] for record in records] == [{"type": "tenant", "id": item["name"]} for item in listed]
    assert {record["outcome"] for record in records} == {"success"}
    assert await access_records(world, "acme") == []


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.ADMIN])
async def test_a_tenants_own_people_see_it_and_that_is_recorded_in_its_log(world: World, role: Role) -> None:
    async with world.client(role) as client:
        assert (await client.get("/api/v1/tenants/acme")).json()["name"] == "acme"
    [record] = await access_records(world, "acme")
    assert (record["action"], record["resource"], record["metadata"]["role"]) == (
        "tenants.read",
        {"type": "tenant", "id": "acme"},
        role.value,
    )
    assert await access_records(world, "decklog") == []


async def test_another_tenant_cannot_be_told_from_one_that_does_not_exist(world: World) -> None:
    async with world.client(Role.ADMIN) as client:
        answers = [await client.get(f"/api/v1/tenants/{name}") for name in ("other", "decklog", *NAMES_OF_NOBODY)]
    assert {(answer.status_code, code_of(answer)) for answer in answers} == {(404, "not-found")}
    assert len({answer.json()["detail"] for answer in answers}) == 1
    records = await access_records(world, "acme")
    assert len(records) == len(answers)
    assert {(record["outcome"], record["metadata"]["count"]) for record in records} == {("failure", 0)}


async def test_a_name_that_no_tenant_can_have_is_not_found_and_asked_of_no_database(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(name: str) -> None:
        assert name == "nobody"

    monkeypatch.setattr(world.tenants._directory, "tenant", never)
    async with world.client(Role.PLATFORM) as client:
        for name in NAMES_OF_NOBODY:
            response = await client.get(f"/api/v1/tenants/{name}")
            assert (response.status_code, code_of(response)) == (404, "not-found"), name


async def test_a_suspended_tenant_is_shown_to_the_platform_and_not_to_its_own_people(world: World) -> None:
    changed = world.cache.changed()
    world.registry.add_tenant(msgspec.structs.replace(world.tenant("acme"), state=State.SUSPENDED))
    await changed.wait()
    async with world.client(Role.ADMIN) as client:
        assert code_of(await client.get("/api/v1/tenants/acme")) == "tenant-suspended"
    async with world.client(Role.PLATFORM) as client:
        assert (await client.get("/api/v1/tenants/acme")).json()["state"] == "suspended"


@pytest.mark.parametrize("role", [Role.PLATFORM, Role.ADMIN])
async def test_where_looking_cannot_be_recorded_nothing_is_told(world: World, role: Role) -> None:
    world.store.failing_append = DecklogError(Code.STORAGE_UNAVAILABLE, "Away on purpose.")
    async with world.client(role) as client:
        for path in ("acme", "nobody"):
            response = await client.get(f"/api/v1/tenants/{path}")
            assert (response.status_code, code_of(response)) == (503, "access-log-unavailable")
            assert "conditions" not in response.text


async def test_there_are_no_parameters(world: World) -> None:
    async with world.client(Role.PLATFORM) as client:
        for path in ("", "/acme"):
            response = await client.get(f"/api/v1/tenants{path}", params={"tenant": "other"})
            assert (response.status_code, code_of(response)) == (422, "unknown-parameter")
