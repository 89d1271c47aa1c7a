"""Looks again and again whether the index is to forget something: for tenants with `retention.searchDays`."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import structlog
from prometheus_client import Counter

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.tenant import State
from decklog.services.identity.registry import RegistryCache
from decklog.services.search.forgetting import Forgetting

EVERY = timedelta(minutes=10)
"""Between two looks; how often a log has a pass is decided by its lease."""

PASSES = Counter(
    "decklog_search_forgetting_passes_total", "Passes over a log that removed from its index what is too old for it."
)
FAILURES = Counter("decklog_search_forgetting_failures_total", "Passes that failed and are tried again.")

_log = structlog.get_logger("decklog.worker")


async def forget_all(forgetting: Forgetting, registry: RegistryCache) -> None:
    """One look at all tenants, one log after the other. Raises `registry-stale`."""
    for tenant in registry.snapshot.tenants.values():
        if not tenant.limits.search_days or tenant.state is State.DELETED:
            continue
        for log in LogName:
            try:
                PASSES.inc(await forgetting.forget(tenant, log))
            except DecklogError as error:
                FAILURES.inc()
                _log.warning("the index did not forget", tenant=tenant.name, log=log.text, reason=str(error))


async def keep_forgetting(forgetting: Forgetting, registry: RegistryCache) -> None:
    """At once and then about every ten minutes; until cancelled."""
    while True:
        try:
            await forget_all(forgetting, registry)
        except DecklogError as error:
            _log.warning("the index forgets nothing", reason=str(error))
        await asyncio.sleep(EVERY.total_seconds() * random.uniform(0.9, 1.1))  # noqa: S311
