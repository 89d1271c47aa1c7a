"""Records to search in: made up from edge cases, and real events where their folder is present."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from decklog.domain.intake import cloudtrail, kubernetes_audit
from decklog.domain.records.record import OUTCOMES, SEVERITIES, Prepared, prepare
from tests.support import real_events
from tests.support.strategies import ADDRESSES, KEYS, NOW, NUMBERS, TIMES, TRAPS, prepared

_FINGERPRINT_KEY = b"a key of the tests, of 32 bytes."
_LONG = ("x" * 9_000, "x" * 8_999 + "y", "policy " * 1_500)
"""Values that an index holds by their beginning and a hash."""


def _tree(source: random.Random, depth: int = 2) -> Any:
    roll = source.random()
    if depth and roll < 0.3:
        return {source.choice(KEYS): _tree(source, depth - 1) for _ in range(source.randint(0, 3))}
    if depth and roll < 0.4:
        return [_tree(source, depth - 1) for _ in range(source.randint(0, 3))]
    return source.choice(
        (source.choice(TRAPS), source.choice(TRAPS), source.choice(NUMBERS), source.randint(-20, 20), None, True)
    )


def _resource(source: random.Random) -> dict[str, str]:
    return {"type": source.choice(TRAPS)[:256], "id": source.choice(TRAPS), "name": source.choice(TRAPS)}


def made_up(source: random.Random) -> Prepared:
    """A record of edge cases."""
    value: dict[str, Any] = {
        "action": source.choice(("user.login", "user.logout", source.choice(TRAPS)[:256])),
        "actor": {"id": source.choice(TRAPS), "type": source.choice(TRAPS)[:256], "name": source.choice(TRAPS)},
        "occurred_at": source.choice(TIMES),
        "severity": str(source.choice(SEVERITIES)),
        "outcome": str(source.choice(OUTCOMES)),
    }
    optional: dict[str, Callable[[], Any]] = {
        "message": lambda: " ".join(source.choice(TRAPS) for _ in range(source.randint(0, 4))),
        "resource": lambda: _resource(source),
        "related": lambda: [_resource(source) for _ in range(source.randint(0, 2))],
        "source": lambda: {"ip": source.choice(ADDRESSES), "user_agent": source.choice(TRAPS)},
        "session_id": lambda: source.choice(TRAPS),
        "correlation_id": lambda: source.choice(TRAPS),
        "metadata": lambda: _tree(source),
        "before": lambda: _tree(source),
        "after": lambda: {"a": source.choice(_LONG), "password": "secret"} if source.random() < 0.1 else _tree(source),
    }
    return prepared({**value, **{name: make() for name, make in optional.items() if source.random() < 0.6}})


def real(source: random.Random, count: int) -> list[Prepared]:
    """Real events as importers store them; none where their folder is missing."""
    found: list[Prepared] = []
    for name, importer in (("cloudtrail_invictus.ndjson.gz", cloudtrail), ("k8s_audit.ndjson.gz", kubernetes_audit)):
        if not (real_events.FOLDER / name).exists():
            continue
        for value in source.sample(real_events.values(name), count):
            try:
                found.append(prepare(importer.record(value), now=NOW.replace(year=2030), fingerprint_key=_FINGERPRINT_KEY))
            except ValueError:
                continue  # an event that the importer refuses
    return found


def decoded(content: str) -> dict[str, Any]:
    """The JSON of a record as it is stored."""
    found: dict[str, Any] = msgspec.json.decode(content)
    return found
