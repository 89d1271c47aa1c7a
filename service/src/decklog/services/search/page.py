"""Pages of a list: what a page holds, and the cursor that the next page is asked for with."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Sequence

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Position, from_microseconds, microseconds
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.query import Query
from decklog.domain.store import READ_BYTES_MAX
from decklog.domain.tenant import Tenant

PAGE_CHARS_MAX = READ_BYTES_MAX
"""Characters of content in one page: it ends with the reading that fills it, however many records were asked for."""

_CURSOR = re.compile(r"[A-Za-z0-9_-]{39}")
_CURSOR_FIELDS = struct.Struct(">BIqq8s")
"""Version, epoch, receipt time in microseconds, sequence number, fingerprint of the search."""
_CURSOR_VERSION = 1


class Page:
    """The records of a page of at most `limit`, and one more, which shows that another page follows."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chars = 0
        self._items: list[StoredRecord] = []

    @property
    def wanting(self) -> int:
        """Records that the page has room for."""
        return self._limit + 1 - len(self._items)

    @property
    def full(self) -> bool:
        """Whether the page holds enough records, or enough content."""
        return self.wanting <= 0 or self._chars >= PAGE_CHARS_MAX

    def add(self, records: Sequence[StoredRecord]) -> None:
        """Add further records, newest first; those beyond the page's room are left out."""
        taken = records[: self.wanting]
        self._items += taken
        self._chars += sum(len(record.content) for record in taken)

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
