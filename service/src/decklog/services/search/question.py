"""One search: its tenant, log and query, the time it may take, and the part of it that the index gets."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final, NamedTuple

from decklog.domain.log import LogName
from decklog.domain.search.coverage import too_slow
from decklog.domain.search.query import Query
from decklog.domain.tenant import Tenant

INDEX_TIME: Final = timedelta(milliseconds=500)
"""Silence of the index in one search, after which Postgres begins to answer as well."""


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


class Patience:
    """The seconds that a search waits for the index alone, over all questions of the search. `over` is done after them."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """End the patience."""
        self.left = 0.0
        if not self.over.done():
            self.over.set_result(None)


class Question(NamedTuple):
    """What is searched, where, until when, and how long the index alone is waited for.

    `doubted` gets the numbers of found records about which the index cannot decide. `numbered` is the query as an index is asked it: it has no receipt times, so those of the query are ranges of `seq`.
    """

    tenant: Tenant
    log: LogName
    query: Query
    numbered: Query
    deadline: Deadline
    patience: Patience
    doubted: set[int]

    @classmethod
    def within(cls, tenant: Tenant, log: LogName, query: Query, seconds: float, *, numbered: Query | None = None) -> Question:
        """Return a question whose time begins now."""
        patience = Patience(min(INDEX_TIME.total_seconds(), seconds / 2))
        return cls(tenant, log, query, numbered or query, Deadline(seconds), patience, set())

    def again(self, seconds: float) -> Question:
        """Return the same question with a time of its own that begins now."""
        return Question.within(self.tenant, self.log, self.query, seconds, numbered=self.numbered)._replace(doubted=self.doubted)

    @property
    def unbounded(self) -> bool:
        """Whether Postgres would have to match every record of the log: full text or `metadata` without a lower bound of time."""
        return self.query.needs_content and self.query.since is None and self.query.received_since is None
