"""The first answer of two engines: Postgres begins as well where the index is away, or silent for longer than a search waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from decklog.domain.errors import Code, DecklogError
from decklog.services.search.index_reader import IndexAwayError
from decklog.services.search.question import Question

_Answer = TypeVar("_Answer")

_NO_ANSWER = (Code.SEARCH_UNAVAILABLE, Code.OVERLOADED)
"""Errors of one engine after which the other may still answer."""


async def first_answer(
    question: Question,
    by_index: Callable[[], Awaitable[_Answer]],
    by_postgres: Callable[[], Awaitable[_Answer]],
    *,
    late: Callable[[], None],
) -> _Answer:
    """Return the answer of `by_index`, or that of `by_postgres` where the index is away, or is late and answers after Postgres.

    `late` is called where Postgres was faster. Postgres is not asked where it would have to match the whole log.

    Raises:
        DecklogError: `search-unavailable`, and what an engine raises.
    """
    asking = asyncio.ensure_future(by_index())
    tasks = [asking]
    try:
        await asyncio.wait((asking, question.patience.over), return_when=asyncio.FIRST_COMPLETED)
        if question.unbounded or (asking.done() and not isinstance(asking.exception(), IndexAwayError)):
            return await asking
        searching = asyncio.ensure_future(by_postgres())
        tasks.append(searching)
        while pending := [task for task in tasks if not task.done()]:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not _without_answer(task):
                    if task is searching and not asking.done():
                        late()
                    return task.result()
        return searching.result()
    except IndexAwayError:
        raise _needs_bounds() from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _without_answer(task: asyncio.Future[_Answer]) -> bool:
    """Return whether an engine ended in a way that leaves the answer to the other."""
    error = task.exception()
    return isinstance(error, IndexAwayError) or (isinstance(error, DecklogError) and error.code in _NO_ANSWER)


def _needs_bounds() -> DecklogError:
    """Return the refusal where Postgres would have to match a whole log that is large enough to have an index."""
    return DecklogError(
        Code.SEARCH_UNAVAILABLE,
        "The search index does not answer. Without it, `q` and `metadata` filters need a time range: give `from`, and `to` if you "
        "can, or try again.",
        retry_after=5,
    )
