"""One search: its tenant, log and query, and the time it may take."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from decklog.domain.log import LogName
from decklog.domain.search.coverage import too_slow
from decklog.domain.search.query import Query
from decklog.domain.tenant import Tenant


class Deadline:
    """The end of the time that a search may take, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._end = asyncio.get_running_loop().time() + seconds

    def left(self) -> float:
        """Return the seconds left. Raises `search-unavailable` if there are none."""
        left = self._end - asyncio.get_running_loop().time()
        if left <= 0:
            raise too_slow()
        return left


class Question(NamedTuple):
    """What is searched, where, and until when."""

    tenant: Tenant
    log: LogName
    query: Query
    deadline: Deadline

    @property
    def unbounded(self) -> bool:
        """Whether Postgres would have to match every record of the log: full text or `metadata` without a lower bound of time."""
        return self.query.needs_content and self.query.since is None
