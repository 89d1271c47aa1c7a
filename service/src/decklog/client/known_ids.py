"""Which ids a log holds already, asked of the log itself: a server recognises an id by itself for a bounded time only.

Records that were dropped after their retention are not in the log, so their ids are not known either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

from decklog import shapes
from decklog.domain.search import tree
from decklog.domain.search.grammar import CLAUSES_MAX, QUERY_CHARS_MAX
from decklog.domain.search.written import written

PAGE_RECORDS = 1_000
"""Records of one page: an id may be in the log several times."""

Ask = Callable[[dict[str, Any]], Awaitable[shapes.Page]]
"""A search: it gets the body, and returns one page."""


def _queries(ids: Iterable[str]) -> Iterator[str]:
    """Yield queries within their bounds that find the records of these ids."""
    waiting: list[str] = []
    size = 0
    for clause in (written(tree.Equal("id", each)) for each in ids):
        if waiting and (len(waiting) == CLAUSES_MAX or size + len(clause) > QUERY_CHARS_MAX):
            yield _JOINT.join(waiting)
            waiting, size = [], 0
        waiting.append(clause)
        size += len(clause) + len(_JOINT)
    if waiting:
        yield _JOINT.join(waiting)


_JOINT = " OR "


async def known(ask: Ask, ids: Iterable[str]) -> dict[str, int]:
    """Return those of the ids that the log holds, each with the `seq` of its first record."""
    found: dict[str, int] = {}
    for query in _queries(dict.fromkeys(ids)):
        async for record in _records(ask, query):
            if record.id is not None:
                found[record.id] = min(record.seq, found.get(record.id, record.seq))
    return found


async def _records(ask: Ask, query: str) -> AsyncIterator[shapes.Record]:
    body: dict[str, Any] = {"query": query, "limit": PAGE_RECORDS}
    while True:
        page = await ask(body)
        for item in page.items:
            yield item
        if page.next is None:
            return
        body["cursor"] = page.next
