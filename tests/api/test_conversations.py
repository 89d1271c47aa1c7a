"""Conversations over HTTP: only the credential that began one reads and deletes it."""

from __future__ import annotations

import pytest

from decklog.domain.ask.conversation import owner_of
from decklog.domain.errors import Code
from decklog.domain.identity.access import Principal, Role
from tests.conformance.test_conversations import number, turn
from tests.support.api_world import World, access_actions, code_of

PATH = "/api/v1/conversations"


def key_of(world: World, role: Role, tenant: str = "acme") -> Principal:
    """Return the principal of the key of this role."""
    of = world.tenant(tenant)
    (subject,) = [key.id for key in world.registry.keys.values() if key.tenant_id == of.id and key.role is role]
    return Principal("api_key", subject, role, of)


async def test_conversation_is_seen_and_deleted_by_the_credential_that_began_it_and_not_by_an_admin(world: World) -> None:
    mine = number(1)
    auditor = key_of(world, Role.AUDITOR)
    await world.conversations.begin(world.tenant("acme"), mine, owner_of(auditor), turn(), days=30)
    async with (
        world.client(Role.AUDITOR) as owner,
        world.client(Role.ADMIN) as admin,
        world.client(Role.AUDITOR, "other") as other,
    ):
        (listed,) = (await owner.get(PATH)).json()["items"]
        assert (listed["id"], listed["title"], listed["length"]) == (mine, "who failed?", 1)
        found = (await owner.get(f"{PATH}/{mine}")).json()
        assert found["turns"] == [
            {
                "asked_at": "2026-01-02T03:04:05.678901Z",
                "question": "who failed?",
                "query": "outcome:failure",
                "expert": "find",
                "log": "events",
                "zone": "UTC",
                "not_understood": ["who"],
                "answer": "2 records.",
                "engine": "grammar",
                "records": [7, 3],
            }
        ]
        for client in (admin, other):
            assert (await client.get(PATH)).json() == {"items": []}
            assert code_of(await client.get(f"{PATH}/{mine}")) == Code.NOT_FOUND.value
            assert code_of(await client.delete(f"{PATH}/{mine}")) == Code.NOT_FOUND.value
        assert code_of(await owner.get(f"{PATH}/no-number")) == Code.NOT_FOUND.value
        assert code_of(await owner.delete(f"{PATH}/no-number")) == Code.NOT_FOUND.value
        assert (await owner.delete(f"{PATH}/{mine}")).status_code == 204
        assert code_of(await owner.get(f"{PATH}/{mine}")) == Code.NOT_FOUND.value
    assert {"conversations.read", "conversations.delete"} <= set(await access_actions(world))


@pytest.mark.parametrize("role", [Role.WRITER, Role.PLATFORM])
async def test_conversations_are_refused_to_those_who_may_not_read_records(world: World, role: Role) -> None:
    async with world.client(role) as client:
        for response in (await client.get(PATH), await client.get(f"{PATH}/x"), await client.delete(f"{PATH}/x")):
            assert code_of(response) == Code.FORBIDDEN.value
