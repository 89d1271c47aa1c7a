"""A running API for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.api_world import World, running_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as made:
        yield made
