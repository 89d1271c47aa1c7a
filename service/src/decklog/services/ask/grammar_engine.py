"""The local engine: the grammar of `domain.ask`, which needs no network and gives the same answer to the same question and records."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from decklog.domain.ask.conversation import Turn
from decklog.domain.ask.following import follows, understood
from decklog.domain.ask.grammar import log_of, understand
from decklog.domain.ask.understanding import Expert, Order, Understanding
from decklog.domain.ask.vocabulary import Vocabulary
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.services.ask import telling
from decklog.services.ask.engine import Question, Reply
from decklog.services.ask.tools import RECORDS_MAX, Count, Counts, Listed, Tools

_SHOWN = 20
"""Records that an answer of counts shows."""


class GrammarEngine:
    """Understands a question by the grammar, and answers it by one or two calls of tools."""

    name = "grammar"

    async def answer(self, question: Question, tools: Tools, history: Sequence[Turn] = ()) -> Reply:
        """Return the reply to a question. A question that refers to the last one of `history` goes on from that.

        Raises:
            DecklogError: `question-not-understood`, `question-too-costly`, and the errors of the tools.
        """
        before = (history[-1].question, history[-1].understanding) if history else None
        default = before[1].log if before and follows(question.text, before[1]) else question.log
        vocabulary = await _vocabulary(tools, log_of(question.text, default))

        def alone(text: str) -> Understanding:
            return understand(text, vocabulary, question.now, question.zone, default)

        # In a thread: the longest questions take some tenths of a second, in which other requests go on.
        asked = await asyncio.to_thread(understood, question.text, before, alone, question.now)
        return await answered(asked, tools)


async def _vocabulary(tools: Tools, log: LogName) -> Vocabulary:
    """Return the words of a log; none where they cannot be counted in time, so that fewer words of the question are understood."""
    try:
        return await tools.vocabulary(log)
    except DecklogError as error:
        if error.code is not Code.SEARCH_UNAVAILABLE:
            raise
        return Vocabulary()


async def answered(asked: Understanding, tools: Tools) -> Reply:
    """Return the reply to what a question is understood as. Raises the errors of the tools."""
    match asked.expert:
        case Expert.FIND:
            return await _found(asked, tools)
        case Expert.STORY:
            told = await tools.story(asked.query, log=asked.log, limit=RECORDS_MAX)
            return Reply(asked, telling.story(asked, told), told.records, told.actors)
        case Expert.COMPARE:
            return await _compared(asked, tools)
        case Expert.TIMELINE:
            counts = await tools.timeline(asked.query, interval=asked.interval or "day", zone=asked.zone, log=asked.log)
            return Reply(asked, telling.timeline(asked, counts), (await _some(asked, tools)).records, counts)
        case Expert.COUNT | Expert.TOP:
            counts = await tools.count(asked.query, asked.group_by, log=asked.log, top=asked.limit)
            return Reply(asked, telling.counted(asked, counts), (await _some(asked, tools)).records, counts)


async def _found(asked: Understanding, tools: Tools) -> Reply:
    newest = asked.order is Order.NEWEST
    listed = await tools.search(asked.query, log=asked.log, newest_first=newest, limit=min(asked.limit, RECORDS_MAX))
    return Reply(asked, telling.found(asked, listed), listed.records, Counts(listed.total))


async def _some(asked: Understanding, tools: Tools) -> Listed:
    """Return the newest of the records that counts rest on."""
    return await tools.search(asked.query, log=asked.log, limit=_SHOWN)


async def _compared(asked: Understanding, tools: Tools) -> Reply:
    queries = asked.compare or (asked.query, asked.query)
    totals = [(await tools.count(query, log=asked.log)).total for query in queries]
    counts = Counts(sum(totals), "query", tuple(Count(query, total) for query, total in zip(queries, totals, strict=True)))
    return Reply(asked, telling.compared(asked, counts), (await _some(asked, tools)).records, counts)
