"""Ingest as tenants share it: parts of bulks, bytes of bodies, and records that take long to prepare."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from decklog.domain.errors import DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest, Receipt, Status
from decklog.domain.tenant import Limits
from decklog.services.budget import Budget
from tests.support.api_world import RECORD, World, code_of, connect
from tests.support.memory import make_tenant

FLOATS = b'{"action":"a","actor":{"id":"x"},"metadata":[' + b",".join([b"1.5e300"] * 29_000) + b"]}"
"""A record of nearly 256 KiB, as many floats as fit."""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_appends_of_another_tenant_pass_between_the_parts_of_a_bulk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int]] = []
    store = world.store.append

    async def append(requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        order.extend((request.tenant.name, len(request.records)) for request in requests)
        if any(len(request.records) > 1 for request in requests):
            await until(lambda: bool(world.ingest._queue))  # an append of the other tenant waits for the next group
        return await store(requests)

    monkeypatch.setattr(world.store, "append", append)
    async with world.client(Role.WRITER) as client, world.client(Role.WRITER, "other") as other:
        bulk = asyncio.create_task(client.post("/api/v1/logs/bulk", json=[RECORD] * 2_200))
        while not bulk.done():
            assert (await other.post("/api/v1/logs", json=RECORD)).status_code == 201
        assert [item["seq"] for item in (await bulk).json()["items"]] == list(range(2_200))
    parts = [at for at, (tenant, _) in enumerate(order) if tenant == "acme"]
    assert [order[at][1] for at in parts] == [500, 500, 500, 500, 200]
    assert all(after - before > 1 for before, after in pairwise(parts))


async def test_bulk_refused_after_its_first_parts_says_so_on_each_record_and_when_to_retry(world: World) -> None:
    world.add(make_tenant("small"), events_per_second=1, burst=1_200)
    async with world.client(Role.WRITER, "small") as client:
        answer = await client.post("/api/v1/logs/bulk", json=[{**RECORD, "id": f"{n}"} for n in range(1_600)])
        assert answer.status_code == 200
        result = answer.json()
        assert (result["stored"], result["rejected"]) == (1_000, 600)
        assert [item["status"] for item in result["items"]] == ["stored"] * 1_000 + ["rejected"] * 600
        assert {item["error"]["code"] for item in result["items"][1_000:]} == {"rate-limited"}
        assert int(answer.headers["retry-after"]) > 100
        again = await client.post("/api/v1/logs/bulk", json=[{**RECORD, "id": f"{n}"} for n in range(1_600)])
        assert (again.status_code, code_of(again)) == (429, "rate-limited")
        atomic = await client.post("/api/v1/logs/bulk?atomic=true", json=[RECORD] * 1_300)
        assert (atomic.status_code, code_of(atomic)) == (422, "batch-exceeds-burst")


def stalled(world: World, tenant: str, size: int) -> socket.socket:
    """Send a bulk but for its last byte, and return the connection."""
    connection = connect(world)
    head = (
        f"POST /api/v1/logs/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.keys[tenant, Role.WRITER]}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    )
    connection.sendall(head.encode() + b" " * (size - 1))
    return connection


async def test_stalled_bodies_of_one_tenant_hold_a_share_and_are_given_back(world: World) -> None:
    world.ingest.bodies = Budget(3_000_000, of="bodies")
    bodies = world.ingest.bodies
    one, acme = 400_000, world.tenant("acme").id
    async with world.client(Role.WRITER) as client, world.client(Role.WRITER, "other") as other:
        open_ = [await asyncio.to_thread(stalled, world, "acme", one) for _ in range(2)]
        await until(lambda: bodies.held == 2 * (one - 1))
        kind = {"Content-Type": "application/json"}
        refused = await client.post("/api/v1/logs/bulk", content=b" " * one, headers=kind)
        assert (refused.status_code, code_of(refused)) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        packed = gzip.compress(json.dumps([{**RECORD, "message": "x" * 8_000}] * 60).encode())
        unpacked = await client.post("/api/v1/logs/bulk", content=packed, headers={**kind, "Content-Encoding": "gzip"})
        assert (unpacked.status_code, code_of(unpacked)) == (503, "overloaded")
        assert (await client.post("/api/v1/logs", json=RECORD)).status_code == 201
        assert (await other.post("/api/v1/logs/bulk", json=[RECORD] * 1_000)).status_code == 200
        assert bodies.held_by(acme) == bodies.held
        for connection in open_:
            connection.close()
        await until(lambda: bodies.held == 0)
        again = await client.post("/api/v1/logs/bulk", content=packed, headers={**kind, "Content-Encoding": "gzip"})
        assert (again.status_code, again.json()["stored"], bodies.held) == (200, 60, 0)


async def test_bytes_of_a_tenant_run_out_whatever_the_number_of_its_records(world: World) -> None:
    world.add(make_tenant("slow", limits=Limits(bytes_per_second=65_536)))
    packed = gzip.compress(json.dumps([{**RECORD, "message": "x" * 8_000}] * 80).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with world.client(Role.WRITER, "slow") as client:
        assert (await client.post("/api/v1/logs/bulk", content=packed, headers=headers)).json()["stored"] == 80
        for _ in range(2):
            refused = await client.post("/api/v1/logs/bulk", content=packed, headers=headers)
            assert (refused.status_code, code_of(refused)) == (429, "rate-limited")
            assert "65536 bytes per second" in refused.json()["detail"]
            assert refused.headers["ratelimit-policy"] == '"bytes";q=1048576;w=16'
            assert 1 <= int(refused.headers["retry-after"]) <= 16
        assert (await client.post("/api/v1/logs", json=RECORD)).status_code == 201
        head = await world.store.head(world.tenant("slow"), LogName.EVENTS)
        assert head.next_seq == 81
        larger = gzip.compress(json.dumps([{**RECORD, "message": "x" * 8_000}] * 140).encode())
    world.add(make_tenant("fresh", limits=Limits(bytes_per_second=65_536)))
    async with world.client(Role.WRITER, "fresh") as client:
        never = await client.post("/api/v1/logs/bulk", content=larger, headers=headers)
        assert (never.status_code, code_of(never)) == (422, "batch-exceeds-burst")


async def test_probes_and_appends_are_answered_while_arrays_of_floats_are_prepared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)

    async def append(requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        """Store nothing: the store in memory would take as long as the preparing."""
        return [Appended([Receipt(Status.STORED, 1, 0, at, record.digest) for record in request.records]) for request in requests]

    monkeypatch.setattr(world.store, "append", append)
    packed = gzip.compress(b"[" + b",".join([FLOATS] * 20) + b"]")
    kind = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answered = 0
    async with world.client(Role.WRITER) as client, world.client(Role.WRITER, "other") as other:
        assert (await client.post("/api/v1/logs/bulk", content=packed, headers=kind)).json()["stored"] == 20
        bulks = [asyncio.create_task(client.post("/api/v1/logs/bulk", content=packed, headers=kind)) for _ in range(4)]
        while not all(bulk.done() for bulk in bulks):
            assert (await other.get("/healthz")).status_code == 200
            assert (await other.post("/api/v1/logs", json=RECORD)).status_code == 201
            answered += 1
        assert [(await bulk).json()["stored"] for bulk in bulks] == [20] * 4
    assert answered > len(bulks)  # prepared on the event loop, each bulk would have let it run once
