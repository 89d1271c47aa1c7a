"""The model engine: a master chooses an expert, and the expert calls tools until it answers.

The answer rests on the results of the tools: its first sentence, its records and its counts are ours. What the model wrote stands beside it, checked
and marked. Where the model fails, the grammar answers and says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, Literal

import msgspec
from prometheus_client import Counter, Histogram

from decklog.domain.ask.conversation import Turn
from decklog.domain.ask.understanding import Expert
from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.services.ask import model_prompts as prompts
from decklog.services.ask.chat_protocol import Message, ModelError, ToolCall, answer, request
from decklog.services.ask.engine import Engine, Question, Reply
from decklog.services.ask.model_answer import spans, written
from decklog.services.ask.model_reply import Course, reply_of
from decklog.services.ask.model_tools import Bench
from decklog.services.ask.tools import Tools
from decklog.services.outage import Outage
from decklog.services.turns import Turns

ROUNDS_MAX: Final = 6
"""Answers of the expert to one question."""
CALLS_MAX: Final = 8
"""Calls of tools that one question may make, refused ones included."""
REQUESTS_MAX: Final = 16
"""Requests to the model at once."""
REQUESTS_PER_TENANT_MAX: Final = 4
REQUESTS_SPARE: Final = 4
"""Requests that only a tenant without any may make."""
TURN_SECONDS: Final = 5.0
"""Time that a question waits for its turn at the model."""
REST: Final = timedelta(seconds=30)
"""Time for which the model is not asked after failures in a row."""
FAILURES_MAX: Final = 3
"""Failures in a row after which the model rests."""

_questions = Counter("decklog_ask_model_questions_total", "Questions to the model, by how they ended.", ["outcome"])
_seconds = Histogram(
    "decklog_ask_model_seconds", "Seconds of one answer of the model.", buckets=(0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
)

Complete = Callable[[bytes], Awaitable[bytes]]
"""Sends a request to the endpoint and returns the body of its answer. Raises OSError."""


class _Route(msgspec.Struct, frozen=True):
    expert: Expert
    log: Literal["events", "access"] = "events"
    not_understood: list[str] = []


_route = msgspec.json.Decoder(_Route).decode


class Model:
    """The endpoint of a model. After failures in a row it rests, and is not asked.

    Args:
        complete: Sends a request.
        name: Name of the model at the endpoint.
        clock: When it rests.
        turns: Turns at the model, so that no tenant takes another's share.
    """

    def __init__(
        self, complete: Complete, name: str, *, clock: Callable[[], float] = time.monotonic, turns: Turns | None = None
    ) -> None:
        self._complete = complete
        self._name = name
        self._clock = clock
        self._turns = turns or Turns(REQUESTS_MAX, each=REQUESTS_PER_TENANT_MAX, spare=REQUESTS_SPARE, of="model")
        self._outage = Outage("model", "the model does not answer")
        self._failures = 0
        self._rests_until = float("-inf")

    @property
    def rests(self) -> bool:
        """True if the model is not asked at present."""
        return self._clock() < self._rests_until

    async def say(self, tenant_id: int, messages: list[Message], tools: list[dict[str, object]], choice: str) -> Message:
        """Return what the model says next, in a turn of this tenant. Raises `ModelError`, also where no turn comes."""
        try:
            await self._turns.take(tenant_id, seconds=TURN_SECONDS)
        except DecklogError:
            raise ModelError("the model is busy with other questions") from None  # which is no failure of it
        try:
            return await self._said(request(self._name, messages, tools, choice))
        finally:
            self._turns.give(tenant_id)

    async def _said(self, body: bytes) -> Message:
        began = time.monotonic()
        try:
            said = answer(await self._complete(body))
        except (OSError, ModelError) as error:
            self.failed(error)
            raise ModelError(str(error)) from None
        _seconds.observe(time.monotonic() - began)
        self._failures = 0
        self._outage.well()
        return said

    def failed(self, error: BaseException) -> None:
        """Note a failure, also that of a model that is too slow."""
        self._failures += 1
        self._outage.failed(error)
        if self._failures >= FAILURES_MAX:
            self._rests_until = self._clock() + REST.total_seconds()


class ModelEngine:
    """Answers questions by a model, and by another engine where the model fails.

    Args:
        model: The model.
        fallback: The engine that answers where the model does not.
        seconds: Time of the model for one question.
    """

    name = "model"

    def __init__(self, model: Model, fallback: Engine, *, seconds: float) -> None:
        self._model = model
        self._fallback = fallback
        self._time = seconds

    async def answer(self, question: Question, tools: Tools, history: Sequence[Turn]) -> Reply:
        """See `Engine.answer`."""
        if self._model.rests:
            return await self._without(question, tools, history, "resting")
        talk = _Talk(self._model, question, tools, history)
        try:
            async with asyncio.timeout(self._time):
                await talk.lead()
        except TimeoutError as error:
            self._model.failed(error)
            talk.notes.append("The model took too long, so its last words are missing.")
        except ModelError:
            talk.notes.append("The model failed before it had finished.")
        if (reply := talk.reply()) is None:
            return await self._without(question, tools, history, "failed")
        _questions.labels("answered").inc()
        return reply

    async def _without(self, question: Question, tools: Tools, history: Sequence[Turn], why: str) -> Reply:
        _questions.labels(why).inc()
        tools.calls = 0  # those that the model made in vain are not the other engine's
        reply = await self._fallback.answer(question, tools, history)
        note = "The model did not answer, so the built-in grammar did."
        return msgspec.structs.replace(reply, engine=self._fallback.name, notes=(note, *reply.notes))


class _Talk:
    """One question to a model: the master's choice, the expert's calls, and its last words."""

    def __init__(self, model: Model, question: Question, tools: Tools, history: Sequence[Turn]) -> None:
        self._model = model
        self._question = question
        self._tools = tools
        self._history = history
        self._expert = Expert.FIND
        self._log = LogName.EVENTS
        self._not_understood: list[str] = []
        self._words = ""
        self._calls = 0
        self._bench: Bench | None = None
        self.notes: list[str] = []

    async def lead(self) -> None:
        """Choose the expert, and let it call tools until it answers or may not any more. Raises `ModelError`."""
        await self._choose()
        bench = self._bench = Bench(self._tools, self._expert, self._log, self._question.zone)
        words = await self._tools.vocabulary(self._log)
        messages = prompts.expert(self._expert, self._question, self._history, words)
        for round_ in range(1, ROUNDS_MAX + 1):
            free = round_ < ROUNDS_MAX and self._calls < CALLS_MAX
            said = await self._model.say(self._tools.tenant_id, messages, bench.definitions, "auto" if free else "none")
            if not said.tool_calls:
                self._words = said.content or ""
                return
            messages += [said, *[await self._called(bench, call) for call in said.tool_calls]]
        self.notes.append("The model did not come to an end, so its last words are missing.")

    async def _choose(self) -> None:
        """Ask the master. It sees nothing from the log, so no record can influence which expert and which log it chooses."""
        said = await self._model.say(
            self._tools.tenant_id, prompts.master(self._question, self._history), [prompts.route()], prompts.ROUTE
        )
        if not said.tool_calls or said.tool_calls[0].function.name != prompts.ROUTE:
            raise ModelError("the model chose no expert")
        try:
            chosen = _route(said.tool_calls[0].function.arguments)
        except (msgspec.DecodeError, ValueError):
            raise ModelError("the model chose no expert that exists") from None
        self._expert, self._not_understood = chosen.expert, chosen.not_understood
        if self._question.log is LogName.EVENTS and chosen.log == "access":
            self._log = LogName.ACCESS
        else:
            self._log = self._question.log

    async def _called(self, bench: Bench, call: ToolCall) -> Message:
        self._calls += 1
        if self._calls > CALLS_MAX:
            result = bench.refuse("too-many-calls", f"One question makes at most {CALLS_MAX} calls. Answer now.")
        else:
            result = await bench.call(call)
        return Message(role="tool", tool_call_id=call.id, content=result)

    def reply(self) -> Reply | None:
        """Return the reply that rests on the results of the tools, None where there is no result."""
        if self._bench is None or not self._bench.evidence:
            return None
        said = written(self._words, self._question.text, self._bench.evidence)
        notes = (*self.notes, *said.notes)
        unread = spans(self._question.text, self._not_understood)
        return reply_of(self._bench, Course(self._expert, self._log, self._question.zone, unread, said.text, notes))
