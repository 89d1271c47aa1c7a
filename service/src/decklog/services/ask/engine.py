"""Engines: how a question becomes a reply. An engine reads records by `Tools` alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from decklog.domain.ask.conversation import Turn
from decklog.domain.ask.understanding import Understanding
from decklog.domain.log import LogName
from decklog.services.ask.tools import Counts, Tools


class Question(msgspec.Struct, frozen=True):
    """A question in plain words. Days and hours of its words are those of `zone`, an IANA name, and relative times refer to `now`."""

    text: str
    now: datetime
    log: LogName = LogName.EVENTS
    zone: str = "UTC"


class Reply(msgspec.Struct, frozen=True):
    """A question's understanding and its answer: sentences, the records that they rest on as JSON, and counts.

    `engine` names the engine that answered where another one was asked, `comment` is what a model wrote beside the answer, and `notes` say
    what a reader must know about both. `sent` is the number of records that left this installation.
    """

    understanding: Understanding
    answer: str
    records: tuple[msgspec.Raw, ...] = ()
    counts: Counts | None = None
    engine: str = ""
    comment: str = ""
    notes: tuple[str, ...] = ()
    sent: int = 0


class Engine(Protocol):
    """Answers questions."""

    name: str
    """Name of the engine in metrics and access records."""

    async def answer(self, question: Question, tools: Tools, history: Sequence[Turn]) -> Reply:
        """Return the reply to a question; `history` has the turns before it, the oldest first.

        Raises:
            DecklogError: `question-not-understood`, and the errors of the tools.
        """
        ...
