"""The twenty questions of an auditor, asked in their words, over real events and through the engine, its tools and the readings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from decklog.domain.intake import cloudtrail
from decklog.services.ask.engine import Question, Reply
from decklog.services.ask.grammar_engine import GrammarEngine
from decklog.services.ask.tools import Tools
from decklog.services.ask.vocabularies import Vocabularies
from tests.support import real_events
from tests.support.auditor_questions import FILE, QUESTIONS, AuditorQuestion
from tests.support.desk import REQUEST, Desk, desk

BEYOND = ("Who made or removed a password of the console?", "What was shared with others: snapshots, images and buckets?")
"""Questions of which some words are not understood. The answer says so first."""
_DELETIONS = re.compile(r"^(Delete|Remove|Destroy|Terminate|Erase|Purge|Drop)(?![a-z])|(Delete|Remove|Terminate)$")


def _deleted(event: Mapping[str, Any]) -> bool:
    """Whether an event deletes, by any verb that says so: the table counts `Delete…` alone."""
    return _DELETIONS.search(event["eventName"]) is not None


def right(asked: AuditorQuestion, event: Mapping[str, Any]) -> bool:
    return _deleted(event) if asked.words.startswith("Who deleted what") else asked.matches(event)


def without_none(value: Any) -> dict[str, Any]:
    return {name: item for name, item in value.items() if item is not None}


async def ask(at: Desk, words: str) -> Reply:
    principal = at.principal()
    with at.reading.account(principal) as held:
        tools = Tools(at.reading, Vocabularies(at.reading), principal, REQUEST, held)
        return await GrammarEngine().answer(Question(words, at.now()), tools)


def differences(asked: AuditorQuestion, events: Sequence[Mapping[str, Any]], reply: Reply) -> Iterator[str]:
    """Yield what of a reply is not as the events say."""
    matching = [event for event in events if right(asked, event)]
    if reply.understanding.not_understood:
        yield f"not understood: {reply.understanding.not_understood}"
    if reply.counts is None or reply.counts.total != len(matching):
        yield f"{reply.counts and reply.counts.total} records and not {len(matching)}: {reply.understanding.query}"
    if not {msgspec.json.decode(record)["id"] for record in reply.records} <= {event["eventID"] for event in matching}:
        yield "records that do not match"
    if asked.group is not None and reply.counts is not None and reply.counts.by is not None:
        counts = asked.counts(events)
        found = {each.value[:10] if reply.counts.by == "day" else each.value: each.count for each in reply.counts.values}
        if not found or not found.items() <= counts.items():
            yield f"{found} and not {counts}"


async def test_questions_are_answered_as_the_events_say() -> None:
    events = real_events.values(FILE)
    async with desk(indexed=False) as at:
        at.now.time = datetime.now(UTC)
        await at.put(*(without_none(msgspec.to_builtins(cloudtrail.record(event))) for event in events))
        replies = {asked: await ask(at, asked.words) for asked in QUESTIONS}
    wrong = {
        asked.words: list(differences(asked, events, reply)) for asked, reply in replies.items() if asked.words not in BEYOND
    }
    assert {words: found for words, found in wrong.items() if found} == {}
    for asked, reply in replies.items():
        assert asked.words not in BEYOND or reply.answer.startswith("Not understood: ")
