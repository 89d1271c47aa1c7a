"""A log, and the places in it: what everything that points into a log has in common."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple, Self

import msgspec

from decklog.domain.errors import Code, DecklogError

_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_encode = msgspec.json.Encoder().encode
_TOKEN = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})\.(-1|[0-9]{1,18})")
_SEQ = re.compile(r"-1|[0-9]{1,18}")


class LogName(IntEnum):
    """The two logs of each tenant. The number is what storage holds."""

    EVENTS = 0
    ACCESS = 1

    @property
    def text(self) -> str:
        """Its name on the wire."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> LogName:
        """Raises `invalid-parameter`."""
        for log in cls:
            if log.text == text:
                return log
        raise DecklogError(Code.INVALID_PARAMETER, f"log={text!r}: a tenant has the logs 'events' and 'access'.")


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970-01-01 UTC, exactly."""
    return (moment - _EPOCH_START) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    return _EPOCH_START + timedelta(microseconds=value)


def rfc3339(moment: datetime) -> str:
    """UTC, always with six digits, so that text and time order alike: `2026-01-02T03:04:05.000006Z`."""
    moment = moment.astimezone(UTC)
    if moment.microsecond:
        return _encode(moment)[1:-1].decode()  # many times faster than isoformat, but without a fraction of zero
    return moment.isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def rfc3339_seconds(moment: datetime) -> str:
    """Return the UTC time to the second, as Kubernetes writes times: `2026-01-02T03:04:05Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Position(msgspec.Struct, frozen=True, order=True):
    """Where a record is: in which life of its log, when it was received, and its number.

    All three, so that storage can prune by time and a number that is used again in a later epoch is not mistaken.
    The text form is `epoch.microseconds.seq`; `seq` -1 is the place before the first record.
    """

    epoch: int
    received_at: datetime
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{microseconds(self.received_at)}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self | int:
        """A position, or a bare `seq` as an int. Raises `invalid-parameter`."""
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
    """How far a log has come, as one consistent reading of its head row.

    `next_seq` is the number that the next record gets, so it is also how many records the log has had.
    """

    epoch: int
    next_seq: int
    received_at: datetime
