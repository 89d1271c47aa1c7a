"""The worker: receive → advance → acknowledge, sweep for what no message told, keep partitions ahead, and archive.

Parts whose backend is not configured are not there: without a search index nothing is followed, without a queue the sweeper
alone finds work, and without an archive nothing is archived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from decklog.domain.archive.manifest import ARCHIVER
from decklog.domain.store import INDEXER
from decklog.services.following.follow import BatchTraces, Follower
from decklog.services.search.forgetting import Forgetting
from decklog.settings import Settings
from decklog.workers.consumers.indexer import Indexer
from decklog.workers.dispatch import Dispatcher
from decklog.workers.duties.archiver import keep_archiving
from decklog.workers.duties.forget import keep_forgetting
from decklog.workers.duties.keeper import keep_partitions
from decklog.workers.duties.sweep import keep_sweeping
from decklog.workers.health import HealthServer
from decklog.workers.poll import Pollers
from decklog.workers.service import WorkerService

_log = structlog.get_logger("decklog.worker")


def _dispatchers(service: WorkerService, settings: Settings, traces: BatchTraces | None) -> list[Dispatcher]:
    """One for each consumer that this installation has."""
    concurrency = settings.worker.concurrency
    effects = {INDEXER: Indexer(service.search_index)} if service.search_index is not None else {}
    return [
        Dispatcher(
            Follower(consumer, service.store, service.cursors, effect, slots=concurrency, traces=traces),
            service.registry,
            concurrency=concurrency,
        )
        for consumer, effect in effects.items()
    ]


async def run(service: WorkerService, settings: Settings, stop: asyncio.Event, *, traces: BatchTraces | None = None) -> None:
    """Work until `stop` is set, then end what is being done: cursors moved, leases released, in a few seconds.

    Raises what a part of the worker raises that must not happen; a backend that is away is waited for.
    """
    dispatchers = _dispatchers(service, settings, traces)
    parts: list[Coroutine[Any, Any, None]] = [keep_partitions(service.keeper)]
    parts += [keep_sweeping(service.cursors, dispatcher, seconds=settings.worker.sweep_seconds) for dispatcher in dispatchers]
    if service.search_index is not None:
        parts.append(keep_forgetting(Forgetting(service.store, service.cursors, service.search_index), service.registry))
    if service.queue is not None and dispatchers:
        pollers = Pollers(
            service.queue,
            service.registry,
            dispatchers,
            pollers=settings.worker.pollers,
        )
        parts.append(pollers.run())
    if service.archiver is not None:
        parts.append(keep_archiving(service.archiver))
    health = HealthServer(settings.api.host, settings.worker.metrics_port) if settings.worker.metrics_port else None
    if health is not None:
        parts.append(health.beat())
    consumers = [dispatcher.consumer for dispatcher in dispatchers] + ([ARCHIVER] if service.archiver is not None else [])
    _log.info("worker started", consumers=consumers, queue=service.queue is not None)
    try:
        await _until(stop, parts)
    finally:
        await asyncio.gather(*(dispatcher.stop() for dispatcher in dispatchers))
        if health is not None:
            await asyncio.to_thread(health.stop)
    _log.info("worker stopped")


async def _until(stop: asyncio.Event, parts: list[Coroutine[Any, Any, None]]) -> None:
    """Run the parts until `stop` is set; none of them ends by itself, so one that does takes the worker down."""
    tasks = [asyncio.create_task(part) for part in parts]
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
