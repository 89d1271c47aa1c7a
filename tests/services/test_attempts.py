"""Refused attempts are recorded in the access log of the tenant that they name, and no flood of them can fill it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from decklog.domain.identity.access import RequestContext
from decklog.services.records import attempts as module
from decklog.services.records.attempts import KINDS_PER_TENANT_MAX, OTHERS, REFUSED, WINDOW_SECONDS, Attempt, Attempts
from tests.support.desk import REQUEST, Desk, desk


class Seconds:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def attempt(subject: str = "key-1", code: str = "forbidden") -> Attempt:
    return Attempt(code, "role auditor", "api_key", subject)


async def recorded(at: Desk, wanted: int) -> list[dict[str, Any]]:
    """Return the records of refused attempts once there are so many, and a while later."""
    for _ in range(200):
        found = [record for record in await at.accesses() if record["action"] == REFUSED]
        if len(found) >= wanted:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    return [record for record in await at.accesses() if record["action"] == REFUSED]


async def test_first_attempt_is_recorded_at_once_and_a_flood_as_one_record_per_minute() -> None:
    async with desk() as at:
        clock = Seconds()
        attempts = Attempts(at.ingest, monotonic=clock, tick=0.005)
        await attempts.start()
        attempts.note(at.acme, attempt(), REQUEST)
        [first] = await recorded(at, 1)
        assert (first["actor"], first["outcome"]) == ({"id": "key-1", "type": "api_key"}, "denied")
        assert first["source"] == {"ip": "192.0.2.7", "user_agent": "tests/1"}
        assert first["metadata"] == {"code": "forbidden", "reason": "role auditor", "count": 1}
        for _ in range(5_000):
            attempts.note(at.acme, attempt(), RequestContext("last", ip="192.0.2.9"))
        assert len(await recorded(at, 1)) == 1
        clock.now += WINDOW_SECONDS
        _, summary = await recorded(at, 2)
        assert (summary["metadata"]["count"], summary["source"]["ip"], summary["correlation_id"]) == (5_000, "192.0.2.9", "last")
        clock.now += WINDOW_SECONDS
        assert len(await recorded(at, 2)) == 2
        await attempts.stop()


async def test_credentials_beyond_the_bound_of_a_tenant_are_counted_together() -> None:
    async with desk() as at:
        attempts = Attempts(at.ingest, monotonic=Seconds(), tick=0.005)
        for number in range(10 * KINDS_PER_TENANT_MAX):
            attempts.note(at.acme, attempt(f"key-{number}"), REQUEST)
        attempts.note(at.rival, attempt("key-of-rival"), REQUEST)
        await attempts.start()
        found = await recorded(at, KINDS_PER_TENANT_MAX + 1)
        assert len(found) == KINDS_PER_TENANT_MAX + 1
        [others] = [record for record in found if record["actor"]["id"] == OTHERS]
        assert others["metadata"]["count"] == 9 * KINDS_PER_TENANT_MAX
        assert [record["actor"]["id"] for record in await at.accesses(at.rival)] == ["key-of-rival"]
        await attempts.stop()


async def test_kinds_beyond_the_bound_of_the_process_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KINDS_MAX", 3)
    async with desk() as at:
        attempts = Attempts(at.ingest, tick=0.005)
        for number in range(9):
            attempts.note(at.acme, attempt(f"key-{number}"), REQUEST)
        await attempts.start()
        assert len(await recorded(at, 3)) == 3
        await attempts.stop()


async def test_stop_records_what_is_counted() -> None:
    async with desk() as at:
        attempts = Attempts(at.ingest)
        for _ in range(7):
            attempts.note(at.acme, attempt(), REQUEST)
        await attempts.stop()
        [record] = [record for record in await at.accesses() if record["action"] == REFUSED]
        assert record["metadata"]["count"] == 7
