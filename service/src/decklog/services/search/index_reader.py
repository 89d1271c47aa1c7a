"""The search index as searches use it: which part of a log it covers, and questions that end in time.

Tenants ask in turns. A tenant whose question failed asks nothing for a second, so that the silence of the index does not delay
every request, and nobody asks while the questions of several tenants fail. Callers then use Postgres.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Span
from decklog.domain.search.stats import BUCKETS_MAX, Bucket, Grouping
from decklog.domain.store import FORGETTER, INDEXER, SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.search.question import Question
from decklog.services.turns import Turns

_AWAY = timedelta(seconds=1)
"""How long a tenant whose question failed asks nothing."""

_TENANTS_AWAY = 3
"""Tenants whose questions failed within that time, from which nobody asks."""
QUESTIONS_MAX = 12
"""Questions at once: fewer than the connections to the index, so that its readiness is never queued behind them."""

_log = structlog.get_logger("decklog.search")
_Answer = TypeVar("_Answer")


class ReadsCursors(Protocol):
    """The part of `Cursors` that searches use."""

    async def next_seqs(self, consumers: Sequence[str], tenant_id: int, log: LogName) -> list[int]:
        """See `Cursors.next_seqs`."""
        ...


class IndexAwayError(Exception):
    """The index does not answer now."""


class IndexReader:
    """The index of one cell; without one, `index` and `cursors` are None. `timeout` is in seconds, for one question."""

    def __init__(self, index: SearchIndex | None, cursors: ReadsCursors | None, *, timeout: float) -> None:
        if (index is None) is not (cursors is None):
            raise ValueError("an index needs the cursors of its consumers")
        self._index = index
        self._cursors = cursors
        self._timeout = timeout
        self._turns = Turns(QUESTIONS_MAX, each=QUESTIONS_MAX // 3, spare=QUESTIONS_MAX // 6, of="search")
        self._away: dict[int, float] = {}
        """Until when a tenant asks nothing, after a question of it failed."""

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
        return await self._ask(
            tenant, lambda index: index.find(tenant, log, span, query=query, limit=limit, newest_first=newest_first)
        )

    async def count(self, question: Question, span: Span, grouping: Grouping) -> list[Bucket]:
        """Return the counts of matching records. Raises IndexAwayError, and `too-many-buckets`."""
        tenant, log, query, _ = question
        return await self._ask(
            tenant, lambda index: index.count(tenant, log, span, query=query, grouping=grouping, limit=BUCKETS_MAX)
        )

    async def _ask(self, tenant: Tenant, question: Callable[[SearchIndex], Awaitable[_Answer]]) -> _Answer:
        now = asyncio.get_running_loop().time
        if self._index is None or self._is_away(tenant, now()):
            raise IndexAwayError
        async with self._turns.turn(tenant.id, seconds=self._timeout):
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await question(self._index)
            except (DecklogError, TimeoutError) as error:
                if isinstance(error, DecklogError) and error.code is not Code.SEARCH_UNAVAILABLE:
                    raise
                self._away[tenant.id] = now() + _AWAY.total_seconds()
                _log.warning("the index does not answer; Postgres searches", tenant=tenant.name, reason=str(error)[:300])
                raise IndexAwayError from error
        self._away.pop(tenant.id, None)
        return answer

    def _is_away(self, tenant: Tenant, now: float) -> bool:
        """Return whether the index failed this tenant, or several tenants, a moment ago: one may have asked too much of it."""
        if self._away:
            self._away = {other: until for other, until in self._away.items() if until > now}
        return tenant.id in self._away or len(self._away) >= _TENANTS_AWAY
