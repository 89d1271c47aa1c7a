"""The search index as searches use it: which part of a log it covers, and questions that end in time.

Tenants ask in turns. A question that fails, or is not answered within the patience of its search, starts one probe, which decides
for the process: an index that is silent is asked nothing until a probe is answered. Where the probe is answered, only the tenant
of the question asks nothing for a second, and nobody asks while the questions of several tenants fail. Callers then use Postgres.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Protocol, TypeVar

from decklog.domain.consumers import FORGETTER, indexer_of
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Span
from decklog.domain.search.decided import UndecidedError
from decklog.domain.search.order import Place
from decklog.domain.search.stats import BUCKETS_MAX, Bucket, Tally
from decklog.domain.store import SearchIndex
from decklog.domain.tenant import Tenant
from decklog.services.breaker import Breaker
from decklog.services.outage import Outage
from decklog.services.search.question import Patience, Question
from decklog.services.turns import Turns

_AWAY = timedelta(seconds=1)
"""How long a tenant whose question failed asks nothing."""

_TENANTS_AWAY = 3
"""Tenants whose questions failed within that time, from which nobody asks."""
QUESTIONS_MAX = 12
"""Questions at once: fewer than the connections to the index, so that its readiness is never queued behind them."""

WAIT_SECONDS_MAX = 5.0
"""Time that a search waits at most for the index to find a record."""
WAITS_MAX, WAITS_PER_TENANT_MAX = 200, 20
"""Searches of one process that wait at once, each with ten look-ups a second."""
_LOOK_AGAIN_SECONDS = 0.1
_AWAY_CODES = (Code.SEARCH_UNAVAILABLE, Code.OVERLOADED)
"""Errors after which Postgres answers: it has turns of its own."""
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
        self._questions = Outage("search", "the index does not answer a question; Postgres searches")
        self._breaker = Breaker(self._probe, Outage("search-probe", "the index does not answer; Postgres searches"))
        self._waiting: Counter[int] = Counter()
        self._away: dict[int, float] = {}
        """Until when a tenant asks nothing, after a question of it failed."""

    @property
    def present(self) -> bool:
        """Whether there is an index at all."""
        return self._index is not None

    async def covered(self, tenant: Tenant, log: LogName, head: Head) -> Span:
        """Return the records that the index finds; all of the log without an index."""
        if self._cursors is None or self._index is None:
            return Span(0, head.next_seq)
        if not self._index.covers(tenant):
            return Span(0, 0)
        floor, end = await self._cursors.next_seqs((FORGETTER, indexer_of(tenant)), tenant.id, log)
        end = min(head.next_seq, end)
        return Span(min(floor, end), end)

    async def wait(self, tenant: Tenant, log: LogName, seq: int) -> None:
        """Return when the index finds the record `seq`, and after `WAIT_SECONDS_MAX` at the latest.

        Without an index, and while `WAITS_MAX` requests wait, it returns at once: searches are whole without it.
        """
        if self._cursors is None or self._index is None or not self._index.covers(tenant):
            return
        mine = self._waiting.get(tenant.id, 0)
        if mine >= WAITS_PER_TENANT_MAX or self._waiting.total() >= WAITS_MAX:
            return
        self._waiting[tenant.id] += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS_MAX):
                    found = 0
                    while found <= seq:
                        [found] = await self._cursors.next_seqs((indexer_of(tenant),), tenant.id, log)
                        await asyncio.sleep(0 if found > seq else _LOOK_AGAIN_SECONDS)
        finally:
            self._waiting[tenant.id] -= 1
            if not self._waiting[tenant.id]:
                del self._waiting[tenant.id]

    async def find(self, question: Question, span: Span, limit: int, *, newest_first: bool) -> list[int]:
        """Return the numbers of at most `limit` matching records, in order. Raises IndexAwayError."""
        tenant, log, _, query, *_ = question
        return await self._ask(
            question,
            lambda index: index.find(
                tenant, log, span, query=query, limit=limit, newest_first=newest_first, doubted=question.doubted
            ),
        )

    async def find_by_time(
        self, question: Question, span: Span, after: Place | None, limit: int, *, newest_first: bool
    ) -> list[Place]:
        """Return the places of at most `limit` matching records after a place, ordered by `occurred_at`. Raises IndexAwayError."""
        tenant, log, _, query, *_ = question
        return await self._ask(
            question,
            lambda index: index.find_by_time(
                tenant, log, span, query=query, after=after, limit=limit, newest_first=newest_first, doubted=question.doubted
            ),
        )

    async def count(self, question: Question, span: Span, tally: Tally) -> list[list[Bucket]]:
        """Return the counts of matching records, by the grouping and by each facet. Raises IndexAwayError, and `too-many-buckets`."""
        try:
            return await self._counts(question, span, tally)
        except UndecidedError as error:
            raise IndexAwayError from error

    async def _counts(self, question: Question, span: Span, tally: Tally) -> list[list[Bucket]]:
        tenant, log, _, query, *_ = question
        grouping, names = tally
        counts = [
            await self._ask(
                question, lambda index: index.count(tenant, log, span, query=query, grouping=grouping, limit=BUCKETS_MAX)
            )
        ]
        if names:
            counts += await self._ask(
                question, lambda index: index.facets(tenant, log, span, query=query, names=names, limit=BUCKETS_MAX)
            )
        return counts

    async def _probe(self) -> None:
        if self._index is not None:
            await self._index.ping()

    async def _ask(self, question: Question, ask: Callable[[SearchIndex], Awaitable[_Answer]]) -> _Answer:
        tenant = question.tenant
        if self._index is None or self._is_away(tenant) or not await self._breaker.closed():
            raise IndexAwayError
        try:
            with self._patience(question):
                answer = await self._answer(tenant, self._index, ask)
        except (DecklogError, TimeoutError) as error:
            if isinstance(error, DecklogError) and error.code not in _AWAY_CODES:
                raise
            self._failed(tenant, error)
            raise IndexAwayError from error
        self._away.pop(tenant.id, None)
        self._questions.well()
        return answer

    async def _answer(self, tenant: Tenant, index: SearchIndex, ask: Callable[[SearchIndex], Awaitable[_Answer]]) -> _Answer:
        async with asyncio.timeout(self._timeout) as ending:
            with self._breaker.call(ending):
                async with self._turns.turn(tenant.id, seconds=self._timeout):
                    return await ask(index)

    @contextmanager
    def _patience(self, question: Question) -> Iterator[None]:
        """Take the time of the block from the patience of the question. At its end the index is doubted."""
        loop, patience = asyncio.get_running_loop(), question.patience
        began = loop.time()
        timer = loop.call_later(patience.left, self._doubt, patience)
        try:
            yield
        finally:
            timer.cancel()
            patience.left = max(0.0, patience.left - (loop.time() - began))

    def _doubt(self, patience: Patience) -> None:
        patience.end()
        self._breaker.doubt()

    def late(self, tenant: Tenant) -> None:
        """Note that Postgres answered this tenant while the index was still asked."""
        self._failed(tenant, TimeoutError())

    def _failed(self, tenant: Tenant, error: BaseException) -> None:
        self._away[tenant.id] = asyncio.get_running_loop().time() + _AWAY.total_seconds()
        self._questions.failed(error, tenant=tenant.name)
        self._breaker.doubt()

    def _is_away(self, tenant: Tenant) -> bool:
        """Return whether the index failed this tenant, or several tenants, a moment ago: one may have asked too much of it."""
        if self._away:
            now = asyncio.get_running_loop().time()
            self._away = {other: until for other, until in self._away.items() if until > now}
        return tenant.id in self._away or len(self._away) >= _TENANTS_AWAY
