"""The understanding of a question: an expert, one query of the query language, and the words that it rests on.

Every word of a question is in `understood`, in `not_understood`, or in the closed list of words without a meaning of their own. The query
is text of the query language, so a person can read and edit it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from decklog.domain.log import LogName


class Expert(StrEnum):
    """The way in which a question is answered."""

    FIND = "find"
    """The records themselves."""
    COUNT = "count"
    """How many records, as a whole or by the values of one field."""
    COMPARE = "compare"
    """Two counts, and their difference."""
    TIMELINE = "timeline"
    """Counts by intervals of time."""
    STORY = "story"
    """The records in their order, with who took part."""
    TOP = "top"
    """The most frequent values of one field."""


class Order(StrEnum):
    """The order of records in an answer, by the time of the event."""

    NEWEST = "newest"
    OLDEST = "oldest"


class Piece(msgspec.Struct, frozen=True):
    """A part of a question, in characters from `start` up to, but not including, `end`, and what it is understood as."""

    start: int
    end: int
    text: str
    meaning: str


class Unread(msgspec.Struct, frozen=True):
    """A part of a question that is not understood, in characters from `start` up to, but not including, `end`."""

    start: int
    end: int
    text: str


class Understanding(msgspec.Struct, frozen=True, kw_only=True):
    """The understanding of a question.

    `query` is empty for all records. `group_by` is a path of a record whose values are counted, and `interval` one of
    `decklog.domain.search.calendar.INTERVALS`; None without. `zone` is an IANA name. `compare` has the two queries of a comparison, in the
    order of the question, and None for every other expert. `limit` is the number of records, or of values.
    """

    expert: Expert
    query: str
    log: LogName = LogName.EVENTS
    group_by: str | None = None
    interval: str | None = None
    zone: str = "UTC"
    order: Order = Order.NEWEST
    limit: int = 20
    understood: tuple[Piece, ...] = ()
    not_understood: tuple[Unread, ...] = ()
    compare: tuple[str, str] | None = None
