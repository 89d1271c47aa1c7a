"""Payloads of the benchmarks: records of realistic size and shape with unique ids."""

from __future__ import annotations

import json
import random

from tests.bench.load import PLACE

_SEED = 20_260_101
_ACTIONS = ("document.read", "document.update", "document.create", "user.login", "role.grant", "api_key.create")


def record(number: int, identifier: str) -> bytes:
    """Return one record of about 500 bytes. The same number gives the same record."""
    chance = random.Random(_SEED + number)
    return json.dumps(
        {
            "id": identifier,
            "action": chance.choice(_ACTIONS),
            "actor": {"type": "user", "id": f"user-{chance.randrange(5_000)}", "name": "A Person of That Name"},
            "resource": {"type": "document", "id": f"document-{chance.randrange(50_000)}"},
            "occurred_at": "2026-01-02T03:04:05.678Z",
            "severity": "INFO",
            "outcome": "success",
            "message": "The document was opened in the editor",
            "source": {"ip": f"10.1.{chance.randrange(250)}.{chance.randrange(250)}", "user_agent": "Mozilla/5.0 (X11; Linux)"},
            "session_id": f"session-{chance.randrange(10_000)}",
            "correlation_id": f"{chance.getrandbits(128):032x}",
            "metadata": {"region": "eu-central-1", "plan": "enterprise", "attempt": 1, "labels": ["finance", "internal"]},
        },
        separators=(",", ":"),
    ).encode()


def single(number: int) -> bytes:
    """Return a record whose id has the load generator's number."""
    return record(number, f"bench-{PLACE.decode()}")


def bulk(number: int, records: int, *, lines: bool) -> bytes:
    """Return a bulk as NDJSON or as a JSON array. Ids contain the number of the request and of the record."""
    made = [record(number * records + i, f"bench-{PLACE.decode()}-{i}") for i in range(records)]
    return b"\n".join(made) if lines else b"[" + b",".join(made) + b"]"
