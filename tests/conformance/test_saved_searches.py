"""Conformance of `SavedSearches`: in memory and on PostgreSQL, only an owner changes a search, and tenants share nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from decklog.domain.search.saved import SavedSearch, SavedSearches
from decklog.domain.tenant import Isolation, Tenant
from decklog.timescale.records.saved_searches import PostgresSavedSearches
from tests.support.memory import make_tenant
from tests.support.memory_searches import MemorySearches
from tests.support.stores import drop_database, new_database

World = tuple[SavedSearches, Tenant, Tenant]


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        yield MemorySearches(), make_tenant("one"), make_tenant("two")
        return
    database = await new_database(request.getfixturevalue("postgres_server"))
    tenants = [await database.tenant(isolation=Isolation.SHARED) for _ in range(2)]
    yield PostgresSavedSearches(await database.pool()), *tenants
    await drop_database(database)


def search(number: int, owner: str = "alice", **changes: Any) -> SavedSearch:
    given = {"name": f"n{number}", "parameters": {"q": "a b", "severity": ["ERROR", "INFO"]}, "shared": False, **changes}
    return SavedSearch(id=f"{number:016x}", owner=owner, saved_at=datetime.now(UTC), **given)


async def named(saved: SavedSearches, tenant: Tenant) -> list[tuple[str, str, bool, Any]]:
    return [(each.name, each.owner, each.shared, each.parameters) for each in await saved.all(tenant)]


async def test_saved_searches_are_changed_by_their_owner_within_their_tenant_and_bounded(world: World) -> None:
    saved, one, two = world
    parameters = search(0).parameters
    assert await saved.add(one, search(2), most=2) is not None
    assert await saved.add(one, search(1, shared=True), most=2) is not None
    assert await saved.add(one, search(3), most=2) is None
    assert await named(saved, one) == [("n1", "alice", True, parameters), ("n2", "alice", False, parameters)]
    assert await named(saved, two) == []

    changed = search(2, "bob", name="renamed", parameters={}, shared=True)
    assert await saved.replace(one, changed, any_owner=False) is None
    assert await saved.replace(two, changed, any_owner=True) is None
    assert await saved.replace(one, changed, any_owner=True) is not None
    assert (await named(saved, one))[1] == ("renamed", "alice", True, {})

    number = search(2).id
    assert not await saved.delete(one, number, "bob", any_owner=False)
    assert not await saved.delete(two, number, "alice", any_owner=True)
    assert await saved.delete(one, number, "alice", any_owner=False)
    assert not await saved.delete(one, number, "alice", any_owner=True)
    assert await saved.delete(one, search(1).id, "bob", any_owner=True)
    assert await named(saved, one) == []
