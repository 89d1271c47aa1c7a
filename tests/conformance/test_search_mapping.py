"""The mapping of an index is a contract with indices that exist: `VERSION` must grow with every change of it."""

from __future__ import annotations

import msgspec

from decklog.opensearch import documents, mapping

VERSION_3 = {
    "tenant_id": {"type": "keyword", "doc_values": False},
    "log": {"type": "keyword", "doc_values": False},
    "seq": {"type": "long"},
    "occurred_at": {"type": "long"},
    "occurred_ms": {"type": "date", "format": "epoch_millis", "index": False},
    "action": {"type": "keyword"},
    "actor": {"type": "keyword"},
    "resource_type": {"type": "keyword"},
    "severity": {"type": "keyword"},
    "outcome": {"type": "keyword"},
    "actor_type": {"type": "keyword", "doc_values": False},
    "resource_id": {"type": "keyword", "doc_values": False},
    "session_id": {"type": "keyword", "doc_values": False},
    "correlation_id": {"type": "keyword", "doc_values": False},
    "id": {"type": "keyword", "doc_values": False},
    "ip": {"type": "ip", "doc_values": False},
    **{
        key: {"type": "keyword", "doc_values": False}
        for key in (
            *("recorded_by", "recorded_by_type", "related", "related_type", "related_name", "masked"),
            *("leaves", "numbers", "paths", "index_refused"),
        )
    },
    **{
        key: {"type": "text", "analyzer": "whitespace", "norms": False}
        for key in ("words", "message", "user_agent", "actor_name", "resource_name")
    },
}


def test_mapping_is_the_one_of_its_version() -> None:
    wanted = {"dynamic": False, "_source": {"enabled": False}, "_meta": {"a": 1}, "properties": VERSION_3}
    assert mapping.mapping({"a": 1}) == wanted
    assert mapping.VERSION == 3


def test_document_has_the_fields_of_the_mapping() -> None:
    assert {field.encode_name for field in msgspec.structs.fields(documents._Document)} == set(mapping.PROPERTIES)
