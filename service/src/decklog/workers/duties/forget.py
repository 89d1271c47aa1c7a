"""Moves the floors of logs up, for tenants with `retention.searchDays`: Postgres searches below them."""

from __future__ import annotations

from datetime import timedelta
from typing import NoReturn

import structlog
from prometheus_client import Counter

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.tenant import State
from decklog.services.identity.registry import RegistryCache
from decklog.services.search.forgetting import Forgetting
from decklog.workers.periodic import Pace, Turn, repeat

EVERY = timedelta(minutes=10)
"""Pause between two rounds, before jitter. The lease of a log decides how often that log has a pass."""

PASSES = Counter("decklog_search_forgetting_passes_total", "Passes over a log that moved the floor of its searches in the index.")
FAILURES = Counter("decklog_search_forgetting_failures_total", "Failed passes, which are tried again.")

_log = structlog.get_logger("decklog.worker")


async def keep_forgetting(forgetting: Forgetting, registry: RegistryCache) -> NoReturn:
    """Look at all tenants at once and then about every ten minutes, until cancelled."""

    async def turn() -> Turn:
        await forget_all(forgetting, registry)
        return Turn.DONE

    await repeat(turn, Pace.every(EVERY), failures=FAILURES, failed="floors of searches did not move")


async def forget_all(forgetting: Forgetting, registry: RegistryCache) -> None:
    """Give each log of each tenant a pass where one is due, one log after the other. Raises `registry-stale` and `storage-unavailable`."""
    async for tenant in registry.searching():
        if not tenant.limits.search_days or tenant.state is State.DELETED:
            continue
        for log in LogName:
            try:
                PASSES.inc(await forgetting.forget(tenant, log))
            except DecklogError as error:
                FAILURES.inc()
                _log.warning("the floor of searches did not move", tenant=tenant.name, log=log.text, reason=str(error))
