"""Pages of a list: what a page holds, and the cursor that the next page is asked for with."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Span, from_microseconds, microseconds
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.order import NEWEST_FIRST, Order, Place
from decklog.domain.search.query import Query
from decklog.domain.store import READ_BYTES_MAX
from decklog.domain.tenant import Tenant
from decklog.services.budget import Held

PAGE_BYTES_MAX = READ_BYTES_MAX
"""Memory of the contents of one page: it ends with the record that fills it, however many records were asked for."""
READING, READING_BYTES_MAX = "readings", 96 * 1024 * 1024
"""Label, and default size in bytes, of the budget of pages, exports and streams."""
RECORD_BYTES = 400
"""Memory of a record beside its content."""

_CURSOR = re.compile(r"[A-Za-z0-9_-]{50}")
_CURSOR_FIELDS = struct.Struct(">BIqqq8s")
"""Version, epoch, time in microseconds, sequence number, end of the list, fingerprint of the list."""
_CURSOR_VERSION = 2


def memory_of(records: Iterable[StoredRecord]) -> int:
    """Return the bytes of memory that records occupy: up to four for each character of their contents."""
    return sum([sys.getsizeof(record.content) + RECORD_BYTES for record in records])


class Page:
    """The records of a page of at most `limit`, and one more, which shows that another page follows.

    `held` accounts for their memory, where it is given.
    """

    def __init__(self, limit: int, held: Held | None = None) -> None:
        self._limit = limit
        self._held = held
        self._bytes = 0
        self._items: list[StoredRecord] = []

    @property
    def wanting(self) -> int:
        """Records that the page has room for."""
        return self._limit + 1 - len(self._items)

    @property
    def full(self) -> bool:
        """Whether the page holds enough records, or enough content."""
        return self.wanting <= 0 or self._bytes >= PAGE_BYTES_MAX

    def add(self, records: Sequence[StoredRecord]) -> None:
        """Add further records, in the order of the list; those beyond the page's room are left out.

        Raises:
            DecklogError: `overloaded` where the tenant holds too many bytes already.
        """
        taken = records[: self.wanting]
        size = memory_of(taken)
        if self._bytes + size > PAGE_BYTES_MAX:
            taken = self._filling(taken)
            size = memory_of(taken)
        if self._held is not None:
            self._held.take(size)
        self._bytes += size
        self._items += taken

    def _filling(self, records: Sequence[StoredRecord]) -> Sequence[StoredRecord]:
        """Return the first records, up to the one that fills the page."""
        size = self._bytes
        for count, record in enumerate(records):
            if size >= PAGE_BYTES_MAX:
                return records[:count]
            size += memory_of([record])
        return records

    def clear(self) -> None:
        """Remove all records."""
        if self._held is not None:
            self._held.give(self._bytes)
        self._bytes = 0
        self._items.clear()

    def end(self) -> tuple[list[StoredRecord], StoredRecord | None]:
        """Return the records, and the last of them if another page follows."""
        items = self._items[: self._limit]
        return items, items[-1] if self.full else None


class Start(msgspec.Struct, frozen=True):
    """Where a page begins: after the record `seq` of an epoch. `time` is its receipt, or where the list is sorted by it, `occurred_at`.

    In the order of `occurred_at`, only records below `end` belong to the list: later ones would appear on pages that were read already.
    """

    epoch: int
    time: datetime
    seq: int
    end: int = 0


def within(head: Head, order: Order, start: Start | None) -> tuple[Span, Place | None]:
    """Return the span of the records that a page may hold, and the place after which it begins in the order of `occurred_at`.

    Raises:
        DecklogError: `invalid-cursor` for a start in another epoch.
    """
    everything = Span(0, head.next_seq)
    if start is None:
        return everything, None
    if start.epoch != head.epoch or start.seq > head.next_seq or start.end > head.next_seq:
        raise DecklogError(
            Code.INVALID_CURSOR, "cursor: the log was restored and re-uses sequence numbers. Start again without a cursor."
        )
    if order.by_time:
        return Span(0, start.end), Place(start.time, start.seq)
    return (Span(0, start.seq) if order.newest_first else Span(start.seq + 1, head.next_seq)), None


class ListQuery(msgspec.Struct, frozen=True):
    """What a cursor belongs to: the filters of a list, its order, and the position that it begins after."""

    tenant: Tenant
    log: LogName
    query: Query
    order: Order = NEWEST_FIRST
    after: str | None = None

    def fingerprint(self) -> bytes:
        """Return what differs between two lists."""
        return hashlib.sha256(
            msgspec.json.encode((self.tenant.id, self.log, self.query.text, str(self.order), self.after))
        ).digest()[:8]


def write_cursor(start: Start, of: ListQuery) -> str:
    """Return an opaque token for the page after `start` of exactly this list."""
    fields = (start.epoch, microseconds(start.time), start.seq, start.end, of.fingerprint())
    return base64.urlsafe_b64encode(_CURSOR_FIELDS.pack(_CURSOR_VERSION, *fields)).decode().rstrip("=")


def read_cursor(token: str, of: ListQuery) -> Start:
    """Return where the page of a cursor begins.

    Raises:
        DecklogError: `invalid-cursor` for another text, and for the cursor of another list.
    """
    if not _CURSOR.fullmatch(token):
        raise _no_cursor()
    version, epoch, time, seq, end, fingerprint = _CURSOR_FIELDS.unpack(base64.urlsafe_b64decode(token + "=="))
    if version != _CURSOR_VERSION or seq < 0 or end < 0:
        raise _no_cursor()
    try:
        start = Start(epoch, from_microseconds(time), seq, end)
    except OverflowError:
        raise _no_cursor() from None
    if fingerprint != of.fingerprint():
        raise DecklogError(
            Code.INVALID_CURSOR,
            "cursor: it belongs to a list with other filters or another order. Repeat all parameters, or start without a cursor.",
        )
    return start


def _no_cursor() -> DecklogError:
    return DecklogError(Code.INVALID_CURSOR, "cursor: this is not a cursor. Use the value of `next` of the previous page.")
