"""Records for tests, prepared as the service prepares them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from decklog.domain.records.record import Prepared, RecordInput, decode, prepare

FINGERPRINT_KEY = b"a key of at least thirty-two bytes"


def body(**fields: Any) -> bytes:
    """Return a record as a client sends it: a small complete one, with `fields` replaced, and removed where they are None."""
    record: dict[str, Any] = {
        "action": "document.create",
        "actor": {"id": "alice", "type": "user"},
        "resource": {"type": "document", "id": "42"},
        **fields,
    }
    return json.dumps({name: value for name, value in record.items() if value is not None}).encode()


def prepared(**fields: Any) -> Prepared:
    return prepare(decode(body(**fields)), now=datetime.now(UTC), fingerprint_key=FINGERPRINT_KEY)


def stored(made: RecordInput) -> dict[str, Any]:
    """The content that the server stores of a record that a client sends."""
    sent = decode(msgspec.json.encode(made))
    content = msgspec.json.decode(prepare(sent, now=datetime.now(UTC), fingerprint_key=FINGERPRINT_KEY).content)
    assert isinstance(content, dict)
    return content
