"""API keys over HTTP: an admin of the tenant lists them, makes them and revokes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decklog.domain.errors import Code
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.domain.tenancy.api_keys import KEYS_MAX
from tests.support.api_world import RECORD, World, code_of

PATH = "/api/v1/keys"
KEY: dict[str, Any] = {"role": "writer", "name": "Billing"}
MEMBERS = {"id", "role", "name", "source", "created_at", "created_by", "expires_at", "revoked_at", "last_used_at"}


async def access_records(world: World) -> list[dict[str, Any]]:
    """Return the records of the tenant's access log that are about keys, oldest first."""
    tenant = world.tenant("acme")
    head = await world.store.head(tenant, LogName.ACCESS)
    found = await world.store.fetch(tenant, LogName.ACCESS, range(head.next_seq), newest_first=False)
    contents = [json.loads(record.content) for record in found]
    return [content for content in contents if content["action"].startswith("keys.")]


def own_id(world: World, role: Role) -> str:
    return world.keys["acme", role].split("_")[1]


async def test_key_is_shown_once_and_works_until_it_is_revoked(world: World) -> None:
    async with world.client(Role.ADMIN) as admin, world.client() as anybody:
        answer = await admin.post(PATH, json={**KEY, "expires_in": 3600})
        assert answer.status_code == 201
        made = answer.json()
        assert made.keys() == MEMBERS | {"key"}
        assert (made["role"], made["name"], made["source"]) == ("writer", "Billing", "api")
        assert made["created_by"] == f"api_key::{own_id(world, Role.ADMIN)}"
        assert made["expires_at"] is not None

        bearer = {"Authorization": f"Bearer {made['key']}"}
        assert (await anybody.post("/api/v1/logs", json=RECORD, headers=bearer)).status_code == 201
        assert code_of(await anybody.get("/api/v1/logs", headers=bearer)) == Code.FORBIDDEN.value
        listed = (await admin.get(PATH)).json()["items"]
        assert all(each.keys() == MEMBERS for each in listed)
        assert listed[0]["id"] == made["id"]
        assert {each["source"] for each in listed[1:]} == {"provisioned"}
        assert sorted(each["role"] for each in listed[1:]) == ["admin", "auditor", "writer"]

        for _ in range(2):
            assert (await admin.delete(f"{PATH}/{made['id']}")).status_code == 204
        await world.cache.refresh()
        assert code_of(await anybody.post("/api/v1/logs", json=RECORD, headers=bearer)) == Code.UNAUTHENTICATED.value
        assert (await admin.get(PATH)).json()["items"][-1]["revoked_at"] is not None


async def test_access_records_name_requester_and_key_and_never_the_key(world: World) -> None:
    async with world.client(Role.ADMIN) as admin:
        made = (await admin.post(PATH, json=KEY)).json()
        await admin.get(PATH)
        await admin.delete(f"{PATH}/{made['id']}")
        assert code_of(await admin.delete(f"{PATH}/{own_id(world, Role.ADMIN)}")) == Code.CONFLICT.value
    created, listed, revoked, refused = await access_records(world)
    assert (created["action"], created["resource"]) == ("keys.create", {"type": "key", "id": made["id"]})
    assert created["metadata"] == {"key_role": "writer", "name": "Billing", "expires_in": None, "role": "admin"}
    assert (listed["action"], listed["metadata"]["count"]) == ("keys.list", 4)
    assert (revoked["action"], revoked["resource"]["id"], revoked["outcome"]) == ("keys.revoke", made["id"], "success")
    assert (refused["action"], refused["outcome"], refused["metadata"]["source"]) == ("keys.revoke", "failure", "provisioned")
    for record in (created, listed, revoked, refused):
        assert record["actor"] == {"type": "api_key", "id": own_id(world, Role.ADMIN)}
        assert made["key"].split("_")[2] not in json.dumps(record)


