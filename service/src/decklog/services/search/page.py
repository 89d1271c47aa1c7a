"""Pages of a list: what a page holds, and the cursor that the next page is asked for with."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import sys
from collections.abc import Iterable, Sequence

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Position, from_microseconds, microseconds
from decklog.domain.records.record import StoredRecord
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

_CURSOR = re.compile(r"[A-Za-z0-9_-]{39}")
_CURSOR_FIELDS = struct.Struct(">BIqq8s")
"""Version, epoch, receipt time in microseconds, sequence number, fingerprint of the search."""
_CURSOR_VERSION = 1


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
        """Add further records, newest first; those beyond the page's room are left out.

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

    def end(self) -> tuple[list[StoredRecord], Position | None]:
        """Return the records, and the position before which the next page begins; None if this page is not full."""
        items = self._items[: self._limit]
        return items, Position(items[-1].epoch, items[-1].received_at, items[-1].seq) if self.full else None


def end_before(head: Head, before: Position | None) -> int:
    """Return the number below which a page begins: that of a position, or of the head.

    Raises:
        DecklogError: `invalid-cursor` for a position of another epoch.
    """
    if before is None:
        return head.next_seq
    if before.epoch != head.epoch or before.seq > head.next_seq:
        raise DecklogError(
            Code.INVALID_CURSOR, "cursor: the log was restored and re-uses sequence numbers. Start again without a cursor."
        )
    return before.seq


def _fingerprint(tenant: Tenant, log: LogName, query: Query) -> bytes:
    return hashlib.sha256(msgspec.json.encode((tenant.id, log, query))).digest()[:8]


def write_cursor(position: Position, tenant: Tenant, log: LogName, query: Query) -> str:
    """Return an opaque token for the page before `position` of exactly this search."""
    fields = (position.epoch, microseconds(position.received_at), position.seq, _fingerprint(tenant, log, query))
    return base64.urlsafe_b64encode(_CURSOR_FIELDS.pack(_CURSOR_VERSION, *fields)).decode().rstrip("=")


def read_cursor(token: str, tenant: Tenant, log: LogName, query: Query) -> Position:
    """Return the position of a cursor.

    Raises:
        DecklogError: `invalid-cursor` for another text, and for the cursor of another search.
    """
    if not _CURSOR.fullmatch(token):
        raise _no_cursor()
    version, epoch, received_at, seq, fingerprint = _CURSOR_FIELDS.unpack(base64.urlsafe_b64decode(token + "="))
    if version != _CURSOR_VERSION or seq < 0:
        raise _no_cursor()
    try:
        position = Position(epoch, from_microseconds(received_at), seq)
    except OverflowError:
        raise _no_cursor() from None
    if fingerprint != _fingerprint(tenant, log, query):
        raise DecklogError(
            Code.INVALID_CURSOR,
            "cursor: it belongs to a search with other filters. Repeat the filters, or start without a cursor.",
        )
    return position


def _no_cursor() -> DecklogError:
    return DecklogError(Code.INVALID_CURSOR, "cursor: this is not a cursor. Use the value of `next` of the previous page.")
