"""The client sends what it recorded: each record once, with its own id, through the real API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog_client import ClosedError, Decklog, InvalidRecordError, Refusal, RefusedError, SpoolFullError, context
from tests.support.api_world import World


def client(world: World, folder: Path, **values: Any) -> Decklog:
    return Decklog(url=world.url, key=world.keys["acme", Role.WRITER], spool=folder, **{"linger": 0.0, **values})


async def stored(world: World) -> list[dict[str, Any]]:
    tenant = world.tenant("acme")
    head = await world.store.head(tenant, LogName.EVENTS)
    found = await world.store.fetch(tenant, LogName.EVENTS, range(head.next_seq))
    return [json.loads(record.content) for record in sorted(found, key=lambda record: record.seq)]


async def test_client_stores_each_record_once_in_order(world: World, tmp_path: Path) -> None:
    audit = client(world, tmp_path, batch_records=7)
    ids = [audit.record("order.approve", actor="alice", resource={"type": "order", "id": str(i)}) for i in range(50)]
    await asyncio.to_thread(audit.commit, 20)
    found = await stored(world)
    assert [record["id"] for record in found] == ids
    assert found[3]["resource"] == {"type": "order", "id": "3"}
    assert found[3]["actor"] == {"id": "alice"}
    now = audit.stats()
    assert (now.recorded, now.stored, now.waiting, now.duplicates) == (50, 50, 0, 0)
    assert await asyncio.to_thread(audit.close)
    assert [path.name for path in tmp_path.iterdir()] == ["tenant.json"]


async def test_client_sends_what_an_earlier_process_left(world: World, tmp_path: Path) -> None:
    first = Decklog(url="http://127.0.0.1:1", key="x", spool=tmp_path)
    name = first.record("a.b", actor="alice")
    assert not await asyncio.to_thread(first.close, 0.0)
    second = client(world, tmp_path)
    while second.stats().stored < 1:
        await asyncio.sleep(0.01)
    assert [record["id"] for record in await stored(world)] == [name]
    assert second.stats().adopted == 1
    assert await asyncio.to_thread(second.close)


async def test_client_keeps_refused_records_and_reports_them_once(world: World, tmp_path: Path) -> None:
    seen: list[Refusal] = []
    audit = client(world, tmp_path, on_rejected=seen.append)
    audit.record("a.b", actor="alice")
    wrong = audit.record("a.b", actor="alice", occurred_at="yesterday")
    with pytest.raises(RefusedError) as caught:
        await asyncio.to_thread(audit.commit, 20)
    assert [(each.id, each.code) for each in caught.value.refusals] == [(wrong, "invalid-record")]
    await asyncio.to_thread(audit.commit, 20)
    assert [each.id for each in seen] == [wrong]
    lines = [json.loads(line) for line in (tmp_path / "rejected.ndjson").read_text().splitlines()]
    assert [line["record"]["occurred_at"] for line in lines] == ["yesterday"]
    assert (audit.stats().stored, audit.stats().refused) == (1, 1)
    await asyncio.to_thread(audit.close)


async def test_context_completes_records_and_is_completed_by_them(world: World, tmp_path: Path) -> None:
    audit = client(world, tmp_path)
    with context(actor="alice", correlation_id="c1", metadata={"a": 1}):
        with context(correlation_id="c2", metadata={"b": 2}):
            audit.record("a.b", actor={"id": "bob", "type": "user"})
        audit.record("a.c")
    with pytest.raises(InvalidRecordError, match="actor: is required"):
        audit.record("a.d")
    await asyncio.to_thread(audit.commit, 20)
    first, second = await stored(world)
    assert (first["actor"], first["correlation_id"], first["metadata"]) == ({"id": "bob", "type": "user"}, "c2", {"a": 1, "b": 2})
    assert (second["actor"]["id"], second["correlation_id"], second["metadata"]) == ("alice", "c1", {"a": 1})
    await asyncio.to_thread(audit.close)
    with pytest.raises(ClosedError):
        audit.record("a.e", actor="alice")
    assert (audit.stats().stored, audit.stats().state) == (2, "closed")
    assert await asyncio.to_thread(audit.close, 3600.0)


async def test_key_of_another_tenant_sends_nothing_of_a_spool(world: World, tmp_path: Path) -> None:
    first = client(world, tmp_path)
    first.record("a.b", actor="alice")
    await asyncio.to_thread(first.commit, 20)
    assert await asyncio.to_thread(first.close)
    other = Decklog(url=world.url, key=world.keys["other", Role.WRITER], spool=tmp_path, pause=0.01, linger=0.0)
    other.record("a.b", actor="bob")
    while other.stats().state != "paused":
        await asyncio.sleep(0.01)
    assert "for the tenant acme" in other.stats().reason
    assert not await asyncio.to_thread(other.close, 0.0)
    head = await world.store.head(world.tenant("other"), LogName.EVENTS)
    assert head.next_seq == 0
    right = client(world, tmp_path)
    while right.stats().stored < 1:
        await asyncio.sleep(0.01)
    assert [record["actor"]["id"] for record in await stored(world)] == ["alice", "bob"]
    assert await asyncio.to_thread(right.close)


async def test_key_without_a_tenant_pauses_the_sender(world: World, tmp_path: Path) -> None:
    audit = Decklog(url=world.url, key=world.keys[None, Role.PLATFORM], spool=tmp_path, pause=0.01, linger=0.0)
    audit.record("a.b", actor="alice")
    while audit.stats().state != "paused":
        await asyncio.sleep(0.01)
    assert "belongs to no tenant" in audit.stats().reason
    assert not await asyncio.to_thread(audit.close, 0.0)


async def test_callback_that_records_does_not_wait_for_itself(world: World, tmp_path: Path) -> None:
    errors: list[Exception] = []

    def again(refusal: Refusal) -> None:
        try:
            for _ in range(5):
                audit.record("refused", actor="client", message="x" * 240_000)
        except SpoolFullError as error:
            errors.append(error)

    audit = client(world, tmp_path, spool_bytes=2**20, on_rejected=again, full_timeout=3600.0)
    audit.record("a.b", actor="alice", occurred_at="yesterday")
    with pytest.raises(RefusedError):
        await asyncio.to_thread(audit.commit, 20)
    while not errors:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(audit.close)
