"""The mapping and settings of an index: provisioning creates them, the indexer writes by them, and searches read by them.

An index only finds: a hit is a `seq`, and Postgres answers with the record. So documents have no `_source`, and a field has doc
values only if it is sorted or counted. A field that is only compared for equality is a keyword, even if its values are numbers
(`tenant_id`, `log`): a term look-up needs no range tree.
"""

from __future__ import annotations

import copy
from typing import Any

from decklog.domain.search.fields import FIELDS, Field, Kind

VERSION = 3
"""Grows with every change of the fields, the settings that cannot be changed, or the aliases. A newer version gets a generation of its own."""

META = "decklog"
"""Key of the owner's mark in the `_meta` of a mapping."""

_COMPARED = {"type": "keyword", "doc_values": False}
_COUNTED = {"type": "keyword"}

_NUMBER = {"type": "long"}


def _stored_as(field: Field) -> dict[str, Any]:
    """Return the mapping of a field by its kind."""
    match field.kind:
        case Kind.SINCE | Kind.UNTIL | Kind.SEQ | Kind.RECEIPT:
            # Microseconds since 1970, as exact as in Postgres.
            return _NUMBER
        case Kind.KEYWORD | Kind.CHOICE | Kind.CHOICES:
            return _COUNTED if field.countable else _COMPARED
        case Kind.NETWORK:
            return {"type": "ip", "doc_values": False}
        case Kind.KEYWORDS | Kind.LEAVES:
            return _COMPARED
        case Kind.TEXT | Kind.WORDS:
            # Tokens of each text, joined by spaces; the domain splits texts, so the analyzer only splits at spaces.
            # Their positions are kept, which is the default: an index does not tell defaults, so naming one would look like drift.
            return {"type": "text", "analyzer": "whitespace", "norms": False}


PROPERTIES: dict[str, dict[str, Any]] = {
    "tenant_id": _COMPARED,
    "log": _COMPARED,
    "seq": _NUMBER,
    # `occurred_at` in milliseconds, the finest `date` that may lie before 1970; for calendar intervals.
    "occurred_ms": {"type": "date", "format": "epoch_millis", "index": False},
    # Names of the fields that the index refused of this record.
    "index_refused": _COMPARED,
    # Numbers among the leaves, in an order-preserving text, so that a range of numbers is a range of terms.
    "numbers": _COMPARED,
    # Paths of all values of `metadata`, `before` and `after`.
    "paths": _COMPARED,
    **{field.indexed: _stored_as(field) for field in FIELDS},
}
"""The fields of a document, by name: the place of its record, and its terms."""


def write_alias(range_index: str) -> str:
    """Return the alias that the index of a range is written under.

    It is created together with the index, and bulks require it; so a bulk never creates an index.
    """
    return f"{range_index}.write"


def aliases(range_index: str) -> tuple[str, str]:
    """Return the aliases of a range: the one that it is written under, and that of its generation, by which searches read."""
    return write_alias(range_index), range_index.rpartition(".")[0]


def new_index(range_index: str, meta: dict[str, Any], replicas: int) -> dict[str, Any]:
    """Return the body of the request that creates the index of a range. `meta` becomes its `_meta`."""
    return {
        "settings": settings(replicas),
        "mappings": mapping(meta),
        "aliases": {name: {} for name in aliases(range_index)},
    }


def mapping(meta: dict[str, Any]) -> dict[str, Any]:
    """Return the mapping of an index with `meta` as its `_meta`."""
    return {"dynamic": False, "_source": {"enabled": False}, "_meta": meta, "properties": copy.deepcopy(PROPERTIES)}


def settings(replicas: int) -> dict[str, Any]:
    """Return the settings of a new index. The indexer refreshes after it has written, so there is no timer."""
    return {
        "index.number_of_shards": 1,
        "index.number_of_replicas": replicas,
        "index.refresh_interval": "-1",
    }
