"""Rejected records over the API: kept beside the append, listed, read, replayed after a fix, and in the access log."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from decklog import shapes
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.domain.tenant import Limits
from decklog.services.records import rejections
from tests.support.api_world import RECORD, World, access_actions, code_of
from tests.support.memory import make_tenant

BAD: dict[str, Any] = {"action": "x", "metadata": {"password": "hunter2", "n": 1}}


async def listed(client: httpx.AsyncClient, count: int) -> shapes.RejectedPage:
    """The list of rejected records, once it has so many."""
    for _ in range(400):
        answer = await client.get("/api/v1/rejected")
        assert answer.status_code == 200, answer.text
        page = msgspec.json.decode(answer.content, type=shapes.RejectedPage)
        if len(page.items) >= count:
            return page
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(page.items)} rejected records are listed, not {count}")


async def test_rejected_records_are_kept_with_who_when_and_why(world: World) -> None:
    async with world.client(Role.WRITER) as writer, world.client(Role.ADMIN) as admin:
        bulk = await writer.post("/api/v1/logs/bulk", json=[RECORD, BAD, {**RECORD, "id": "a"}], headers={"Idempotency-Key": "k"})
        assert (bulk.json()["rejected"], bulk.json()["kept"]) == (1, 1)
        single = await writer.post("/api/v1/logs", json={**RECORD, "id": "a", "message": "other"})
        assert (code_of(single), single.json()["kept"]) == ("id-conflict", 1)
        broken = await writer.post("/api/v1/logs", content=b'{"action":"hunter2', headers={"Content-Type": "application/json"})
        assert (code_of(broken), broken.json()["kept"]) == ("invalid-json", 1)
        page = await listed(admin, 3)
        assert [(item.id, item.code, item.has_content) for item in page.items] == [
            (3, "invalid-json", False),
            (2, "id-conflict", True),
            (1, "invalid-record", True),
        ]
        assert (page.rejected, page.unkept, page.dropped, page.kept, page.last_code) == (3, 0, 0, 3, "invalid-json")
        oldest = page.items[2]
        assert oldest.record_id == "k/1"
        assert oldest.recorded_by["id"] == world.keys["acme", Role.WRITER].split("_")[1]
        assert oldest.request_id == bulk.headers["x-request-id"]
        one = (await admin.get("/api/v1/rejected/1")).json()
        assert one["content"] == '{"action":"x","metadata":{"password":"[masked]","n":1}}'
        assert "actor" in one["detail"]
        assert (await admin.get("/api/v1/rejected/9")).status_code == 404
        found = await admin.get("/api/v1/rejected?limit=1&before=3")
        assert ([item["id"] for item in found.json()["items"]], found.json()["next"]) == ([2], 2)
    assert (await access_actions(world))[-3:] == ["rejected.read", "rejected.read", "rejected.list"]


async def test_replay_stores_the_record_after_a_fix_and_forgets_the_rejection(world: World) -> None:
    tenant = world.add(make_tenant("brief", limits=Limits(record_bytes_max=1_024)))
    large = {**RECORD, "after": {"kept": 1, "gone": "x" * 5_000}}
    async with world.client(Role.WRITER, "brief") as writer, world.client(Role.ADMIN, "brief") as admin:
        assert (await writer.post("/api/v1/logs/bulk", json=[BAD, large])).status_code == 422
        await listed(admin, 2)
        again = await admin.post("/api/v1/rejected/1/replay")
        assert code_of(again) == "invalid-record"
        assert "kept" not in again.json()
        mended = await admin.post("/api/v1/rejected/1/replay", json={**RECORD, "metadata": {"n": 1}})
        trimmed = await admin.post("/api/v1/rejected/2/replay?oversize=trim")
        assert [(each.status_code, each.json()["seq"]) for each in (mended, trimmed)] == [(201, 0), (201, 1)]
        assert trimmed.json()["trimmed"] == ["/after/gone"]
        records = (await admin.get("/api/v1/logs")).json()["items"]
        assert [record["id"] for record in records] == ["rejected/2", "rejected/1"]
        assert records[0]["recorded_by"]["id"] == world.keys["brief", Role.ADMIN].split("_")[1]
        assert (await listed(admin, 0)).items == []
        assert code_of(await admin.post("/api/v1/rejected/1/replay")) == "not-found"
    assert (await world.store.head(tenant, LogName.EVENTS)).next_seq == 2
    assert (await access_actions(world, "brief")).count("rejected.replay") == 3


async def test_replay_of_content_that_is_not_kept_needs_the_mended_record(world: World) -> None:
    async with world.client(Role.WRITER) as writer, world.client(Role.ADMIN) as admin:
        await writer.post("/api/v1/logs", content=b"{", headers={"Content-Type": "application/json"})
        await listed(admin, 1)
        assert code_of(await admin.post("/api/v1/rejected/1/replay")) == "conflict"
        assert (await admin.post("/api/v1/rejected/1/replay", json=RECORD)).status_code == 201


async def test_rejected_record_can_be_deleted(world: World) -> None:
    async with world.client(Role.WRITER) as writer, world.client(Role.ADMIN) as admin:
        await writer.post("/api/v1/logs", json=BAD)
        await listed(admin, 1)
        assert (await admin.delete("/api/v1/rejected/1")).json() == {"id": 1, "status": "deleted"}
        assert code_of(await admin.delete("/api/v1/rejected/1")) == "not-found"
        assert (await listed(admin, 0)).rejected == 1
    assert (await access_actions(world)).count("rejected.delete") == 1


async def test_only_an_admin_of_the_tenant_sees_rejected_records(world: World) -> None:
    async with world.client(Role.WRITER) as writer, world.client(Role.ADMIN, "other") as other:
        await writer.post("/api/v1/logs", json=BAD)
        async with world.client(Role.ADMIN) as admin:
            await listed(admin, 1)
        assert (await listed(other, 0)).items == []
        assert code_of(await other.get("/api/v1/rejected/1")) == "not-found"
        for role in (Role.WRITER, Role.AUDITOR):
            async with world.client(role) as client:
                for method, path in (("GET", ""), ("GET", "/1"), ("POST", "/1/replay"), ("DELETE", "/1")):
                    answer = await client.request(method, f"/api/v1/rejected{path}")
                    assert (answer.status_code, code_of(answer)) == (403, "forbidden"), (role, method, path)


@pytest.mark.parametrize("query", ["?limit=0", "?limit=1001", "?before=x", "?before=0", "?q=x"])
async def test_list_of_rejected_records_refuses_other_parameters(world: World, query: str) -> None:
    async with world.client(Role.ADMIN) as admin:
        assert (await admin.get(f"/api/v1/rejected{query}")).status_code == 422
        assert (await admin.get("/api/v1/rejected/x")).status_code == 422


async def test_append_answers_while_rejected_records_cannot_be_stored_and_says_what_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "TENANT_RECORDS_MAX", 3)
    world.rejected.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
    async with world.client(Role.WRITER) as writer, world.client(Role.ADMIN) as admin:
        answer = (await writer.post("/api/v1/logs/bulk", json=[RECORD, *[BAD] * 5])).json()
        assert (answer["stored"], answer["rejected"], answer["kept"]) == (1, 5, 3)
        assert (await writer.post("/api/v1/logs", json=BAD)).json()["kept"] == 0
        world.rejected.failing = None
        page = await listed(admin, 3)
        assert (page.rejected, page.unkept, page.kept) == (6, 3, 3)


async def test_atomic_and_strict_bulks_keep_nothing_because_their_client_has_all(world: World) -> None:
    async with world.client(Role.WRITER) as writer, world.client(Role.ADMIN) as admin:
        for parameter in ("atomic", "strict"):
            assert (await writer.post(f"/api/v1/logs/bulk?{parameter}=true", json=[BAD])).status_code == 422
        await writer.post("/api/v1/logs", json=BAD)
        assert (await listed(admin, 1)).rejected == 1
