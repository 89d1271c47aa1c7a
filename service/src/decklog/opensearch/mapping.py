"""The shape of an index: one constant that provisioning creates, the indexer fills and the search asks.

An index only finds: a hit is a `seq`, and Postgres answers with the record. So there is no `_source`, and a field has
doc values only where it is sorted by or counted. What is only compared for equality is a keyword, numbers included
(`tenant_id`, `log` and `epoch` are written and asked as numbers all the same): a term look-up needs no range tree.
"""

from __future__ import annotations

import copy
from typing import Any

from decklog.domain.search.fields import FIELDS, Field, Kind

VERSION = 2
"""Grows with every change of the fields or of the alias. Provisioning puts what is new into older indices, so fields are only
added."""

_COMPARED = {"type": "keyword", "doc_values": False}
_COUNTED = {"type": "keyword"}

_NUMBER = {"type": "long"}


def _stored_as(field: Field) -> dict[str, Any]:
    """Return the mapping of a field by its kind."""
    match field.kind:
        case Kind.SINCE | Kind.UNTIL:
            # Whole microseconds since 1970, as exact as Postgres keeps them.
            return _NUMBER
        case Kind.KEYWORD | Kind.CHOICE | Kind.CHOICES:
            return _COUNTED if field.countable else _COMPARED
        case Kind.NETWORK:
            return {"type": "ip", "doc_values": False}
        case Kind.LEAVES:
            return _COMPARED
        case Kind.WORDS:
            # Distinct words, in an array or joined by spaces; the domain made them, and they are not analysed any further.
            return {"type": "text", "analyzer": "whitespace", "norms": False, "index_options": "docs"}


PROPERTIES: dict[str, dict[str, Any]] = {
    "tenant_id": _COMPARED,
    "log": _COMPARED,
    "epoch": _COMPARED,
    "seq": _NUMBER,
    "received_at": _NUMBER,
    # `occurred_at` cut to milliseconds, which is all that a `date` holds that may lie before 1970; for calendar intervals.
    "occurred_ms": {"type": "date", "format": "epoch_millis", "index": False},
    "actor_type": _COMPARED,
    **{field.term: _stored_as(field) for field in FIELDS},
}
"""The fields of a document, by name: its place, then its terms."""


def alias(index: str) -> str:
    """The name that an index is written under: only provisioning makes it, together with the index, and a bulk that requires an
    alias never makes an index by itself. No name of a tenant has a dot."""
    return f"{index}.write"


def new_index(index: str, meta: dict[str, Any], replicas: int) -> dict[str, Any]:
    """All that a new index is made of."""
    return {"settings": settings(replicas), "mappings": mapping(meta), "aliases": {alias(index): {}}}


def mapping(meta: dict[str, Any]) -> dict[str, Any]:
    """The mapping of an index with `meta` as its `_meta`."""
    return {"dynamic": False, "_source": {"enabled": False}, "_meta": meta, "properties": copy.deepcopy(PROPERTIES)}


def settings(replicas: int) -> dict[str, Any]:
    """Settings of a new index. Nothing is refreshed on a timer: the indexer refreshes what it wrote."""
    return {
        "index.number_of_shards": 1,
        "index.number_of_replicas": replicas,
        "index.refresh_interval": "-1",
    }
