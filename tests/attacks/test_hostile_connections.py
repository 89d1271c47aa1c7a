"""Hostile connections to `decklog dev` with its default settings: others are served, and nothing stays behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.attacks.attacker import Job, Outcome
from tests.attacks.hostile import KINDS
from tests.attacks.wire import unhandled
from tests.bench.processes import Server, apart
from tests.support.dev import Dev

NEIGHBOUR = "127.0.0.3"
"""Address of the neighbour, so that a limit of the attacker's address does not reach it."""
PAUSE = 0.05
ANSWER_SECONDS_MAX = 15.0
RETURN_SECONDS_MAX = 60.0
DESCRIPTORS_MORE_MAX = 24
"""Descriptors that may remain: connections of the neighbour and of the pools to PostgreSQL, which grow on demand."""
MIB_MORE_MAX = 64.0
"""Resident memory that may remain: what the allocator keeps for reuse."""
SMALL = 50, 2.0
FULL = 1_000, 60.0
NOT_YET_FULL = {"unread_pipelines"}
"""Kinds that are tried at the small size only. On two cores that do other work too, 1,000 connections with 16 lists each keep the
check of the database in `/readyz` waiting for longer than its time."""
SIZES = [
    *[pytest.param(kind, *SMALL, id=f"{kind}-50") for kind in KINDS],
    *[
        pytest.param(kind, *FULL, marks=[pytest.mark.endurance, pytest.mark.timeout(600)], id=f"{kind}-1000")
        for kind in sorted(set(KINDS) - NOT_YET_FULL)
    ],
]
RECORD = {"action": "document.read", "actor": {"id": "alice"}}


@dataclass(frozen=True)
class Process:
    """Memory and descriptors of a process."""

    descriptors: int
    mib: float

    def near(self, before: Process) -> bool:
        return self.descriptors <= before.descriptors + DESCRIPTORS_MORE_MAX and self.mib <= before.mib + MIB_MORE_MAX


def used(server: Server) -> Process:
    return Process(len(list(Path(f"/proc/{server.pid}/fd").iterdir())), server.resident_mib())


@dataclass(frozen=True)
class World:
    dev: Dev
    server: Server

    def key(self, tenant: str, role: str) -> str:
        found: str = self.dev.content["tenants"][tenant][role]
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One `decklog dev` whose attacking tenant has records of 9 KB."""
    dev = Dev(tmp_path_factory.mktemp("hostile"))
    dev.start()
    assert dev._process is not None
    with dev.client("acme", "writer") as client:
        for _ in range(4):
            records = [{**RECORD, "metadata": {"text": "x" * 9_000}} for _ in range(50)]
            assert client.post("/api/v1/logs/bulk", json=records).json()["stored"] == 50
    yield World(dev, Server(dev._process.pid, int(dev.content["url"].rpartition(":")[2])))
    dev.close()


async def served(world: World, stop: asyncio.Event) -> int:
    """Use the neighbour's tenant and the probes until `stop`; each request must succeed. Return their number."""
    headers = {name: {"Authorization": f"Bearer {world.key('globex', name)}"} for name in ("writer", "auditor")}
    requests: tuple[tuple[str, str, dict[str, Any], int], ...] = (
        ("GET", "/healthz", {}, 200),
        ("GET", "/readyz", {}, 200),
        ("POST", "/api/v1/logs", {"json": RECORD, "headers": headers["writer"]}, 201),
        ("GET", "/api/v1/logs?limit=5", {"headers": headers["auditor"]}, 200),
    )
    answered = 0
    while not stop.is_set():
        # A new connection each time: one that is open already would hide that no more are accepted.
        transport = httpx.AsyncHTTPTransport(local_address=NEIGHBOUR)
        url = world.dev.content["url"]
        async with httpx.AsyncClient(transport=transport, base_url=url, timeout=ANSWER_SECONDS_MAX) as client:
            for method, path, arguments, status in requests:
                answer = await client.request(method, path, **arguments)
                assert answer.status_code == status, (path, answer.status_code, answer.text[:500])
                answered += 1
        await asyncio.sleep(PAUSE)
    return answered


async def attacked(world: World, kind: str, connections: int, seconds: float) -> tuple[Outcome, int]:
    """Return what the attacker was answered, and how many requests of the neighbour were served meanwhile."""
    job = Job(
        kind, world.server.port, world.key("acme", "writer"), world.key("acme", "auditor"), seconds, connections=connections
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(served(world, stop))
    attacking = asyncio.create_task(apart("tests.attacks.hostile", job, Outcome))
    await asyncio.wait({serving, attacking}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    outcome = await attacking
    return outcome, await serving


@pytest.mark.parametrize(("kind", "connections", "seconds"), SIZES)
async def test_service_serves_others_and_returns_what_hostile_connections_took(
    world: World, kind: str, connections: int, seconds: float
) -> None:
    await attacked(world, kind, 5, 0.5)  # opens what a process opens once
    before = used(world.server)
    outcome, answered = await attacked(world, kind, connections, seconds)
    assert answered >= 4
    until = time.monotonic() + RETURN_SECONDS_MAX
    while not (after := used(world.server)).near(before) and time.monotonic() < until:
        await asyncio.sleep(0.1)
    print(
        f"{kind}: {before} before, {after} afterwards; {answered} served; attacker opened {outcome.opened}, was answered {outcome.answers}"
    )
    assert outcome.opened >= connections
    assert outcome.untyped == {}
    assert after.near(before), (before, after)
    assert unhandled(world.dev.log.read_text()) == []
