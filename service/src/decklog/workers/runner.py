"""The worker: receives wake-ups, advances logs, sweeps for forgotten ones, creates partitions and archives tenants.

Duties whose backend is not configured are left out: without a queue the sweep alone finds work, and without an archive nothing is
archived. Each log is followed by one consumer of searches: into the search index, or, without one, into the filters of Postgres.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Any

import structlog

from decklog.domain.archive.manifest import ARCHIVER
from decklog.domain.consumers import FILTERER, INDEXER, REINDEXER, Cursors, indexer_of
from decklog.domain.store import FollowedStore, SearchIndex, WakeQueue
from decklog.probes import serving
from decklog.services.following.effects import BatchTraces, Effect
from decklog.services.following.follow import Follower
from decklog.services.identity.registry import RegistryCache
from decklog.services.search.forgetting import Forgetting
from decklog.services.search.tending import Tending, as_building
from decklog.settings import Settings
from decklog.workers.consumers.filterer import Filterer, TermFilters
from decklog.workers.consumers.indexer import Indexer
from decklog.workers.dispatch import Dispatcher
from decklog.workers.duties.archiver import Archiving, keep_archiving
from decklog.workers.duties.forget import keep_forgetting
from decklog.workers.duties.gaps import GapCheck, keep_comparing
from decklog.workers.duties.indices import keep_indices
from decklog.workers.duties.keeper import Keeper, keep_partitions
from decklog.workers.duties.sweep import keep_sweeping
from decklog.workers.poll import Pollers

_log = structlog.get_logger("decklog.worker")


async def run(
    stop: asyncio.Event,
    settings: Settings,
    *,
    registry: RegistryCache,
    store: FollowedStore,
    cursors: Cursors,
    keeper: Keeper,
    index: SearchIndex | None = None,
    tending: Tending | None = None,
    filters: TermFilters | None = None,
    queue: WakeQueue | None = None,
    archiver: Archiving | None = None,
    traces: BatchTraces | None = None,
) -> None:
    """Work until `stop` is set, then end the work in hand: cursors moved, leases released, within a few seconds.

    Duties whose backend is None are left out. A backend that is down is waited for.
    Raises what a duty raises that must not happen, because a worker without one of its duties must not go on.
    """
    effects: dict[str, Effect] = {}
    if index is not None:
        effects[INDEXER] = effects[REINDEXER] = Indexer(index)
    if filters is not None:
        effects[FILTERER] = Filterer(filters)
    dispatchers = [
        _dispatcher(consumer, effect, registry, store, cursors, slots=settings.worker.concurrency, traces=traces)
        for consumer, effect in effects.items()
    ]
    duties: list[Coroutine[Any, Any, None]] = [keep_partitions(keeper)]
    duties += [keep_sweeping(cursors, dispatcher, seconds=settings.worker.sweep_seconds) for dispatcher in dispatchers]
    if index is not None:
        duties.append(keep_forgetting(Forgetting(store, cursors), registry))
    if index is not None and tending is not None:
        duties.append(keep_indices(tending))
        check = GapCheck(
            tending.generations, tending.registry, store=store, cursors=cursors, index=index, indexer=effects[INDEXER]
        )
        duties.append(keep_comparing(check))
    if queue is not None and dispatchers:
        duties.append(Pollers(queue, registry, dispatchers, pollers=settings.worker.pollers).run())
    if archiver is not None:
        duties.append(keep_archiving(archiver))
    consumers = [*effects, *([ARCHIVER] if archiver is not None else [])]
    port = settings.worker.metrics_port
    async with serving(settings.api.host, port, checks=dict) if port else nullcontext():
        _log.info("worker started", consumers=consumers, queue=queue is not None)
        try:
            await _until(stop, duties)
        finally:
            await asyncio.gather(*(dispatcher.stop() for dispatcher in dispatchers))
    _log.info("worker stopped")


def _dispatcher(
    consumer: str,
    effect: Effect,
    registry: RegistryCache,
    store: FollowedStore,
    cursors: Cursors,
    *,
    slots: int,
    traces: BatchTraces | None,
) -> Dispatcher:
    of_index = consumer in (INDEXER, REINDEXER)
    follower = Follower(consumer, store, cursors, effect, cursor_of=indexer_of if of_index else None, slots=slots, traces=traces)
    if consumer == REINDEXER:
        return Dispatcher(follower, registry, of=as_building)
    return Dispatcher(follower, registry)


async def _until(stop: asyncio.Event, duties: list[Coroutine[Any, Any, None]]) -> None:
    """Run the duties until `stop` is set. No duty returns by itself: one that ends stops the worker."""
    tasks = [asyncio.create_task(duty) for duty in duties]
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
