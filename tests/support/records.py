"""Records for tests, made the way the service makes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from decklog.domain.records.record import Prepared, decode, prepare

FINGERPRINT_KEY = b"a key of at least thirty-two bytes"


def body(**fields: Any) -> bytes:
    """A record as a client sends it; `fields` are put over a small complete one. None takes a field away."""
    record: dict[str, Any] = {
        "action": "document.create",
        "actor": {"id": "alice", "type": "user"},
        "resource": {"type": "document", "id": "42"},
        **fields,
    }
    return json.dumps({name: value for name, value in record.items() if value is not None}).encode()


def prepared(**fields: Any) -> Prepared:
    return prepare(decode(body(**fields)), now=datetime.now(UTC), fingerprint_key=FINGERPRINT_KEY)
