"""The registry with many tenants: a change costs what changed, in every process, and a guess costs no key its place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from decklog.assembly.backends import open_database, started
from decklog.domain.errors import Code, DecklogError
from decklog.services.identity.identity import Identity
from decklog.services.identity.issuers import Issuers
from decklog.services.identity.keys import new_key
from decklog.services.identity.registry import LOOKUPS, ROWS, RegistryCache
from decklog.settings import Database as DatabaseSettings
from decklog.settings import Settings
from decklog.timescale.statements import statement
from tests.support.control import Control, control
from tests.support.many_tenants import add_tenants, rotate

__all__ = ["control"]

TENANTS = 3_000


async def no_network(url: str) -> bytes:
    raise OSError(url)


@asynccontextmanager
async def processes(control: Control, count: int) -> AsyncIterator[list[tuple[RegistryCache, Identity]]]:
    """Views of the registry as so many processes have them."""
    settings = Settings(database=DatabaseSettings(dsn=control.database.service_dsn))
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            cache = (await stack.enter_async_context(open_database(settings))).cache
            await stack.enter_async_context(started(cache))
            found.append((cache, Identity(cache, Issuers([], fetch=no_network))))
        yield found


def rows(by: str) -> float:
    return float(ROWS.labels(by)._value.get())


async def refused(identity: Identity, token: str) -> bool:
    try:
        await identity.authenticate(token)
    except DecklogError as error:
        if error.code is not Code.UNAUTHENTICATED:
            raise
        return True
    return False


async def test_rotation_among_many_tenants_reads_the_changed_rows_and_is_effective_in_every_process(control: Control) -> None:
    owner = await control.database.owner()
    await add_tenants(owner, 1, TENANTS)
    async with processes(control, 3) as known:
        token = await rotate(owner, "many-7", None)
        others = [await rotate(owner, f"many-{number}", None) for number in range(100, 120)]
        for _, identity in known:
            for each in (token, *others):
                assert not await refused(identity, each)
        for cache, _ in known:
            await cache.refresh()
        polled, looked_up = rows("poll"), rows("lookup")
        old, token = token, await rotate(owner, "many-7", token)
        async with asyncio.timeout(30):
            for _, identity in known:
                assert not await refused(identity, token)
                while not await refused(identity, old):
                    await asyncio.sleep(0.005)
                assert not await refused(identity, token)
        for _, identity in known:
            for each in others:
                assert not await refused(identity, each)
        # In each process: the new and the old key are listed as changed. The new one is read with its tenant when it is used, and
        # perhaps once more with the change.
        assert 2 * len(known) <= rows("poll") - polled <= 4 * len(known)
        assert rows("lookup") - looked_up <= 2 * len(known)


async def test_guessed_keys_among_many_tenants_cause_few_queries_and_push_out_no_key(control: Control) -> None:
    owner = await control.database.owner()
    await add_tenants(owner, 1, 50)
    async with processes(control, 1) as [(cache, identity)]:
        token = await rotate(owner, "many-7", None)
        assert not await refused(identity, token)
        await cache.refresh()
        before = LOOKUPS._value.get()
        guesses = [new_key()[1] for _ in range(2_000)]
        assert all(await asyncio.gather(*(refused(identity, guess) for guess in guesses)))
        assert LOOKUPS._value.get() - before <= 10
        before = LOOKUPS._value.get()
        assert await refused(identity, guesses[-1])
        assert identity.recognise(token) is not None
        assert cache.cached_key(token.split("_")[1]) is not None
        assert LOOKUPS._value.get() == before


def scans(plan: dict[str, Any]) -> set[tuple[str, str]]:
    found = {(plan["Node Type"], plan["Relation Name"])} if "Relation Name" in plan else set()
    return found.union(*(scans(each) for each in plan.get("Plans", ())))


async def test_look_ups_and_polls_use_indexes_among_many_tenants(control: Control) -> None:
    await add_tenants(await control.database.owner(), 1, TENANTS)
    connection = await asyncpg.connect(control.database.service_dsn, server_settings={"plan_cache_mode": "force_generic_plan"})
    try:
        await connection.execute(
            f"PREPARE found (bigint[], text[], text[], int) AS {statement('registry.find')};"
            f"PREPARE changed (bigint, int) AS {statement('registry.changes')}"
        )
        plans = [
            await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {call}")
            for call in ("found ('{7}', '{many-8}', '{abc}', 2)", "changed (1, 10000)")
        ]
    finally:
        await connection.close()
    read = set[tuple[str, str]]().union(*(scans(json.loads(plan)[0]["Plan"]) for plan in plans))
    assert {table for _, table in read} == {
        "tenants",
        "api_keys",
        "made_keys",
        "registry_version",
        "registry_changes",
        "search_generations",
    }
    # The generations are those of classes and Dedicated tenants: few, however many tenants there are.
    assert not {scan for scan in read if scan[0] == "Seq Scan" and scan[1] not in ("registry_version", "search_generations")}
