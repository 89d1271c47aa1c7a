"""Reading records over a real socket: pages, single records, counts and exports."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import socket
from typing import Any

import httpx
import msgspec
import pytest

from decklog import shapes
from decklog.api.app import create_app
from decklog.api.connections import Limits
from decklog.api.server import serve
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, Role
from decklog.domain.log import LogName
from decklog.domain.records.wire import evaluable, inert
from decklog.services.records.reading import EXPORTS_PER_TENANT_MAX
from decklog.settings import Settings
from tests.support.api_world import RECORD, World, access_actions, code_of, connect, polled
from tests.support.memory import make_tenant
from tests.support.memory_store import fill


async def test_list_returns_the_newest_records_first(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"action": f"a.{n}", "metadata": {"n": n}} for n in range(5)))
    async with world.client(Role.AUDITOR) as client:
        response = await client.get("/api/v1/logs", params={"limit": 3})
        assert response.status_code == 200
        page = msgspec.json.decode(response.content, type=shapes.Page)
        assert [item.seq for item in page.items] == [4, 3, 2]
        assert (page.head, page.indexed, page.engine) == (5, 5, "postgres")
        assert {(item.tenant, item.log) for item in page.items} == {("acme", "events")}
        rest = (await client.get("/api/v1/logs", params={"limit": 3, "cursor": page.next})).json()
        assert [item["seq"] for item in rest["items"]] == [1, 0]
        assert rest["next"] is None


async def test_list_contains_every_acknowledged_record(world: World) -> None:
    async with world.client(Role.ADMIN) as client:
        for n in range(3):
            await client.post("/api/v1/logs", json={"action": f"a.{n}", "actor": {"id": "alice"}})
            assert (await client.get("/api/v1/logs")).json()["items"][0]["action"] == f"a.{n}"


async def test_get_record_does_not_shadow_sibling_routes(world: World) -> None:
    await fill(world.store, world.tenant("acme"), {}, {})
    async with world.client(Role.ADMIN) as client:
        record = await client.get("/api/v1/logs/1")
        assert record.status_code == 200
        assert msgspec.json.decode(record.content, type=shapes.Record).seq == 1
        assert "items" in (await client.get("/api/v1/logs")).json()
        assert "items" in (await client.get("/api/v1/logs/")).json()
        assert (await client.get("/api/v1/logs/export")).headers["content-type"] == "application/x-ndjson"
        assert "buckets" in (await client.get("/api/v1/logs/stats", params={"by": "action"})).json()
        assert (await client.get("/api/v1/logs/bulk")).status_code == 405
        assert (await client.post("/api/v1/logs/", json={"action": "x", "actor": {"id": "a"}})).status_code == 201


async def test_get_record_returns_404_for_an_unknown_sequence_number(world: World) -> None:
    await fill(world.store, world.tenant("acme"), {}, {})
    async with world.client(Role.AUDITOR) as client:
        for seq in ("2", "-1", "1.0", "+1", "1_0", "0x1", "٣", "abc", "1e3", "9" * 19, "9" * 400, "%00"):
            response = await client.get(f"/api/v1/logs/{seq}")
            assert (response.status_code, code_of(response)) == (404, "not-found"), seq


async def test_stats_count_by_field_and_by_time(world: World) -> None:
    await fill(
        world.store,
        world.tenant("acme"),
        {"action": "login", "occurred_at": "2026-01-01T10:00:00Z"},
        {"action": "login", "occurred_at": "2026-01-01T11:00:00Z"},
        {"action": "logout", "occurred_at": "2026-01-02T10:00:00+01:00", "resource": {"type": "door"}},
    )
    async with world.client(Role.AUDITOR) as client:
        response = await client.get("/api/v1/logs/stats", params={"by": "action,resource_type", "interval": "day"})
        assert response.status_code == 200
        answer = msgspec.json.decode(response.content, type=shapes.Stats)
        assert answer.total == 3
        plain = [(bucket["key"], bucket["from"], bucket["count"]) for bucket in response.json()["buckets"]]
        assert sorted(plain, key=str) == [
            (["login", None], "2026-01-01T00:00:00Z", 2),
            (["logout", "door"], "2026-01-02T00:00:00Z", 1),
        ]
        total = (await client.get("/api/v1/logs/stats")).json()
        assert [(bucket["key"], bucket["from"], bucket["count"]) for bucket in total["buckets"]] == [([], None, 3)]


async def test_read_is_recorded_in_the_access_log_and_refused_to_writers(world: World) -> None:
    await fill(world.store, world.tenant("acme"), {})
    async with world.client(Role.AUDITOR) as client:
        for path in ("logs", "logs/0", "logs/stats", "logs/export"):
            assert (
                await client.get(f"/api/v1/{path}", headers={"X-Request-Id": f"read-{path.replace('/', '.')}"})
            ).status_code == 200
        assert await access_actions(world) == ["log.search", "log.read", "log.stats", "log.export.open", "log.export.close"]
        records = (await client.get("/api/v1/logs?log=access&limit=5")).json()["items"]
        assert records[-1]["correlation_id"] == "read-logs"
        assert records[-1]["source"]["ip"] == "127.0.0.1"


async def test_read_returns_nothing_when_it_cannot_be_recorded(world: World) -> None:
    await fill(world.store, world.tenant("acme"), {"message": "precious"})
    append = world.store.append

    async def refuse(requests: Any) -> Any:
        raise DecklogError(Code.STORAGE_UNAVAILABLE, "Away on purpose.")

    world.store.append = refuse  # type: ignore[method-assign]
    async with world.client(Role.AUDITOR) as client:
        for path in ("logs", "logs/0", "logs/stats", "logs/export", "logs/stream"):
            response = await client.get(f"/api/v1/{path}", headers={"Accept": "*/*"})
            assert (response.status_code, code_of(response)) == (503, "access-log-unavailable")
            assert "precious" not in response.text
    world.store.append = append  # type: ignore[method-assign]


async def test_access_record_has_the_address_of_the_peer(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        await client.get("/api/v1/logs", headers={"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"})
        first = (await client.get("/api/v1/logs?log=access")).json()["items"][-1]
        assert first["source"]["ip"] == "127.0.0.1"


@pytest.mark.parametrize("path", ["logs", "logs/0", "logs/export", "logs/stats", "logs/stream", "whoami", "tenants", "logs/bulk"])
async def test_read_refuses_an_unknown_parameter(world: World, path: str) -> None:
    role = Role.PLATFORM if path == "tenants" else Role.ADMIN
    async with world.client(role) as client:
        for name in ("tenant", "role", "actr", "limt", "Actor", "metadata", "metadata.", "token", "access_token"):
            for method in {"logs": ("GET", "POST"), "logs/bulk": ("POST",)}.get(path, ("GET",)):
                response = await client.request(method, f"/api/v1/{path}", params={name: "other"})
                assert (response.status_code, code_of(response)) == (422, "unknown-parameter"), name


WRONG_QUERIES = [
    "limit=0",
    "limit=1001",
    "limit=ten",
    "limit=1&limit=2",
    "from=yesterday",
    "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
    "severity=BAD",
    "outcome=maybe",
    "ip=1.2.3",
    "q=%20",
    "actor=",
    "actor=a&actor=b",
    "log=secret",
    "action=*x",
    "cursor=abc",
    "actor=%ff",
    "actor=%00",
    "actor=" + "x" * 5_000,
    "&".join(f"metadata.k{n}=v" for n in range(200)),
    "actor=" + "x" * 20_000,
]


async def test_read_refuses_an_invalid_parameter(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        for query in WRONG_QUERIES:
            response = await client.get(f"/api/v1/logs?{query}")
            assert response.status_code == 422, query
            assert code_of(response) in ("invalid-parameter", "invalid-cursor", "invalid-query")
        assert await access_actions(world) == []


async def test_leaves_are_found_in_both_forms_of_their_parameter(world: World) -> None:
    await fill(
        world.store, world.tenant("acme"), {"metadata": {"a": {"b": "v"}, "c[d]": "w"}}, {"metadata": {"a": {"b": "other"}}}
    )
    async with world.client(Role.AUDITOR) as client:
        for query in ("metadata.a.b=v", "metadata[a.b]=v", "metadata%5Ba.b%5D=v", "metadata[c[d]]=w", "metadata.c[d]=w"):
            found = await client.get(f"/api/v1/logs?{query}")
            assert [item["seq"] for item in found.json()["items"]] == [0], query
        twice = await client.get("/api/v1/logs?metadata[a.b]=v&metadata.a.b=v")
        assert code_of(twice) == "invalid-parameter"
        assert code_of(await client.get("/api/v1/logs?actor[id]=x")) == "unknown-parameter"


# Exports


async def test_export_equals_the_list_in_every_format(world: World) -> None:
    values = [{"action": f"a.{n % 3}", "message": f'"{n}",\r\n' + "=cmd|' /C calc'!A0"} for n in range(2_500)]
    await fill(world.store, world.tenant("acme"), *values)
    async with world.client(Role.AUDITOR) as client:
        lines = await client.get("/api/v1/logs/export")
        array = await client.get("/api/v1/logs/export?format=json")
        table = await client.get("/api/v1/logs/export?format=csv")
        records = [json.loads(line) for line in lines.text.splitlines()]
        assert [record["seq"] for record in records] == list(range(2_500))
        assert array.json() == records
        rows = list(csv.DictReader(io.StringIO(table.text, newline="")))
        assert [int(row["seq"]) for row in rows] == list(range(2_500))
        assert [evaluable(row["message"]) for row in rows] == [record["message"] for record in records]
        for response, ending in ((lines, "ndjson"), (array, "json"), (table, "csv")):
            assert response.headers["transfer-encoding"] == "chunked"
            assert response.headers["content-disposition"] == f'attachment; filename="acme-events-2500.{ending}"'
        assert table.headers["content-type"].startswith("text/csv")
        some = await client.get("/api/v1/logs/export?action=a.1")
        assert {json.loads(line)["action"] for line in some.text.splitlines()} == {"a.1"}


async def test_csv_export_contains_no_formula(world: World) -> None:
    evils = [start + "cmd|' /C calc'!A0" for start in "=+-@\t\r"]
    await fill(world.store, world.tenant("acme"), *({"action": evil, "actor": {"id": evil}, "message": evil} for evil in evils))
    async with world.client(Role.AUDITOR) as client:
        text = (await client.get("/api/v1/logs/export?format=csv")).text
        rows = csv.DictReader(io.StringIO(text, newline=""))
        for row, evil in zip(rows, evils, strict=True):
            assert row["action"] == row["actor_id"] == row["message"] == inert(evil)
            assert row["message"][0] == "'"


async def test_empty_export_is_an_empty_file_of_its_format(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        assert (await client.get("/api/v1/logs/export")).text == ""
        assert (await client.get("/api/v1/logs/export?format=json")).json() == []
        assert (await client.get("/api/v1/logs/export?format=csv")).text.count("\r\n") == 1


def raw_get(world: World, path: str, key: str) -> bytes:
    """Return all bytes of the connection until the server closes it."""
    with connect(world) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n".encode())
        found = b""
        while chunk := connection.recv(1 << 20):
            found += chunk
        return found


async def test_export_breaks_the_transfer_when_it_fails_midway(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": "x" * 2_000} for _ in range(6_000)))
    key = world.keys["acme", Role.AUDITOR]
    whole = await asyncio.to_thread(raw_get, world, "/api/v1/logs/export", key)
    assert whole.endswith(b"\r\n0\r\n\r\n")
    reads, real = 0, world.store.read

    async def failing(*arguments: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 5:
            raise DecklogError(Code.STORAGE_UNAVAILABLE, "Broke on purpose.")
        return await real(*arguments, **more)

    world.store.read = failing  # type: ignore[method-assign]
    broken = await asyncio.to_thread(raw_get, world, "/api/v1/logs/export", key)
    assert broken.startswith(b"HTTP/1.1 200 ")
    assert 10_000 < len(broken) < len(whole)
    assert not broken.endswith(b"0\r\n\r\n")
    async with world.client(Role.AUDITOR) as client:
        reads = 0
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/api/v1/logs/export")


async def test_export_returns_a_problem_when_it_fails_before_the_first_bytes(world: World) -> None:
    await fill(world.store, world.tenant("acme"), {})

    async def failing(*arguments: Any, **more: Any) -> Any:
        raise DecklogError(Code.SEARCH_UNAVAILABLE, "Broke on purpose.")

    world.store.read = failing  # type: ignore[method-assign]
    async with world.client(Role.AUDITOR) as client:
        response = await client.get("/api/v1/logs/export")
        assert (response.status_code, code_of(response)) == (503, "search-unavailable")


async def test_export_waits_for_a_slow_client_and_stops_when_it_disconnects(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": "x" * 8_000} for _ in range(10_000)))
    host, port = world.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    connection.connect((host, int(port)))
    key = world.keys["acme", Role.AUDITOR]
    connection.sendall(f"GET /api/v1/logs/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    await until_still(world)
    assert world.store.reads < 100
    connection.close()
    async for actions in polled(world):
        if actions[-1:] == ["log.export.close"]:
            break
    assert (await last_access(world))["metadata"]["reason"] == "client-gone"
    assert world.reading.budget.held == 0


async def last_access(world: World) -> dict[str, Any]:
    tenant = world.tenant("acme")
    head = await world.store.head(tenant, LogName.ACCESS)
    [found] = await world.store.fetch(tenant, LogName.ACCESS, [head.next_seq - 1])
    return dict(json.loads(found.content))


async def test_exports_that_no_client_reads_end_and_make_room_for_the_next_one(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": "x" * 8_000} for _ in range(10_000)))
    limits = Limits(send_timeout=0.3)
    async with serve(create_app(world.services, Settings()), "127.0.0.1", 0, freeze=False, limits=limits) as server:
        key = world.keys["acme", Role.AUDITOR]
        connections = [socket.socket() for _ in range(EXPORTS_PER_TENANT_MAX)]
        for connection in connections:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(f"GET /api/v1/logs/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        async for actions in polled(world):
            if actions.count("log.export.close") == EXPORTS_PER_TENANT_MAX:
                break
        assert (await last_access(world))["metadata"]["code"] == "reader-too-slow"
        assert world.reading.budget.held == 0
        async with world.client(Role.AUDITOR) as client:
            answer = await client.get("/api/v1/logs/export", params={"actor": "nobody"})
            assert answer.status_code == 200
        for connection in connections:
            connection.close()


async def test_page_is_accounted_for_until_its_client_has_read_it(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": "x" * 8_000} for _ in range(1_000)))
    key = world.keys["acme", Role.AUDITOR]
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        host, port = world.url.removeprefix("http://").split(":")
        connection.connect((host, int(port)))
        connection.sendall(f"GET /api/v1/logs?limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        async for actions in polled(world):
            if actions == ["log.search"] and world.reading.budget.held:
                break
        assert 8_000_000 < world.reading.budget.held < 10_000_000
    async for _ in polled(world):
        if not world.reading.budget.held:
            break


async def test_pages_that_no_client_reads_are_bounded_for_each_tenant(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": "x" * 8_000} for _ in range(1_000)))
    await fill(world.store, world.tenant("other"), {})
    unread = world.reading.account(Principal(kind="api_key", subject="x", role=Role.AUDITOR, tenant=world.tenant("acme")))
    with unread:
        while unread.fits(4_000_000):
            unread.take(4_000_000)
        async with world.client(Role.AUDITOR) as client:
            refused = await client.get("/api/v1/logs", params={"limit": "1000"})
            assert (refused.status_code, code_of(refused)) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        async with world.client(Role.AUDITOR, "other") as client:
            assert (await client.get("/api/v1/logs")).status_code == 200
    async with world.client(Role.AUDITOR) as client:
        page = await client.get("/api/v1/logs", params={"limit": "1000"})
        assert page.headers["content-length"] == str(len(page.content))
        assert len(page.json()["items"]) > 900
    assert world.reading.budget.held == 0


async def until_still(world: World) -> None:
    """Wait until the export no longer reads from the store."""
    before = -1
    while world.store.reads != before or before == 0:
        before = world.store.reads
        await asyncio.sleep(0.2)


async def test_queries_over_the_rate_limit_are_refused_and_leave_one_record_of_that(world: World) -> None:
    world.add(make_tenant("curious"), queries_per_minute=3)
    async with world.client(Role.AUDITOR, "curious") as client:
        for path in ("", "/stats", "/export"):
            assert (await client.get("/api/v1/logs" + path)).status_code == 200
        for path in ("", "/0", "/stats", "/export", "/stream"):
            refused = await client.get("/api/v1/logs" + path)
            assert (refused.status_code, code_of(refused)) == (429, "rate-limited")
            assert "may make 3 queries per minute" in refused.json()["detail"]
            assert 0 < int(refused.headers["retry-after"]) <= 20
            assert refused.headers["ratelimit-policy"] == '"query";q=3;w=60'
            assert refused.headers["ratelimit"].startswith('"query";r=0;t=')
        async with world.client(Role.WRITER, "curious") as writer:
            assert (await writer.post("/api/v1/logs", json=RECORD)).status_code == 201
    # Opened and closed, the export has two records. The refusals after the first are summarised a minute later.
    assert (await world.store.head(world.tenant("curious"), LogName.ACCESS)).next_seq == 5


async def seqs_of(client: httpx.AsyncClient, **parameters: str) -> list[int]:
    response = await client.get("/api/v1/logs", params=parameters)
    assert response.status_code == 200, response.text
    return [item["seq"] for item in response.json()["items"]]


async def test_list_tells_apart_long_values_with_a_common_beginning(world: World) -> None:
    key = f"bucket/{'0' * 600}"
    async with world.client(Role.ADMIN) as client:
        for last in "12":
            record = {"action": "object.delete", "actor": {"id": "dana"}, "resource": {"type": "object", "id": key + last}}
            copies = {
                "session_id": key + last,
                "correlation_id": key + last,
                "metadata": {"key": key + last},
                "before": key + last,
            }
            assert (await client.post("/api/v1/logs", json=record | copies)).status_code == 201
        for name in ("resource_id", "session_id", "correlation_id", "metadata.key"):
            assert [await seqs_of(client, **{name: key + last}) for last in "123"] == [[0], [1], []]
            assert await seqs_of(client, **{name: key[:512]}) == []


@pytest.mark.parametrize(
    ("message", "found", "absent"),
    [
        ("用户登录失败：密码错误次数过多", ("用户登录失败", "登录", "失败", "密码错误"), ("录登", "败密")),
        ("管理者がパスワードをリセットしました", ("パスワード", "ﾊﾟｽﾜｰﾄﾞ", "管理者"), ("ドスワ",)),
        ("ผู้ใช้เข้าสู่ระบบล้มเหลว", ("ระบบ", "ล้มเหลว"), ("บระ",)),
        ("Élise logged in from MÜNCHEN", ("elise", "Élise", "munchen", "münchen", "MU\u0308NCHEN"), ("mun",)),
    ],
)
async def test_list_finds_words_in_every_script(
    world: World, message: str, found: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    async with world.client(Role.ADMIN) as client:
        assert (await client.post("/api/v1/logs", json={**RECORD, "message": message})).status_code == 201
        for word in found:
            assert await seqs_of(client, q=word) == await seqs_of(client, message=word) == [0], word
        for word in absent:
            assert await seqs_of(client, q=word) == [], word


async def test_list_finds_an_address_however_it_is_written(world: World) -> None:
    written = ("10.0.0.1:443", "10.0.0.1", "::ffff:10.0.0.1", "[2001:db8::1]:8080", "fe80::1%eth0", "10.0.0.10:1")
    async with world.client(Role.ADMIN) as client:
        for address in written:
            assert (await client.post("/api/v1/logs", json={**RECORD, "source": {"ip": address}})).status_code == 201
        assert await seqs_of(client, ip="10.0.0.1") == [2, 1, 0]
        assert await seqs_of(client, ip="10.0.0.0/28") == [5, 2, 1, 0]
        assert await seqs_of(client, ip="2001:db8::/32") == [3]
        assert await seqs_of(client, ip="fe80::1") == [4]


async def test_list_finds_every_field(world: World) -> None:
    record = {
        "id": "evt-1",
        "action": "role.grant",
        "actor": {"type": "user", "id": "u-1", "name": "Alice Ng"},
        "resource": {"type": "role", "id": "r-1", "name": "Billing Admin"},
        "related": [{"type": "team", "id": "t-1", "name": "Finance"}],
        "source": {"ip": "192.0.2.1", "user_agent": "curl/8.5"},
        "session_id": "s-1",
        "correlation_id": "c-1",
        "message": "Granted",
        "before": {"roles": ["viewer"]},
        "after": {"roles": ["viewer", "admin"]},
        "metadata": {"password": "hunter2", "many": {f"k{n}": n for n in range(3_000)}},
    }
    asked = {
        "actor_type": "user",
        "actor_name": "alice",
        "resource_name": "billing",
        "related": "t-1",
        "related_type": "team",
        "related_name": "Finance",
        "user_agent": "curl",
        "message": "granted",
        "before.roles": "viewer",
        "after.roles": "admin",
        "masked": "/metadata/password",
        "metadata.many.k2999": "2999",
        "recorded_by_type": "api_key",
    }
    async with world.client(Role.ADMIN) as client:
        for sent in (RECORD, record):
            assert (await client.post("/api/v1/logs", json=sent)).status_code == 201
        recorder = (await client.get("/api/v1/logs/1")).json()["recorded_by"]["id"]
        for name, value in {**asked, "q": "evt-1"}.items():
            assert 1 in await seqs_of(client, **{name: value}), name
            assert await seqs_of(client, **{name: f"{value}x"}) == [], name
        assert await seqs_of(client, recorded_by=recorder) == [1, 0]
        for word in ("s-1", "c-1", "curl", "192.0.2.1", "finance", "viewer", recorder, "2999"):
            assert 1 in await seqs_of(client, q=word), word
