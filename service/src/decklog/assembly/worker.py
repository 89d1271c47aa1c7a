"""Open what a worker needs, and run it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from decklog.assembly import backends
from decklog.services.following.effects import BatchTraces
from decklog.services.search.forgetting import Forgetting
from decklog.services.search.tending import Tending
from decklog.settings import Settings
from decklog.timescale.connection import WORKER_ROLE
from decklog.timescale.control.generations import PostgresGenerations
from decklog.timescale.records.cursors import PostgresCursors
from decklog.timescale.records.keeper import PostgresKeeper
from decklog.timescale.records.term_filters import PostgresTermFilters
from decklog.workers import runner


async def run_worker(settings: Settings, stop: asyncio.Event, *, traces: BatchTraces | None = None) -> None:
    """Work until `stop` is set. A DSN is enough; search, queue and archive are opened where they are configured.

    Raises:
        DecklogError: `misconfigured`, or `storage-unavailable` where the database cannot be reached at the start.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(backends.open_database(settings, WORKER_ROLE))
        cursors = PostgresCursors(database.upkeep)
        store = await stack.enter_async_context(backends.open_store(settings, database.reads))
        search = await stack.enter_async_context(backends.open_index(settings))
        queue = await stack.enter_async_context(backends.open_queue(settings))
        archiver = await stack.enter_async_context(backends.open_archiver(settings.archive, database.reads, cursors))
        await stack.enter_async_context(backends.started(database.cache))
        tending = None
        if search is not None:
            forgetting = Forgetting(store, cursors)
            generations = PostgresGenerations(database.upkeep)
            tending = Tending(generations, search.ranges, database.registry, forgetting)
        await runner.run(
            stop,
            settings,
            registry=database.cache,
            store=store,
            cursors=cursors,
            keeper=PostgresKeeper(database.upkeep),
            index=search.search if search is not None else None,
            tending=tending,
            filters=PostgresTermFilters(database.upkeep) if search is None else None,
            queue=queue,
            archiver=archiver,
            traces=traces,
        )
