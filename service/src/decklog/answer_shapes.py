"""JSON of the answers to questions in plain words."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from decklog.shapes import Count, Record
from decklog.viewer_shapes import ViewedRecord

Start = Annotated[int, Meta(ge=0, description="Place of the first character in the question.")]
End = Annotated[int, Meta(ge=0, description="Place behind the last character.")]


class UnderstoodPart(msgspec.Struct):
    """A part of the question, and what it is understood as."""

    start: Start
    end: End
    text: str
    meaning: str


class UnreadPart(msgspec.Struct):
    """A part of the question that is not understood. The answer is as if it were not there."""

    start: Start
    end: End
    text: str


class ValueCount(msgspec.Struct):
    """Number of records with a value, in an interval that begins at a time, or found by a query."""

    value: str
    count: Count


class _Answer(msgspec.Struct):
    query: Annotated[str, Meta(description="Query in the query language that the question became; empty for all records.")]
    expert: Annotated[
        Literal["find", "count", "compare", "timeline", "story", "top"],
        Meta(description="The way in which the question is answered."),
    ]
    log: Literal["events", "access"]
    zone: Annotated[str, Meta(description="Time zone in which days and hours of the question were read.")]
    order: Annotated[Literal["newest", "oldest"], Meta(description="Order of the records, by the time of the event.")]
    limit: Annotated[int, Meta(ge=1, description="Number of records, or of values, that were asked for.")]
    understood: list[UnderstoodPart]
    not_understood: list[UnreadPart]
    answer: Annotated[str, Meta(description="The answer in sentences; what is not understood comes first.")]
    engine: Annotated[
        Literal["grammar", "model"],
        Meta(description="What understood the question: the built-in grammar, or a model, whose query should be checked."),
    ]
    comment: Annotated[str, Meta(description="What a model wrote beside the answer, checked and bounded; empty without one.")]
    notes: Annotated[list[str], Meta(description="What a reader must know about the answer and the comment.")]
    counts: Annotated[list[ValueCount], Meta(description="Counts by `by`, in the order of the answer.")]
    by: Annotated[
        str | None,
        Meta(description="Path of the field, or the interval, that is counted by; `query` for a comparison; null for no counts."),
    ]
    total: Annotated[Count | None, Meta(description="Number of all records that match; null where they were not counted.")]
    other: Annotated[int, Meta(ge=0, description="Number of records with values that `counts` does not name.")]
    missing: Annotated[int, Meta(ge=0, description="Number of records without the field.")]
    read: Annotated[
        Count | None, Meta(description="Number of the newest records whose values were counted, where that are not all.")
    ]
    conversation: Annotated[str | None, Meta(description="Conversation that the question belongs to; null where none is kept.")]


class Answer(_Answer):
    """The answer to a question: its query, sentences, and the records that they rest on."""

    records: Annotated[list[Record], Meta(max_length=100)]


class ViewerAnswer(_Answer):
    """The answer to a question by a viewer token."""

    records: Annotated[list[ViewedRecord], Meta(max_length=100)]
