"""Questions over the API: admitted, answered by an engine within bounds, and recorded before the answer is returned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from prometheus_client import Counter

from decklog.domain.ask.conversation import RECORDS_MAX, Turn
from decklog.domain.ask.question import QuestionInput, recorded
from decklog.domain.ask.understanding import Understanding
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, RequestContext
from decklog.domain.log import LogName
from decklog.domain.records.record import Outcome
from decklog.domain.search.calendar import zone_of
from decklog.domain.search.query import describe, parse
from decklog.services.ask.conversations import OwnConversations
from decklog.services.ask.engine import Engine, Question, Reply
from decklog.services.ask.tools import Tools
from decklog.services.ask.vocabularies import Vocabularies
from decklog.services.budget import Held
from decklog.services.records.access_log import ASK, AccessLog
from decklog.services.records.reading import Reading

SECONDS_MAX: Final = 20.0
"""Time that one question may take."""
_WORDS_MAX: Final = 20
"""Parts that are not understood, in an access record."""

_questions = Counter(
    "decklog_ask_questions_total", "Questions in plain words, by engine, expert and outcome.", ["engine", "expert", "outcome"]
)


class Answered(msgspec.Struct, frozen=True):
    """A reply, and the id of the conversation that it belongs to; None where none is kept."""

    reply: Reply
    conversation: str | None


@dataclass
class _Record:
    """The access record of one question: what is known of it until its end."""

    principal: Principal
    context: RequestContext
    log: LogName
    details: dict[str, Any]
    tools: Tools
    engine: str
    expert: str = field(default="none")

    def understood(self, asked: Understanding) -> None:
        """Note what the question is understood as; values under the names of secrets are masked."""
        self.log, self.expert = asked.log, asked.expert.value
        words = [each.text for each in asked.not_understood[:_WORDS_MAX]]
        _, query = parse([("q", asked.query)] if asked.query else [])
        self.details |= {
            "expert": self.expert,
            "query": describe(query).get("q", ""),
            **({"not_understood": words} if words else {}),
        }

    def ended(self, code: str | None, records: int) -> dict[str, Any]:
        """Return the details of the end of the question, and count it."""
        _questions.labels(self.engine, self.expert, "answered" if code is None else code).inc()
        return {**self.details, "calls": self.tools.calls, "records": records, **({} if code is None else {"code": code})}

    def replied(self, reply: Reply) -> None:
        """Note the engine that answered, and how many records left this installation."""
        self.engine = reply.engine or self.engine
        self.details["engine"] = self.engine
        if reply.sent:
            self.details["sent"] = reply.sent


class Asking:
    """Answers the questions of one process.

    Args:
        reading: The readings that tools are made of.
        access_log: Where each question is recorded.
        engine: Answers.
        conversations: Where questions and answers are kept.
        now: The time; None for the clock.
        seconds: Time that one question may take.
    """

    def __init__(
        self,
        reading: Reading,
        access_log: AccessLog,
        engine: Engine,
        conversations: OwnConversations,
        *,
        now: Callable[[], datetime] | None = None,
        seconds: float = SECONDS_MAX,
    ) -> None:
        self._reading = reading
        self._access_log = access_log
        self._engine = engine
        self._conversations = conversations
        self._vocabularies = Vocabularies(reading)
        self._now = now or (lambda: datetime.now(UTC))
        self._seconds = seconds

    async def ask(self, principal: Principal, context: RequestContext, wanted: QuestionInput, held: Held) -> Answered:
        """Return the answer to a question. `held` accounts for the records of it until its caller has sent them.

        Raises:
            DecklogError: `question-not-understood`, `question-too-costly`, `search-unavailable` after the time of a question, the errors of readings,
                and those of conversations.
        """
        log, zone = LogName.parse(wanted.log), wanted.zone or "UTC"
        self._admit(principal, wanted.log)
        zone_of(zone)
        history = await self._history(principal, wanted.conversation)
        question = Question(wanted.question, self._now(), log, zone)
        tools = Tools(self._reading, self._vocabularies, principal, context, held)
        of = {} if wanted.conversation is None else {"conversation": wanted.conversation}
        record = _Record(principal, context, log, {"question": recorded(wanted.question), **of}, tools, self._engine.name)
        reply = await self._answered(question, tools, history, record)
        details = record.ended(None, len(reply.records))
        await self._access_log.write(principal, context, ASK, resource=("log", record.log.text), details=details)
        reply = reply if reply.engine else msgspec.structs.replace(reply, engine=self._engine.name)
        return Answered(reply, await self._kept(principal, wanted.conversation, question, reply))

    def _admit(self, principal: Principal, log: str) -> None:
        if principal.scope is None:
            self._access_log.admit(principal, [("log", log)])
        else:
            self._access_log.admit_viewer(principal)

    async def _history(self, principal: Principal, conversation: str | None) -> Sequence[Turn]:
        return () if conversation is None else await self._conversations.recall(principal, conversation)

    async def _answered(self, question: Question, tools: Tools, history: Sequence[Turn], record: _Record) -> Reply:
        """Return the reply of the engine within the time of a question. A failure is recorded, whatever it is."""
        try:
            async with asyncio.timeout(self._seconds):
                reply = await self._engine.answer(question, tools, history)
            record.understood(reply.understanding)
            record.replied(reply)
        except BaseException as error:
            late = DecklogError(
                Code.SEARCH_UNAVAILABLE, f"The question was not answered within {self._seconds:.0f} seconds. Ask for less."
            )
            raised = late if isinstance(error, TimeoutError) else error
            code = raised.code.value if isinstance(raised, DecklogError) else Code.INTERNAL.value
            resource, details = ("log", record.log.text), record.ended(code, 0)
            await self._access_log.write_late(
                record.principal, record.context, ASK, resource=resource, details=details, outcome=Outcome.FAILURE
            )
            if raised is error:
                raise
            raise late from None
        return reply

    async def _kept(self, principal: Principal, conversation: str | None, question: Question, reply: Reply) -> str | None:
        numbers = [msgspec.json.decode(each).get("seq") for each in reply.records[:RECORDS_MAX]]
        records = tuple(number for number in numbers if number is not None)
        turn = Turn(
            question.now,
            recorded(question.text),
            _kept_of(question.text, reply.understanding),
            reply.answer,
            reply.engine or self._engine.name,
            records,
        )
        return await self._conversations.keep(principal, conversation, turn)


def _kept_of(text: str, asked: Understanding) -> Understanding:
    """Return what a conversation keeps of an understanding: with values under the names of secrets, the masked query alone."""
    if recorded(text) == text:
        return asked
    _, query = parse([("q", asked.query)] if asked.query else [])
    return msgspec.structs.replace(asked, query=describe(query).get("q", ""), understood=(), not_understood=(), compare=None)
