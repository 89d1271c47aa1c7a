"""JSON of the routes for conversations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Title = Annotated[str, Meta(description="Beginning of the first question.")]
Length = Annotated[int, Meta(ge=1, description="Number of questions.")]
EndsAt = Annotated[datetime, Meta(description="Time after which the conversation is deleted. Each question moves it.")]


class ListedConversation(msgspec.Struct):
    """A conversation without its questions."""

    id: str
    title: Title
    length: Length
    started_at: datetime
    last_at: datetime
    ends_at: EndsAt


class ListedConversations(msgspec.Struct):
    """Conversations of the caller, the one used last first."""

    items: list[ListedConversation]


class ConversationTurn(msgspec.Struct):
    """A question and its answer."""

    asked_at: datetime
    question: str
    query: Annotated[str, Meta(description="Query in the query language that the question became.")]
    expert: Annotated[str, Meta(description="Kind of question, as in the answer to it.")]
    log: Literal["events", "access"]
    zone: Annotated[str, Meta(description="Time zone in which days and times of the question were read.")]
    not_understood: Annotated[list[str], Meta(description="Words of the question that were not understood.")]
    answer: str
    engine: Annotated[str, Meta(description="What answered: `grammar` or `model`.")]
    records: Annotated[list[int], Meta(description="Sequence numbers of the records that were shown, in the order shown.")]


class Conversation(ListedConversation):
    """A conversation of the caller."""

    turns: Annotated[list[ConversationTurn], Meta(description="Questions with their answers, the oldest first.")]
