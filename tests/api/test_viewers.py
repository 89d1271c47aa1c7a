"""Viewer tokens over HTTP: who mints them, what they open, and that nothing else accepts them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from litestar.routes import HTTPRoute
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from decklog.api.app import create_app, openapi_document
from decklog.domain.identity.access import Role
from decklog.domain.identity.scope import SECONDS_DEFAULT, ViewerClaims
from decklog.domain.log import LogName
from decklog.domain.tenant import State
from decklog.services.identity.viewer_tokens import ViewerTokens
from decklog.settings import Settings
from decklog.viewer_shapes import ViewerToken
from tests.support.api_world import RECORD, World, access_actions, code_of
from tests.support.memory_store import FINGERPRINT_KEY, fill

PATH = "/api/v1/viewer-tokens"
OPEN_TO_VIEWERS = {
    ("GET", "/api/v1/logs"),
    ("GET", "/api/v1/logs/{seq}"),
    ("GET", "/api/v1/logs/stats"),
    ("GET", "/api/v1/logs/export"),
    ("GET", "/api/v1/logs/stream"),
    ("POST", "/api/v1/logs/search"),
    ("POST", "/api/v1/logs/ask"),
    ("GET", "/api/v1/whoami"),
}
"""Every operation that accepts a viewer token."""
BY_COOKIE = ("/api/v1/session",)
"""Paths that take the cookie of a session alone."""
WITHOUT_CREDENTIAL = ("/healthz", "/readyz", "/metrics", "/schema", "/board")
"""Beginnings of the paths that need no credential, and give no records."""
SCOPE = {"query": "metadata.customer:c-1", "fields": ["action", "occurred_at", "message"], "subject": "c-1/u-7"}


async def minted(world: World, role: Role = Role.AUDITOR, **changes: Any) -> str:
    async with world.client(role) as client:
        answer = await client.post(PATH, json=SCOPE | changes)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])


def viewer(world: World, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=world.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


async def filled(world: World, name: str = "acme") -> None:
    records = [{"message": f"m{number}", "metadata": {"customer": f"c-{number % 2}"}} for number in range(4)]
    await fill(world.store, world.tenant(name), *records)


def claims(world: World, **changes: Any) -> ViewerClaims:
    now = int(time.time())
    found: dict[str, Any] = {
        "id": "t",
        "subject": "c-1",
        "key": world.keys["acme", Role.AUDITOR].split("_")[1],
        "tenant": world.tenant("acme").id,
        "query": "metadata.customer:c-1",
        "fields": None,
        "issued_at": now,
        "expires_at": now + 300,
    }
    return ViewerClaims(**found | changes)


# -- minting


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.ADMIN])
async def test_reader_mints_a_token_and_the_access_log_has_it(world: World, role: Role) -> None:
    async with world.client(role) as client:
        answer = await client.post(PATH, json=SCOPE)
        made = answer.json()
        assert answer.status_code == 201
        assert made["token"].startswith("dlv_")
        ends = msgspec.convert(made, ViewerToken).expires_at.timestamp()
        assert SECONDS_DEFAULT - 10 <= ends - time.time() <= SECONDS_DEFAULT
        (found,) = (await client.get("/api/v1/logs?log=access&action=viewer-token.mint")).json()["items"]
    assert found["metadata"]["filter"] == {"q": "metadata.customer:c-1"}
    assert (found["metadata"]["fields"], found["metadata"]["subject"]) == (SCOPE["fields"], "c-1/u-7")
    assert found["resource"]["type"] == "viewer-token"
    assert made["token"][10:40] not in json.dumps(found)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"query": "a AND"}, "invalid-query", "nothing behind AND"),
        ({"query": ""}, "invalid-parameter", "query"),
        ({"query": "unknown:x"}, "invalid-query", "no field"),
        ({"query": " ".join(f"w{number}" for number in range(65))}, "invalid-parameter", "at most 64"),
        ({"query": '"' + "é" * 3_000 + '"'}, "invalid-parameter", "4096 bytes"),
        ({"query": "a\0b"}, "invalid-parameter", "U+0000"),
        ({"fields": []}, "invalid-parameter", "at least one"),
        ({"fields": ["nope"]}, "invalid-parameter", "not a field"),
        ({"fields": ["action", "action"]}, "invalid-parameter", "twice"),
        ({"fields": ["action", "digest"]}, "invalid-parameter", "guesses"),
        ({"fields": ["metadata." + "x" * 300]}, "invalid-parameter", "256"),
        ({"fields": "action"}, "invalid-parameter", "array"),
        ({"expires_in": 59}, "invalid-parameter", "60"),
        ({"expires_in": 3_601}, "invalid-parameter", "3600"),
        ({"subject": "a\nb"}, "invalid-parameter", "printable"),
        ({"tenant": "other"}, "invalid-parameter", "tenant"),
    ],
)
async def test_minting_refuses_what_it_does_not_understand(world: World, changes: dict[str, Any], code: str, said: str) -> None:
    async with world.client(Role.AUDITOR) as client:
        answer = await client.post(PATH, json=SCOPE | changes)
        assert (answer.status_code, code_of(answer)) == (422, code)
        assert said in answer.json()["detail"]
    assert "viewer-token.mint" not in await access_actions(world)


async def test_token_does_not_outlive_a_key_with_an_end(world: World) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=120)
    key = world.registry.add_key(world.tenant("acme"), Role.AUDITOR, expires_at=ends)
    async with viewer(world, key) as client:
        answer = await client.post(PATH, json=SCOPE)
        assert datetime.fromisoformat(answer.json()["expires_at"]) == ends


# -- what a token opens


async def test_viewer_reads_the_records_of_its_scope_with_its_fields(world: World) -> None:
    await filled(world)
    async with viewer(world, await minted(world)) as client:
        page = (await client.get("/api/v1/logs")).json()
        assert [item["message"] for item in page["items"]] == ["m3", "m1"]
        assert all(item.keys() == {"action", "occurred_at", "message"} for item in page["items"])
        assert page.keys() == {"items", "next", "total", "position"}
        searched = (await client.post("/api/v1/logs/search", json={"query": "m1", "count": "exact"})).json()
        assert ([item["message"] for item in searched["items"]], searched["total"]) == (["m1"], 1)
        assert (await client.get("/api/v1/logs/stats?facets=action")).json()["total"] == 2
        export = await client.get("/api/v1/logs/export?format=csv")
        assert [line.split(",")[2] for line in export.text.splitlines()] == ["message", "m1", "m3"]
        assert export.headers["content-disposition"] == 'attachment; filename="acme-events.csv"'
        hidden = await client.get("/api/v1/logs/1")
        assert (hidden.status_code, code_of(hidden)) == (422, "invalid-query")
        who = (await client.get("/api/v1/whoami")).json()
        assert (who["kind"], who["role"], who["permissions"], who["fields"]) == ("viewer", "viewer", ["view"], SCOPE["fields"])
    async with viewer(world, await minted(world, fields=None)) as client:
        assert (await client.get("/api/v1/logs/1")).json()["message"] == "m1"
        for seq in (0, 2, 4):
            answer = await client.get(f"/api/v1/logs/{seq}")
            assert (answer.status_code, code_of(answer)) == (404, "not-found")
        assert "fields" in (await client.get("/api/v1/whoami")).json()


async def test_viewer_streams_the_records_of_its_scope(world: World) -> None:
    token = await minted(world)
    await filled(world)
    url = world.socket_url("?after=-1")
    async with connect(url, subprotocols=["decklog", f"bearer.{token}"]) as socket:  # type: ignore[list-item]
        messages = [json.loads(await asyncio.wait_for(socket.recv(), 10)) for _ in range(3)]
    assert [each.get("record", {}).get("message") for each in messages] == [None, "m1", "m3"]
    async with (
        viewer(world, token) as client,
        client.stream("GET", f"/api/v1/logs/stream?after={messages[1]['position']}") as answer,
    ):
        lines = [line async for line in _until_record(answer)]
    assert '"message":"m3"' in lines[-1]
    assert not any(re.search(r'\d\.\d{10,}\.\d|"seq"', line) for line in lines)


async def _until_record(answer: httpx.Response) -> Any:
    record = False
    async for line in answer.aiter_lines():
        yield line
        if record:
            return
        record = line == "event: record"


def operations() -> list[tuple[str, str]]:
    """Every method and path of the application."""
    application: Any = create_app(object(), Settings())  # type: ignore[arg-type]
    routes = [route for route in application.routes if isinstance(route, HTTPRoute)]
    return sorted(
        {(method, route.path_format) for route in routes for method in route.methods if method not in ("OPTIONS", "HEAD")}
    )


def example(method: str, path: str) -> tuple[str, Any]:
    """A valid request to an operation, by the examples of the OpenAPI document: its target and its body."""
    operation = openapi_document()["paths"][path][method.lower()]
    for each in operation.get("parameters", ()):
        if each["in"] == "path":
            path = path.replace("{" + each["name"] + "}", str(each["example"]))
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if media is None:
        return path, None
    return path, media["example"] if "example" in media else next(iter(media["examples"].values()))["value"]


async def test_every_other_route_refuses_a_viewer_token(world: World) -> None:
    await filled(world)
    token = await minted(world, query="exists:action", fields=None)
    found = [each for each in operations() if not each[1].startswith(WITHOUT_CREDENTIAL) and each[1] != "/"]
    assert set(found) >= OPEN_TO_VIEWERS
    refused = 0
    async with viewer(world, token) as client:
        for method, path in found:
            if (method, path) == ("GET", "/api/v1/logs/{seq}"):
                target, body = "/api/v1/logs/1", None
            else:
                target, body = example(method, path)
            async with client.stream(method, target, json=body) as answer:
                if (method, path) in OPEN_TO_VIEWERS:
                    assert answer.status_code == 200, (method, path)
                    continue
                await answer.aread()
            wanted = (401, "unauthenticated") if path in BY_COOKIE else (403, "forbidden")
            assert (answer.status_code, code_of(answer)) == wanted, (method, path, answer.text)
            refused += 1
    assert refused >= 12


async def test_refused_attempt_of_a_viewer_is_recorded(world: World) -> None:
    async with viewer(world, await minted(world)) as client:
        assert (await client.post("/api/v1/logs", json=RECORD)).status_code == 403
    for _ in range(100):
        if "access.refused" in await access_actions(world):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no access record of the refused attempt")


# -- forgery and end


async def test_forged_and_ended_tokens_are_refused(world: World) -> None:
    await filled(world)
    good = claims(world)
    sign = world.viewer_tokens.sign
    token = sign(good)
    header, payload, signature = token.removeprefix("dlv_").split(".")
    other = sign(claims(world, query="metadata.customer:c-0")).split(".")[1]
    unsigned = "eyJhbGciOiJub25lIn0"
    bad = [
        f"dlv_{header}.{other}.{signature}",
        f"dlv_{unsigned}.{payload}.",
        f"dlv_{header}.{payload}.",
        f"dlv_{header}.{payload}",
        f"{header}.{payload}.{signature}",
        f"dlk_{header}.{payload}.{signature}",
        token + "x",
        token[:-3],
        "dlv_",
        "dlv_..",
        ViewerTokens("another secret of the tests, of 32 bytes").sign(good),
        ViewerTokens(FINGERPRINT_KEY.decode() + " ").sign(good),
        sign(claims(world, expires_at=int(time.time()) - 1)),
        sign(claims(world, key="0" * 16)),
        sign(claims(world, key=world.keys["acme", Role.WRITER].split("_")[1])),
        sign(claims(world, key=world.keys["other", Role.AUDITOR].split("_")[1])),
        sign(claims(world, tenant=world.tenant("other").id)),
        sign(claims(world, tenant=10**9)),
        sign(claims(world, query="nonsense:x")),
        sign(claims(world, fields=["nonsense"])),
        sign(claims(world, fields=[])),
    ]
    async with world.client() as client:
        for each in (token, *bad):
            answer = await client.get("/api/v1/logs", headers={"Authorization": f"Bearer {each}"})
            assert answer.status_code == (200 if each is token else 401), each
            if each is not token:
                assert code_of(answer) == "unauthenticated"
                assert each[:40] not in answer.text


async def test_token_dies_when_its_key_is_revoked_and_with_its_tenant(world: World) -> None:
    await filled(world)
    token = await minted(world, Role.ADMIN)
    async with viewer(world, token) as client, client.stream("GET", "/api/v1/logs/stream") as stream:
        assert (await client.get("/api/v1/logs")).status_code == 200
        world.registry.revoke(world.keys["acme", Role.ADMIN])
        async with asyncio.timeout(2):
            while (answer := await client.get("/api/v1/logs")).status_code == 200:
                await asyncio.sleep(0.02)
            lines = [line async for line in stream.aiter_lines()]
        assert (answer.status_code, code_of(answer)) == (401, "unauthenticated")
        assert any('"unauthenticated"' in line for line in lines)
    token = await minted(world)
    world.registry.add_tenant(msgspec.structs.replace(world.tenant("acme"), state=State.SUSPENDED))
    async with viewer(world, token) as client, asyncio.timeout(2):
        while (answer := await client.get("/api/v1/logs")).status_code == 200:
            await asyncio.sleep(0.02)
        assert (answer.status_code, code_of(answer)) == (403, "tenant-suspended")


async def test_viewer_never_reads_the_access_log(world: World) -> None:
    token = await minted(world, query="exists:action", fields=None)
    async with viewer(world, token) as client:
        for path in ("/api/v1/logs", "/api/v1/logs/0", "/api/v1/logs/stats", "/api/v1/logs/export", "/api/v1/logs/stream"):
            answer = await client.get(f"{path}?log=access")
            assert (answer.status_code, code_of(answer)) == (403, "forbidden")
        answer = await client.post("/api/v1/logs/search", json={"log": "access"})
        assert (answer.status_code, code_of(answer)) == (403, "forbidden")
    with pytest.raises(InvalidStatus) as error:
        async with connect(world.socket_url("?log=access"), subprotocols=["decklog", f"bearer.{token}"]):  # type: ignore[list-item]
            pass
    assert error.value.response.status_code == 403
    assert (await world.store.head(world.tenant("acme"), LogName.ACCESS)).next_seq > 0
