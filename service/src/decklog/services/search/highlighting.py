"""Highlights of the records of one answer, as its JSON has them. Engines find records; this finds what made them match."""

from __future__ import annotations

import msgspec
from prometheus_client import Counter

from decklog.domain.records.record import StoredRecord
from decklog.domain.search.highlights import Highlighter, Highlights, Place
from decklog.domain.search.query import Query
from decklog.services.search.matching import UNREADABLE, decode, unreadable

ANSWER_BYTES_MAX = 1024 * 1024
"""Bytes of the highlights of one answer. Records after it has so many are given without places."""

_highlighted = Counter(
    "decklog_records_highlighted_total", "Records listed with their highlights, by whether all places are named.", ["whole"]
)
_whole, _cut = _highlighted.labels("true"), _highlighted.labels("false")


class _Item(msgspec.Struct, frozen=True):
    """The highlights of one record, by the names on the wire."""

    seq: int
    places: tuple[Place, ...]
    more: bool


class Highlighting:
    """Writes the highlights of the records of one answer, which come in their order."""

    def __init__(self, query: Query) -> None:
        self._highlighter = Highlighter(query.root)
        self._left = ANSWER_BYTES_MAX

    def __call__(self, record: StoredRecord) -> bytes:
        """Return the highlights of a record that matches, as JSON. Raises `record-damaged`."""
        found = self._found(record) if self._left > 0 else Highlights(more=True)
        written = msgspec.json.encode(_Item(record.seq, found.places, found.more))
        self._left -= len(written)
        (_cut if found.more else _whole).inc()
        return written

    def _found(self, record: StoredRecord) -> Highlights:
        try:
            return self._highlighter(decode(record.content), seq=record.seq, received_at=record.received_at)
        except UNREADABLE as error:
            raise unreadable(record) from error
