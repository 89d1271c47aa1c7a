"""The client sends what it recorded: each record once, with its own id, through the real API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog_client import ClosedError, Decklog, InvalidRecordError, Refusal, RefusedError, context
from tests.support.api_world import World


def client(world: World, folder: Path, **values: Any) -> Decklog:
    return Decklog(url=world.url, key=world.keys["acme", Role.WRITER], spool=folder, **values)


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
