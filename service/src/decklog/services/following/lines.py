"""The logs that an advance works on, and how a batch is shared among them. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from enum import Enum

from decklog.domain.consumers import Cursor, LogKey, Standing
from decklog.domain.log import LogName, Span
from decklog.domain.records.record import StoredRecord
from decklog.domain.store import Reading
from decklog.domain.tenant import Tenant

TURN_RECORDS = 64
"""Records of one log in a batch while others wait: many small logs share a batch, and a few large ones take turns of a fair size."""


class Ended(Enum):
    """How the advance of a log ended."""

    DONE = "done"
    """The consumer has done every record of the log, or is stopping."""
    MORE = "more"
    """It did what there was time for, and the log may have more."""
    HELD = "held"
    """Another worker has the lease."""
    LOST = "lost"
    """Another worker took the lease or moved the cursor, and continues from there."""
    WAITING = "waiting"
    """It failed recently and is not tried again yet."""
    FAILED = "failed"


class Line:
    """A log during its advance: what of it has been read, applied and settled.

    `cap` is the number of records that may be read at once. A line that is `wary` is read without any other: it has failed by itself,
    and its cap grows with each success up to `records_max`. `until` is the time at which it is to end.
    """

    def __init__(self, tenant: Tenant, log: LogName, *, cap: int, records_max: int, until: float) -> None:
        self.tenant = tenant
        self.log = log
        self.cap = cap
        self.until = until
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        """Set when the advance is over and the lease has ended."""
        self.live = True
        self.error: Exception | None = None
        self.alone = False
        """True if the failure is its own, and not one of all logs that were tried with it."""
        self.cursor: Cursor | None = None
        self.moved = False
        """True if its cursor has moved."""
        self.leased_until = 0.0
        self.oldest: datetime | None = None
        """Receipt of the oldest record that is applied and not settled."""
        self.end = self.read_to = self.applied = 0
        self._records_max = records_max

    @property
    def key(self) -> LogKey:
        """The log."""
        return self.tenant.id, self.log

    @property
    def wary(self) -> bool:
        """True if the log is read without any other."""
        return self.cap < self._records_max

    @property
    def unread(self) -> int:
        """Numbers of the log that are known and not read."""
        return self.end - self.read_to

    @property
    def settled(self) -> int:
        """Records below this number are done."""
        return 0 if self.cursor is None else self.cursor.next_seq

    @property
    def idle(self) -> bool:
        """True if everything that is known of the log is done."""
        return self.settled == self.applied == self.read_to >= self.end

    def begin(self, standing: Standing) -> None:
        """Begin where the cursor is, under the lease that was taken."""
        self.cursor = standing.cursor
        self.read_to = self.applied = standing.cursor.next_seq
        self.end = max(standing.head_seq, self.read_to)

    def saw(self, head_seq: int) -> None:
        """Set the head of the log."""
        self.end = max(self.end, head_seq)

    def close(self) -> None:
        """Read nothing more."""
        self.end = self.read_to

    def back(self) -> None:
        """Forget what was read and not applied."""
        self.read_to = self.applied

    def reading(self, limit: int) -> Reading:
        """Return what to read next of the log."""
        return Reading(self.tenant, self.log, Span(self.read_to, self.end), limit)

    def has_applied(self, records: list[StoredRecord], onward: int) -> None:
        """Note that everything up to a number is applied."""
        self.applied = onward
        self.cap = min(self._records_max, 2 * self.cap)
        if self.oldest is None and records:
            self.oldest = records[0].received_at


def shares(lines: Iterable[Line], records_max: int) -> list[tuple[Line, int]]:
    """Return the logs of the next batch, each with the number of its records, from the logs in the order of their turns.

    Each gets up to `TURN_RECORDS`; what is left of `records_max` goes to the first that have more. A wary log is alone.
    """
    taken: list[tuple[Line, int]] = []
    room = records_max
    for line in lines:
        if line.unread <= 0 or room <= 0:
            continue
        if line.wary:
            if not taken:
                return [(line, min(line.cap, line.unread))]
            continue
        share = min(TURN_RECORDS, line.unread, room)
        taken.append((line, share))
        room -= share
    return _filled(taken, room)


def _filled(taken: list[tuple[Line, int]], room: int) -> list[tuple[Line, int]]:
    filled: list[tuple[Line, int]] = []
    for line, share in taken:
        more = min(line.unread - share, room)
        filled.append((line, share + more))
        room -= more
    return filled
