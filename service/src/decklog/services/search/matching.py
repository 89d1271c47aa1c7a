"""Matching of stored records, mostly without decoding them.

`domain.search.query.matches` decides. Decoding a record costs a hundred times more than a text search in its content, so a record
must first contain the texts without which it cannot match.
"""

from __future__ import annotations

from typing import Any

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.record import StoredRecord
from decklog.domain.search import patterns, tree
from decklog.domain.search.names import field_at
from decklog.domain.search.query import Query, matches
from decklog.domain.search.terms import Terms, terms

# msgspec itself may take 40 microseconds for one number (`1.5e300`); Python never does.
decode = msgspec.json.Decoder(dict[str, Any], float_hook=float).decode
UNREADABLE = (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError)
"""Errors of a content that is not that of a record any more."""


def unreadable(record: StoredRecord) -> DecklogError:
    """Return the error of a record whose content is not that of a record any more."""
    return DecklogError(
        Code.RECORD_DAMAGED,
        f"The content of record {record.seq} cannot be read: it was changed in the database. Tell the operators of this service.",
        extra={"seq": record.seq},
    )


def _as_written(value: str) -> str:
    """Return a text as canonical JSON writes it, without the quotes."""
    return msgspec.json.encode(value).decode()[1:-1]


def terms_of(record: StoredRecord, query: Query | None = None) -> Terms:
    """Return the terms of a stored record; with a query, only those that it needs.

    Raises `record-damaged` where its content is not that of a record any more.
    """
    try:
        content = decode(record.content)
        leaves, texts = (True, True) if query is None else (query.needs_leaves, query.needs_texts)
        return terms(content, seq=record.seq, received_at=record.received_at, with_leaves=leaves, with_texts=texts)
    except UNREADABLE as error:
        raise unreadable(record) from error


def chars(record: StoredRecord) -> int:
    """Return the characters of a record, on which the time of its matching depends."""
    return len(record.content)


def _values(query: Query) -> list[str]:
    """Return the texts that the content of every match contains as they are."""
    found: list[str] = []
    for node in query.conjuncts:
        match node:
            case tree.Equal() if not field_at(node.field).choices:
                found.append(node.value)
            case tree.Pattern():
                found += patterns.literals(node.parts)
    return [_as_written(value) for value in found if value]


def _words(query: Query) -> list[str]:
    """Return the texts that the content of every match contains in lower case, if it is ASCII."""
    found: list[str] = []
    for node in query.conjuncts:
        match node:
            case tree.Phrase():
                found += node.words
            case tree.WordPattern():
                found += patterns.literals(node.parts)
    return list(dict.fromkeys(found))


class Matcher:
    """Decides which records match one query; make it once for many records."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self._texts = _values(query)
        self._words = _words(query)

    def possible(self, record: StoredRecord) -> bool:
        """Return False if the record cannot match; cheap. A True must be checked."""
        content = record.content
        if not all(text in content for text in self._texts):
            return False
        if not self._words or not content.isascii():
            return True  # of other characters, an accent or another form may hide a word
        lowered = content.lower()
        return all(word in lowered for word in self._words)

    def terms(self, record: StoredRecord) -> Terms | None:
        """Return the terms of a record that matches, as far as the query needs them; None for one that does not."""
        if not self.possible(record):
            return None
        found = terms_of(record, self.query)
        return found if matches(self.query, found) else None

    def __call__(self, record: StoredRecord) -> bool:
        """Return whether the record matches."""
        return self.query.empty or self.terms(record) is not None
