"""Logs, and places in a log: positions, spans and heads."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple, Self

import msgspec

from decklog.domain.errors import Code, DecklogError

EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_encode = msgspec.json.Encoder().encode
_TOKEN = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})\.(-1|[0-9]{1,18})")
_SEQ = re.compile(r"-1|[0-9]{1,18}")


class LogName(IntEnum):
    """The two logs of each tenant. Storage holds the number."""

    EVENTS = 0
    ACCESS = 1

    @property
    def text(self) -> str:
        """The name in APIs: `events` or `access`."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> LogName:
        """Return the log of a name. Raises `invalid-parameter`."""
        for log in cls:
            if log.text == text:
                return log
        raise DecklogError(Code.INVALID_PARAMETER, f"log: {text!r} is not one of events, access.")


def microseconds(moment: datetime) -> int:
    """Return the microseconds from 1970-01-01 UTC to a moment, exactly."""
    return (moment - EPOCH_START) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """Return the moment that is so many microseconds after 1970-01-01 UTC. Raises OverflowError."""
    return EPOCH_START + timedelta(microseconds=value)


def rfc3339(moment: datetime) -> str:
    """Return a time in UTC with six digits, so that texts sort as times do: `2026-01-02T03:04:05.000006Z`."""
    moment = moment.astimezone(UTC)
    if moment.microsecond:
        return _encode(moment)[1:-1].decode()  # many times faster than isoformat, but omits a fraction of zero
    return moment.isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def rfc3339_seconds(moment: datetime) -> str:
    """Return the UTC time to the second, as Kubernetes writes times: `2026-01-02T03:04:05Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Position(msgspec.Struct, frozen=True, order=True):
    """The position of a record: epoch, receipt time and sequence number.

    Storage prunes partitions by the time, and the epoch tells a re-used number from the earlier one. The text form is
    `epoch.microseconds.seq`; `seq` -1 is the place before the first record.
    """

    epoch: int
    received_at: datetime
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{microseconds(self.received_at)}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self | int:
        """Return a position, or a bare `seq` as an int. Raises `invalid-parameter`."""
        if match := _TOKEN.fullmatch(text):
            epoch, received, seq = map(int, match.groups())
            try:
                return cls(epoch, from_microseconds(received), seq)
            except OverflowError:
                pass
        elif _SEQ.fullmatch(text):
            return int(text)
        raise DecklogError(
            Code.INVALID_PARAMETER,
            f"{text[:80]!r} is neither a position (epoch.microseconds.seq) nor a sequence number.",
        )


class Span(NamedTuple):
    """Sequence numbers of one log: `first <= seq < end`."""

    first: int
    end: int

    @property
    def empty(self) -> bool:
        """Whether no number lies within."""
        return self.first >= self.end


class Head(msgspec.Struct, frozen=True):
    """The head of a log, as one consistent reading of its row.

    `next_seq` is the number of the next record, and so the count of all records of the log. `received_at` is the last receipt time.
    """

    epoch: int
    next_seq: int
    received_at: datetime
