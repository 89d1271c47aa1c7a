"""What an answer of a search covers: how far the log and its index reach, and which engine found the records."""

from __future__ import annotations

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head

POSTGRES = "postgres"
OPENSEARCH = "opensearch"


class Coverage(msgspec.Struct, frozen=True):
    """The bounds of an answer.

    The answer is whole up to `head`. Records with `indexed_from <= seq < indexed` were findable by the index and Postgres looked
    through all others; without an index the span is all records. `engine` is `POSTGRES` or `OPENSEARCH`.
    """

    head: Head
    indexed_from: int
    indexed: int
    engine: str


def too_slow() -> DecklogError:
    """Return the refusal of a search that ran out of time."""
    return DecklogError(
        Code.SEARCH_UNAVAILABLE,
        "The search took too long. Narrow the time range with `from` and `to`, or filter by actor, action or resource.",
        retry_after=1,
    )
