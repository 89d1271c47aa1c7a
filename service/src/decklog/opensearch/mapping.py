"""The shape of an index: one constant that provisioning creates, the indexer fills and the search asks.

An index only finds: a hit is a `seq`, and Postgres answers with the record. So there is no `_source`, and a field has
doc values only where it is sorted by or counted. What is only compared for equality is a keyword, numbers included
(`tenant_id`, `log` and `epoch` are written and asked as numbers all the same): a term look-up needs no range tree.
"""

from __future__ import annotations

import copy
from typing import Any

VERSION = 2
"""Grows with every change of the fields or of the alias. Provisioning puts what is new into older indices, so fields are only
added."""

_COMPARED = {"type": "keyword", "doc_values": False}
_COUNTED = {"type": "keyword"}

FIELDS: dict[str, dict[str, Any]] = {
    "tenant_id": _COMPARED,
    "log": _COMPARED,
    "epoch": _COMPARED,
    "seq": {"type": "long"},
    # Times are whole microseconds since 1970, as exact as Postgres keeps them.
    "received_at": {"type": "long"},
    "occurred_at": {"type": "long"},
    # The same moment cut to milliseconds, which is all a `date` holds that may lie before 1970; for calendar intervals.
    "occurred_ms": {"type": "date", "format": "epoch_millis", "index": False},
    "action": _COUNTED,
    "actor": _COUNTED,
    "resource_type": _COUNTED,
    "severity": _COUNTED,
    "outcome": _COUNTED,
    "actor_type": _COMPARED,
    "resource_id": _COMPARED,
    "session_id": _COMPARED,
    "correlation_id": _COMPARED,
    "id": _COMPARED,
    "ip": {"type": "ip", "doc_values": False},
    # Leaves of `metadata` as `path=value`.
    "fields": _COMPARED,
    # Distinct words, in an array or joined by spaces; they were made by the domain and are not analysed any further.
    "words": {"type": "text", "analyzer": "whitespace", "norms": False, "index_options": "docs"},
}
"""Every field of a document, by name."""


def alias(index: str) -> str:
    """The name that an index is written under: only provisioning makes it, together with the index, and a bulk that requires an
    alias never makes an index by itself. No name of a tenant has a dot."""
    return f"{index}.write"


def new_index(index: str, meta: dict[str, Any], replicas: int) -> dict[str, Any]:
    """All that a new index is made of."""
    return {"settings": settings(replicas), "mappings": mapping(meta), "aliases": {alias(index): {}}}


def mapping(meta: dict[str, Any]) -> dict[str, Any]:
    """The mapping of an index with `meta` as its `_meta`."""
    return {"dynamic": False, "_source": {"enabled": False}, "_meta": meta, "properties": copy.deepcopy(FIELDS)}


def settings(replicas: int) -> dict[str, Any]:
    """Settings of a new index. Nothing is refreshed on a timer: the indexer refreshes what it wrote."""
    return {
        "index.number_of_shards": 1,
        "index.number_of_replicas": replicas,
        "index.refresh_interval": "-1",
    }
