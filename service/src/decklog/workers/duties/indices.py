"""Tends the search indices: makes ranges ahead, drops old ones, and lets searches read a generation that was built."""

from __future__ import annotations

from datetime import timedelta
from typing import NoReturn

import structlog
from prometheus_client import Counter

from decklog.services.search.tending import Tending
from decklog.workers.periodic import Pace, Turn, repeat

EVERY = timedelta(seconds=15)
"""Pause between two rounds, before jitter: one statement, where nothing is due."""
RETRY_MAX = timedelta(minutes=5)

FAILURES = Counter("decklog_search_tending_failures_total", "Failed steps in the life of search indices, which are tried again.")

_log = structlog.get_logger("decklog.worker")


async def keep_indices(tending: Tending) -> NoReturn:
    """Tend all indices at once and then again and again, until cancelled."""

    async def turn() -> Turn:
        failed = await tending.tend()
        for index, error in failed.items():
            FAILURES.inc()
            _log.warning("a search index could not be tended", index=index, reason=str(error))
        return Turn.FAILED if failed else Turn.DONE

    pace = Pace(EVERY, EVERY, RETRY_MAX)
    await repeat(turn, pace, failures=FAILURES, failed="search indices could not be tended")
