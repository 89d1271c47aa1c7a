"""Rotation of one key among many tenants: the time until every process refuses the old one, and what it costs a process.

Rows are inserted by SQL, so no tenant but the platform's has a log.
"""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import httpx

from decklog.assembly.backends import open_database, started
from decklog.services.identity.entries import KEYS_MAX, TENANTS_MAX, Entries
from decklog.services.identity.registry import ROWS, RegistryCache
from tests.bench.context import Context
from tests.bench.figures import Figure, median, percentile, ratio_at_most, value_at_most
from tests.bench.processes import HOST, Server
from tests.bench.stand import Stand, stand
from tests.support.many_tenants import add_tenants, rotate

NAMES = ("registry",)
TENANTS, TENANTS_SMALL, FEW = 100_000, 10_000, 100
_PROCESSES = 3
_ROTATIONS, _CHANGES, _POLLS = 20, 100, 200
_EFFECTIVE_SECONDS_MAX = 2.0
_GROWTH_MAX = 2.0
"""Processor time of a change or a poll among all tenants, as a multiple of the same among `FEW`."""
_START_SECONDS_MAX = 1.0
_MEMORY_MIB_MAX = 32.0


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the seconds until a rotation is effective, the processor time of changes and polls, the start, and the memory."""
    tenants = TENANTS_SMALL if context.small else TENANTS
    async with stand(context.servers.postgres) as place:
        owner = await asyncpg.connect(place.owner_dsn)
        try:
            await add_tenants(owner, 1, FEW)
            few = await _cost(place, owner)
            context.say(f"registry: {tenants:,} tenants")
            await add_tenants(owner, FEW + 1, tenants)
            many = await _cost(place, owner)
            for name, value, baseline in zip(("registry_change", "registry_poll"), many, few, strict=True):
                note = f"processor time of one process; {tenants:,} tenants against {FEW}"
                yield Figure(name, value, "ms", baseline, ratio_at_most(_GROWTH_MAX), note)
            yield await _rotations(context, place, owner, tenants)
            yield await _start(place, owner)
            yield await _memory(place, owner)
        finally:
            await owner.close()


async def _cost(place: Stand, owner: asyncpg.Connection) -> tuple[float, float]:
    """Return the milliseconds of processor time of a rotation of a key in use, and of a poll without a change."""
    async with open_database(place.settings) as database:
        cache = RegistryCache(database.registry, interval=3_600)  # polled by this benchmark alone
        async with started(cache):
            token: str | None = None
            changes = 0.0
            for _ in range(_CHANGES):
                token = await rotate(owner, "many-7", token)
                began = time.process_time()
                await cache._loads(None)
                await cache.key(token.split("_")[1])
                changes += time.process_time() - began
            began = time.process_time()
            for _ in range(_POLLS):
                await cache._loads(None)
            polls = time.process_time() - began
    return changes / _CHANGES * 1_000, polls / _POLLS * 1_000


async def _rotations(context: Context, place: Stand, owner: asyncpg.Connection, tenants: int) -> Figure:
    """Return the longest time from the commit of a rotation until every API process refuses the old key and accepts the new one."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(place.api()) for _ in range(_PROCESSES)]
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{HOST}:{server.port}", timeout=10))
            for server in servers
        ]
        token = await rotate(owner, "many-9", None)
        await asyncio.gather(*(_until(client, token, 200) for client in clients))
        used = sum(map(Server.processor_seconds, servers))
        took: list[float] = []
        for _ in range(_ROTATIONS // 4 if context.small else _ROTATIONS):
            old, token = token, await rotate(owner, "many-9", token)
            began = time.perf_counter()
            await asyncio.gather(*(_until(client, old, 401) for client in clients))
            took.append(time.perf_counter() - began)
            await asyncio.gather(*(_until(client, token, 200) for client in clients))
        used = sum(map(Server.processor_seconds, servers)) - used
    note = (
        f"longest of {len(took)}; p50 {median(took) * 1_000:.0f} ms, p90 {percentile(took, 0.9) * 1_000:.0f} ms; "
        f"{_PROCESSES} API processes, {tenants:,} tenants; {used / len(took) / _PROCESSES * 1_000:.0f} ms of a process each, requests included"
    )
    return Figure("registry_rotation", max(took), "s", None, value_at_most(_EFFECTIVE_SECONDS_MAX), note)


async def _until(client: httpx.AsyncClient, token: str, status: int) -> None:
    async with asyncio.timeout(30):
        while True:
            answer = await client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token}"})
            if answer.status_code == status:
                return
            if answer.status_code not in (200, 401):
                raise RuntimeError(f"a rotation must not cost service: {answer.status_code} {answer.text}")
            await asyncio.sleep(0.005)


async def _start(place: Stand, owner: asyncpg.Connection) -> Figure:
    token = await rotate(owner, "many-11", None)
    began, read = time.perf_counter(), ROWS.labels("lookup")._value.get()
    async with open_database(place.settings) as database, started(database.cache):
        if await database.cache.key(token.split("_")[1]) is None:
            raise RuntimeError("the key was not found")
        took = time.perf_counter() - began
    note = f"until the first key was found; {ROWS.labels('lookup')._value.get() - read:.0f} rows looked up"
    return Figure("registry_start", took, "s", None, value_at_most(_START_SECONDS_MAX), note)


async def _memory(place: Stand, owner: asyncpg.Connection) -> Figure:
    """Return the memory of as many keys and tenants as a process remembers, as Python allocates it."""
    ids = [row["id"] for row in await owner.fetch("SELECT id FROM decklog.api_keys LIMIT $1", KEYS_MAX + 1_000)]
    entries = Entries()
    async with open_database(place.settings) as database:
        cache = RegistryCache(database.registry, max_age=60, entries=entries)  # tracing makes Python slow
        async with started(cache):
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for first in range(0, len(ids), 500):
                await asyncio.gather(*(cache.key(each) for each in ids[first : first + 500]))
            used = (tracemalloc.get_traced_memory()[0] - before) / 2**20
            tracemalloc.stop()
    tenants, keys, _ = entries.sizes
    note = f"{keys:,} keys and {tenants:,} tenants; the bounds are {KEYS_MAX:,} and {TENANTS_MAX:,}"
    return Figure("registry_memory", used, "MiB", None, value_at_most(_MEMORY_MIB_MAX), note)
