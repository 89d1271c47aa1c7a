"""Saved searches over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from decklog.domain.errors import Code
from decklog.domain.identity.access import Role
from decklog.domain.search.saved import SEARCHES_MAX
from tests.support.api_world import World, access_actions, code_of

SEARCH: dict[str, Any] = {
    "name": "Denied",
    "parameters": {"outcome": "denied", "severity": ["ERROR", "WARNING"], "sort": "-occurred_at"},
}
PATH = "/api/v1/searches"


async def test_private_searches_are_seen_by_their_owner_and_admins_and_shared_ones_by_all_readers(world: World) -> None:
    async with (
        world.client(Role.AUDITOR) as auditor,
        world.client(Role.ADMIN) as admin,
        world.client(Role.AUDITOR, "other") as other,
    ):
        made = await admin.post(PATH, json=SEARCH)
        assert (made.status_code, made.json()["parameters"], made.json()["shared"]) == (201, SEARCH["parameters"], False)
        number = made.json()["id"]
        mine = (await auditor.post(PATH, json={**SEARCH, "name": "Mine"})).json()["id"]
        assert [each["id"] for each in (await auditor.get(PATH)).json()["items"]] == [mine]
        assert [each["id"] for each in (await admin.get(PATH)).json()["items"]] == [number, mine]
        assert code_of(await auditor.get(f"{PATH}/{number}")) == Code.NOT_FOUND.value

        shared = await admin.put(f"{PATH}/{number}", json={**SEARCH, "shared": True})
        assert (shared.status_code, shared.json()["owner"]) == (200, made.json()["owner"])
        assert (await auditor.get(f"{PATH}/{number}")).json()["shared"] is True
        for response in (
            await auditor.put(f"{PATH}/{number}", json=SEARCH),
            await auditor.delete(f"{PATH}/{number}"),
            await other.get(f"{PATH}/{number}"),
            await other.delete(f"{PATH}/{number}"),
        ):
            assert code_of(response) == Code.NOT_FOUND.value
        assert (await other.get(PATH)).json() == {"items": []}
        assert (await admin.delete(f"{PATH}/{mine}")).status_code == 204
        assert code_of(await auditor.get(f"{PATH}/{mine}")) == Code.NOT_FOUND.value
    assert {"searches.read", "searches.save", "searches.delete"} <= set(await access_actions(world))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": ""}, Code.INVALID_PARAMETER),
        ({"name": "x" * 201}, Code.INVALID_PARAMETER),
        ({"parameters": {"colour": "red"}}, Code.UNKNOWN_PARAMETER),
        ({"parameters": {"limit": "5"}}, Code.UNKNOWN_PARAMETER),
        ({"parameters": {"from": "yesterday"}}, Code.INVALID_PARAMETER),
        ({"parameters": {"sort": "seq"}}, Code.INVALID_PARAMETER),
        ({"parameters": {"sort": ["occurred_at", "received_at"]}}, Code.INVALID_PARAMETER),
        ({"parameters": {"actor": ["a", "b"]}}, Code.INVALID_PARAMETER),
        ({"parameters": {"q": 5}}, Code.INVALID_PARAMETER),
        ({"parameters": {"q": "(a"}}, Code.INVALID_QUERY),
        ({"parameters": {"severity": ["ERROR"] * 101}}, Code.INVALID_PARAMETER),
        ({"owner": "alice"}, Code.INVALID_PARAMETER),
    ],
)
async def test_search_that_a_list_would_refuse_is_not_saved(world: World, change: dict[str, Any], code: Code) -> None:
    async with world.client(Role.AUDITOR) as client:
        assert code_of(await client.post(PATH, json={**SEARCH, **change})) == code.value
        assert (await client.get(PATH)).json() == {"items": []}


async def test_search_with_a_repeated_name_is_refused(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        for body in ('{"name": "a", "name": "b", "parameters": {}}', '{"name": "a", "parameters": {"q": "x", "q": "y"}}'):
            refused = await client.post("/api/v1/searches", content=body, headers={"Content-Type": "application/json"})
            assert (refused.status_code, code_of(refused)) == (422, "invalid-json")
            assert "occurs twice" in refused.json()["detail"]


async def test_searches_of_a_tenant_are_bounded(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        for _ in range(SEARCHES_MAX):
            assert (await client.post(PATH, json=SEARCH)).status_code == 201
        assert code_of(await client.post(PATH, json=SEARCH)) == Code.CONFLICT.value


@pytest.mark.parametrize("role", [Role.WRITER, Role.PLATFORM])
async def test_searches_are_refused_to_those_who_may_not_read_records(world: World, role: Role) -> None:
    async with world.client(role) as client:
        for response in (await client.get(PATH), await client.post(PATH, json=SEARCH), await client.delete(f"{PATH}/x")):
            assert code_of(response) == Code.FORBIDDEN.value
