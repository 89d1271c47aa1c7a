"""A server of the API for the client, which runs on the event loop of a test while the client's threads use it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.api_world import World, running_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as made:
        yield made
