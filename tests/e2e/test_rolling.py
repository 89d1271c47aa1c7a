"""API processes are restarted one after the other under traffic, and no request is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.backends import PostgresServer
from tests.support.stack import installed
from tests.support.stores import drop_database, new_database
from tests.support.traffic import Service, traffic

pytestmark = pytest.mark.slow

SPEC: dict[str, Any] = {"retention": {"days": 30}, "quotas": {"eventsPerSecond": 100_000, "burst": 100_000}}


async def test_rolling_restart_answers_every_request(timescale_server: PostgresServer, tmp_path: Path) -> None:
    database = await new_database(timescale_server)
    try:
        async with installed(tmp_path, service_dsn=database.service_dsn, owner_dsn=database.owner_dsn) as stack:
            await stack.provision(acme=SPEC)
            service = Service()
            programs = [await stack.api() for _ in range(2)]
            for program in programs:
                await service.add(program)
            async with traffic(stack, service, "acme", writers=8) as clients:
                await clients.more(100)
                for program in programs:
                    # Nobody takes it out before: clients have to hear of it from itself.
                    assert await asyncio.to_thread(program.stop) == 0
                    await clients.more(50)
                    assert program not in service.ready
                    program.start()
                    await program.ready()
                    await service.add(program)
                    await clients.more(50)
                await clients.finish()
                assert clients.closings[1012] >= 1  # "the server restarts": the follower came back to the other one
    finally:
        await drop_database(database)
