"""Search over an index that has fallen behind: every record is found, and the page says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from decklog.domain.consumers import INDEXER
from decklog.domain.identity.access import Role
from tests.support.api_world import RECORD, World, in_thread, running_world
from tests.support.board import Watch, axe, shoot
from tests.support.memory_index import MemoryIndex
from tests.support.memory_store import MemoryCursors, MemoryStore, index_all


@asynccontextmanager
async def behind() -> AsyncIterator[World]:
    """Run an API with three records, of which the index has one."""
    index, made = MemoryIndex(), list[MemoryCursors]()

    def cursors(store: MemoryStore) -> MemoryCursors:
        made.append(MemoryCursors(store))
        return made[0]

    async with running_world(index=index, cursors=cursors) as world, world.client(Role.ADMIN) as client:
        for number in range(3):
            assert (await client.post("/api/v1/logs", json=RECORD)).status_code == 201
            if number == 0:
                await index_all(world.store, world.tenant("acme"), index, made[0], INDEXER)
        yield world


@pytest.fixture
def world(built: Path) -> Iterator[World]:
    with in_thread(behind) as world:
        yield world


@pytest.fixture
def origin(world: World) -> str:
    return world.url


def test_index_that_is_behind_hides_no_record_and_is_named(guest: Page, watch: Watch, world: World) -> None:
    watch.allow(r"status of 401.*/api/v1/session")
    guest.goto("/board/search?q=action:login")
    guest.get_by_label("API key or token").fill(world.keys["acme", Role.ADMIN])
    guest.keyboard.press("Enter")
    expect(guest.get_by_text("Index 2 behind, nothing missing")).to_be_visible()
    expect(guest.get_by_text("3 records")).to_be_visible()
    axe(guest)
    shoot(guest, "index-behind")
