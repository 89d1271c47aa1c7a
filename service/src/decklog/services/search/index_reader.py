"""The search index as searches use it: which part of a log it covers, and questions that end in time.

A failing index is left alone for a second, so that its silence does not delay every request. Callers then use Postgres.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Span
from decklog.domain.search.stats import BUCKETS_MAX, Bucket, Grouping
from decklog.domain.store import FORGETTER, INDEXER, Cursors, SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.search.question import Question

_AWAY = timedelta(seconds=1)
"""How long a failing index gets no question."""

_log = structlog.get_logger("decklog.search")
_Answer = TypeVar("_Answer")


class IndexAwayError(Exception):
    """The index does not answer now."""


class IndexReader:
    """The index of one cell; without one, `index` and `cursors` are None. `timeout` is in seconds, for one question."""

    def __init__(self, index: SearchIndex | None, cursors: Cursors | None, *, timeout: float) -> None:
        if (index is None) is not (cursors is None):
            raise ValueError("an index needs the cursors of its consumers")
        self._index = index
        self._cursors = cursors
        self._timeout = timeout
        self._away_until = float("-inf")

    @property
    def present(self) -> bool:
        """Whether there is an index at all."""
        return self._index is not None

    async def covered(self, tenant: Tenant, log: LogName, head: Head) -> Span:
        """Return the records that the index finds; all of the log without an index."""
        if self._cursors is None:
            return Span(0, head.next_seq)
        floor, end = await self._cursors.next_seqs((FORGETTER, INDEXER), tenant.id, log)
        end = min(head.next_seq, end)
        return Span(min(floor, end), end)

    async def find(self, question: Question, span: Span, limit: int, *, newest_first: bool) -> list[int]:
        """Return the numbers of at most `limit` matching records, in order. Raises IndexAwayError."""
        tenant, log, query, _ = question
        return await self._ask(lambda index: index.find(tenant, log, span, query=query, limit=limit, newest_first=newest_first))

    async def count(self, question: Question, span: Span, grouping: Grouping) -> list[Bucket]:
        """Return the counts of matching records. Raises IndexAwayError, and `too-many-buckets`."""
        tenant, log, query, _ = question
        return await self._ask(lambda index: index.count(tenant, log, span, query=query, grouping=grouping, limit=BUCKETS_MAX))

    async def _ask(self, question: Callable[[SearchIndex], Awaitable[_Answer]]) -> _Answer:
        now = asyncio.get_running_loop().time
        if self._index is None or now() < self._away_until:
            raise IndexAwayError
        try:
            async with asyncio.timeout(self._timeout):
                return await question(self._index)
        except (DecklogError, TimeoutError) as error:
            if isinstance(error, DecklogError) and error.code is not Code.SEARCH_UNAVAILABLE:
                raise
            self._away_until = now() + _AWAY.total_seconds()
            _log.warning("the index does not answer; Postgres searches", reason=str(error)[:300])
            raise IndexAwayError from error