async def test_provisioned_key_is_revoked_by_rotation_only(world: World) -> None:
    async with world.client(Role.ADMIN) as admin:
        refused = await admin.delete(f"{PATH}/{own_id(world, Role.WRITER)}")
        assert code_of(refused) == Code.CONFLICT.value
        assert "decklog.dev/rotate" in refused.json()["detail"]
    async with world.client(Role.WRITER) as writer:
        assert (await writer.post("/api/v1/logs", json=RECORD)).status_code == 201


async def test_key_of_another_tenant_is_not_found(world: World) -> None:
    async with world.client(Role.ADMIN) as admin, world.client(Role.ADMIN, "other") as other:
        number = (await other.post(PATH, json=KEY)).json()["id"]
        foreign = world.keys["other", Role.WRITER].split("_")[1]
        for each in (number, foreign, "0" * 16, "x", "A" * 100):
            assert code_of(await admin.delete(f"{PATH}/{each}")) == Code.NOT_FOUND.value
        assert number not in {each["id"] for each in (await admin.get(PATH)).json()["items"]}
        assert (await other.get(PATH)).json()["items"][0]["revoked_at"] is None


@pytest.mark.parametrize("role", [Role.WRITER, Role.AUDITOR, Role.PLATFORM])
async def test_keys_are_refused_to_all_but_admins(world: World, role: Role) -> None:
    async with world.client(role) as client:
        for response in (await client.get(PATH), await client.post(PATH, json=KEY), await client.delete(f"{PATH}/{'0' * 16}")):
            assert code_of(response) == Code.FORBIDDEN.value


async def test_made_admin_key_manages_keys_and_may_revoke_itself(world: World) -> None:
    async with world.client(Role.ADMIN) as admin, world.client() as anybody:
        made = (await admin.post(PATH, json={"role": "admin", "name": "Second"})).json()
        bearer = {"Authorization": f"Bearer {made['key']}"}
        further = (await anybody.post(PATH, json=KEY, headers=bearer)).json()
        assert further["created_by"] == f"api_key::{made['id']}"
        assert (await anybody.delete(f"{PATH}/{made['id']}", headers=bearer)).status_code == 204
        await world.cache.refresh()
        assert code_of(await anybody.get(PATH, headers=bearer)) == Code.UNAUTHENTICATED.value


@pytest.mark.parametrize(
    "change",
    [
        {"role": "platform"},
        {"role": None},
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 201},
        {"name": "a\0b"},
        {"expires_in": 59},
        {"expires_in": 315_360_001},
        {"expires_in": "3600"},
        {"expires_in": 3600.5},
        {"tenant": "other"},
        {"id": "0" * 16},
        {"key": "dlk_0000000000000000_" + "0" * 64},
    ],
)
async def test_key_that_cannot_be_made_is_refused(world: World, change: dict[str, Any]) -> None:
    async with world.client(Role.ADMIN) as admin:
        refused = await admin.post(PATH, json={**KEY, **change})
        assert code_of(refused) == Code.INVALID_PARAMETER.value
        assert len((await admin.get(PATH)).json()["items"]) == 3


async def test_keys_of_a_tenant_are_bounded_and_the_refusal_is_recorded(world: World) -> None:
    async with world.client(Role.ADMIN) as admin:
        made = [(await admin.post(PATH, json=KEY)).json()["id"] for _ in range(KEYS_MAX)]
        assert code_of(await admin.post(PATH, json=KEY)) == Code.CONFLICT.value
        last, refused = (await access_records(world))[-2:]
        assert (refused["resource"], refused["outcome"]) == (last["resource"], "failure")
        assert (refused["metadata"]["code"], refused["metadata"]["key_role"]) == ("conflict", "writer")
        await admin.delete(f"{PATH}/{made[0]}")
        too_fast = await admin.post(PATH, json=KEY)
        assert code_of(too_fast) == Code.RATE_LIMITED.value
        assert int(too_fast.headers["retry-after"]) > 0
