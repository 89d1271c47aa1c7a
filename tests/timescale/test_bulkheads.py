"""Readings of tenants occupy their own connections: the registry, readiness and announcements never wait for them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from decklog.assembly.api import OneCheck
from decklog.assembly.backends import open_database
from decklog.domain.log import LogName
from decklog.settings import Database as DatabaseSettings
from decklog.settings import Settings
from decklog.timescale.records.announcements import PostgresAnnouncements
from decklog.timescale.records.keeper import PostgresReadiness
from tests.support.control import Control, control

__all__ = ["control"]


async def test_registry_readiness_and_announcements_answer_while_all_connections_of_readings_are_busy(control: Control) -> None:
    dsn = control.database.service_dsn
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_database(Settings(database=DatabaseSettings(dsn=dsn, pool_max=3))))
        announcing = PostgresAnnouncements(dsn, opened.upkeep)
        hearing = PostgresAnnouncements(dsn, opened.upkeep)
        for announcements in (announcing, hearing):
            await announcements.start()
            stack.push_async_callback(announcements.stop)
        heard: asyncio.Queue[tuple[int, LogName, int]] = asyncio.Queue()
        hearing.subscribe(lambda *announced: heard.put_nowait(announced))
        for _ in range(3):
            await stack.enter_async_context(opened.reads.connection())

        assert (await opened.registry.changes(None)).version > 0
        await PostgresReadiness(opened.upkeep).check()
        while heard.empty():  # the listener connects in the background
            announcing.announce(7, LogName.EVENTS, 42)
            await asyncio.sleep(0.05)
        assert await heard.get() == (7, LogName.EVENTS, 42)


async def test_probes_at_once_share_a_check_of_the_backend() -> None:
    class Counting:
        checked = 0

        async def check(self) -> None:
            self.checked += 1
            await asyncio.sleep(0)

    backend = Counting()
    readiness = OneCheck(backend)
    await asyncio.gather(*(readiness.check() for _ in range(100)))
    assert backend.checked == 1
