"""The size of a bulk, and which of its refusals are about one record."""

from __future__ import annotations

from collections.abc import Sequence

from decklog.domain.errors import Code, DecklogError
from decklog.shapes import BulkItem

BATCH_RECORDS_MAX = 500
BATCH_BYTES_MAX = 8 * 1024 * 1024

_OF_RECORDS = {Code.INVALID_RECORD, Code.INVALID_JSON, Code.BODY_TOO_LARGE, Code.ID_CONFLICT}
"""Refusals of one record of a bulk. Any other in an item refuses a later part of the bulk, as an answer would the whole."""
_CODES = {code.value: code for code in Code}


def raise_refused(items: Sequence[BulkItem]) -> None:
    """Raise the refusal of a later part of a bulk. Sending the whole again is safe: each record has an id."""
    for item in items:
        if item.error is not None and item.error.code not in _OF_RECORDS:
            raise DecklogError(_CODES.get(item.error.code, Code.INTERNAL), item.error.detail)
