"""Filtering stored records by the matcher of the domain, and mostly without having to parse them.

The matcher alone decides; but what it needs of a record costs a hundred times more than looking for a text in another.
So a record is first asked for texts without which it cannot match.
"""

from __future__ import annotations

from typing import Any

import msgspec

from decklog.domain.records.record import StoredRecord
from decklog.domain.search.fields import Kind
from decklog.domain.search.query import Query, matches
from decklog.domain.search.terms import Terms, terms

_decode = msgspec.json.Decoder(dict[str, Any]).decode

_CONTEXTUAL = frozenset("\u03c3\u03c2")
"""Sigma is lower-cased by its place in the word, and JSON's escapes can change what stands before it."""


def _as_written(value: str) -> str:
    """A text as canonical JSON writes it, without the quotes."""
    return msgspec.json.encode(value).decode()[1:-1]


def terms_of(record: StoredRecord) -> Terms:
    return terms(_decode(record.content))


class Matcher:
    """Says which records a query asks for. Made once for many records."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self._texts = [_as_written(wanted.value) for wanted in query.filters if wanted.field.kind is Kind.KEYWORD]
        self._texts += [_as_written(value) for _, value in query.fields]
        self._words = [word for word in query.words if not _CONTEXTUAL & set(word)]

    def possible(self, record: StoredRecord) -> bool:
        """False only where the record cannot match; cheap."""
        content = record.content
        if not all(text in content for text in self._texts):
            return False
        if not self._words:
            return True
        lowered = content.lower()
        return all(word in lowered for word in self._words)

    def __call__(self, record: StoredRecord) -> bool:
        """Whether the query asks for this record."""
        return self.query.empty or (self.possible(record) and matches(self.query, terms_of(record)))
