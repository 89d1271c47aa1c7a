"""Permissions: every route with every role, and every way to claim more than the credential allows."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from decklog import shapes
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.domain.tenant import State
from decklog.services.identity.key_sets import UNREACHABLE_SECONDS_MAX
from decklog.services.identity.keys import new_key
from tests.support.api_world import RECORD, World, code_of, running_world
from tests.support.issuers import World as IssuerWorld
from tests.support.memory_store import fill


class Route(NamedTuple):
    """A route, the roles that may use it, and the body of a valid request."""

    method: str
    path: str
    allowed: frozenset[Role]
    body: Any = None


MANIFEST = {
    "apiVersion": "decklog.dev/v1",
    "kind": "Tenant",
    "metadata": {"name": "initech"},
    "spec": {"retention": {"days": 30}},
}
ROLES = [role for role in Role if role is not Role.VIEWER]
"""Roles of keys. Viewer tokens are in `test_viewers.py`."""
_APPEND = frozenset({Role.WRITER, Role.ADMIN})
_READ = frozenset({Role.AUDITOR, Role.ADMIN})
ROUTES = [
    Route("POST", "/api/v1/logs", _APPEND, RECORD),
    Route("POST", "/api/v1/logs/bulk", _APPEND, [RECORD]),
    Route("GET", "/api/v1/logs", _READ),
    Route("GET", "/api/v1/logs?log=access", _READ | {Role.PLATFORM}),
    Route("GET", "/api/v1/logs/0", _READ),
    Route("GET", "/api/v1/logs/export", _READ),
    Route("GET", "/api/v1/logs/stats", _READ),
    Route("GET", "/api/v1/logs/stream", _READ),
    Route("GET", "/api/v1/tenants", frozenset({Role.PLATFORM})),
    Route("GET", "/api/v1/tenants/acme", _READ | {Role.PLATFORM}),
    Route("POST", "/api/v1/tenants", frozenset({Role.PLATFORM}), MANIFEST),
    Route("POST", "/api/v1/viewer-tokens", _READ, {"query": "action:login"}),
    Route("GET", "/api/v1/whoami", frozenset(Role)),
]
OPEN = ["/healthz", "/readyz", "/metrics", "/schema", "/schema/openapi.json", "/schema/page.js", "/schema/page.css"]


async def asked(client: httpx.AsyncClient, route: Route, **options: Any) -> tuple[int, str | None]:
    """Return status and error code of the answer; a stream is closed once it has started."""
    async with client.stream(route.method, route.path, json=route.body, **options) as response:
        if response.status_code < 400:
            return response.status_code, None
        await response.aread()
        return response.status_code, code_of(response)


@pytest.mark.parametrize("role", ROLES)
async def test_role_is_allowed_exactly_its_routes(world: World, role: Role) -> None:
    await fill(world.store, world.tenant("acme"), {})
    async with world.client(role) as client:
        for route in ROUTES:
            answer = await asked(client, route)
            if role in route.allowed:
                assert answer in ((200, None), (201, None)), route
            else:
                assert answer == (403, "forbidden"), route


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YWxpY2U6c2VjcmV0"},
        {"Authorization": f"Bearer dlk_{'0' * 16}_{'0' * 64}"},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
        {"Authorization": "Bearer " + "x" * 10_000},
        {"Authorization": "Bearer \xe9"},
        {"X-Api-Key": "KEY"},
        {"Cookie": "token=KEY"},
        {"Authorization": "KEY"},
        {"Authorization": "Token KEY"},
        {"Proxy-Authorization": "Bearer KEY"},
    ],
    ids=lambda headers: str(headers)[:40],
)
async def test_request_returns_401_without_a_valid_bearer_credential(world: World, headers: dict[str, str]) -> None:
    key = world.keys["acme", Role.ADMIN]
    sent = [(name.encode(), value.replace("KEY", key).encode("latin-1")) for name, value in headers.items()]
    async with world.client() as client:
        for route in ROUTES:
            response = await client.request(route.method, route.path, json=route.body, headers=sent)
            assert (response.status_code, code_of(response)) == (401, "unauthenticated"), route
            assert response.headers["www-authenticate"] == 'Bearer realm="decklog"'
            assert key not in response.text


async def test_request_returns_401_with_two_authorization_headers(world: World) -> None:
    pair = [
        ("Authorization", f"Bearer {world.keys['acme', Role.ADMIN]}"),
        ("Authorization", f"Bearer {world.keys['other', Role.ADMIN]}"),
    ]
    async with world.client() as client:
        for route in ROUTES:
            assert await asked(client, route, headers=pair) == (401, "unauthenticated"), route


@pytest.mark.parametrize("path", OPEN)
async def test_public_path_answers_without_a_credential(world: World, path: str) -> None:
    async with world.client() as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Token abc", "has the scheme Token, which is not supported. Send Authorization: Bearer"),
        ("basic YWxpY2U6c2VjcmV0", "has the scheme Basic, which is not supported. Send Authorization: Bearer"),
        ("dlk_0123_secret", "has no scheme, or one that is not known here. Send Authorization: Bearer"),
        ("", "The request has no credential. Send Authorization: Bearer"),
    ],
)
async def test_credential_of_another_scheme_is_told_what_is_expected(world: World, value: str, said: str) -> None:
    async with world.client(None) as client:
        for method in ("GET", "POST"):
            response = await client.request(method, "/api/v1/logs", headers={"Authorization": value})
            assert (response.status_code, code_of(response)) == (401, "unauthenticated")
            assert said in response.json()["detail"]
            assert "secret" not in response.text


async def test_plus_that_became_a_blank_is_named_as_the_cause(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        response = await client.get("/api/v1/logs?from=2026-11-30T01:00:00+01:00")
        assert (response.status_code, code_of(response)) == (422, "invalid-parameter")
        assert "A plus sign in a query string means a blank: write it as %2B." in response.json()["detail"]
        assert (await client.get("/api/v1/logs?from=2026-11-30T01:00:00%2B01:00")).status_code == 200


@pytest.mark.parametrize("role", ROLES)
async def test_every_path_refuses_methods_that_change_or_delete(world: World, role: Role) -> None:
    await fill(world.store, world.tenant("acme"), {})
    async with world.client(role) as client:
        for path in {route.path for route in ROUTES}:
            for method in ("PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"):
                response = await client.request(method, path)
                assert (response.status_code, code_of(response)) == (405, "method-not-allowed")
                assert method not in response.headers["allow"].split(", ")
    async with world.client(Role.AUDITOR) as client:
        assert (await client.get("/api/v1/logs/0")).status_code == 200


async def test_options_and_405_name_the_same_methods(world: World) -> None:
    async with world.client(Role.ADMIN) as client:
        for path, allow in (
            ("/api/v1/logs", "GET, HEAD, OPTIONS, POST"),
            ("/api/v1/logs/7", "GET, HEAD, OPTIONS"),
            ("/api/v1/logs/bulk", "OPTIONS, POST"),
            ("/api/v1/logs/stream", "GET, OPTIONS"),
            ("/api/v1/logs/export", "GET, OPTIONS"),
        ):
            assert (await client.put(path)).headers["allow"] == allow
            options = await client.options(path)
            assert (options.status_code, options.headers["allow"]) == (204, allow)


async def test_head_returns_the_headers_of_get_without_a_body(world: World) -> None:
    async with world.client(Role.ADMIN) as client:
        for path in ("/api/v1/logs", "/api/v1/whoami", "/healthz", "/schema"):
            response = await client.head(path)
            assert response.status_code == 200
            assert response.content == b""
            assert int(response.headers["content-length"]) > 0
        assert (await client.head("/api/v1/logs/export")).status_code == 405
        assert (await client.head("/api/v1/logs/9")).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Tenant": "other"},
        {"X-Tenant-Id": "other"},
        {"X-Decklog-Tenant": "other"},
        {"X-Role": "admin"},
        {"X-Decklog-Role": "platform"},
        {"X-User": "root"},
        {"X-Forwarded-User": "root"},
        {"X-Original-URL": "/api/v1/tenants"},
        {"X-HTTP-Method-Override": "GET"},
    ],
    ids=str,
)
async def test_header_cannot_choose_the_tenant_or_the_role(world: World, headers: dict[str, str]) -> None:
    await fill(world.store, world.tenant("other"), {"message": "not yours"})
    async with world.client(Role.WRITER) as writer, world.client(Role.AUDITOR) as auditor:
        assert (await writer.post("/api/v1/logs", json=RECORD, headers=headers)).json()["tenant"] == "acme"
        assert (await writer.get("/api/v1/logs", headers=headers)).status_code == 403
        assert (await auditor.post("/api/v1/logs", json=RECORD, headers=headers)).status_code == 403
        assert (await auditor.get("/api/v1/tenants", headers=headers)).status_code == 403
        listed = await auditor.get("/api/v1/logs", headers=headers)
        assert {item["tenant"] for item in listed.json()["items"]} == {"acme"}
        assert "not yours" not in listed.text


@pytest.mark.parametrize("field", ["tenant", "tenant_id", "log", "seq", "received_at", "digest", "role", "epoch", "recorded_by"])
async def test_body_cannot_set_fields_that_the_server_assigns(world: World, field: str) -> None:
    async with world.client(Role.WRITER) as client:
        response = await client.post("/api/v1/logs", json={**RECORD, field: "other"})
        assert (response.status_code, code_of(response)) == (422, "invalid-record")
        assert field in response.json()["detail"]
        bulk = await client.post("/api/v1/logs/bulk", json=[{**RECORD, field: "other"}])
        assert bulk.json()["rejected"] == 1


async def test_tenant_cannot_read_records_of_another_tenant(world: World) -> None:
    await fill(world.store, world.tenant("other"), *({"id": f"o-{n}", "message": "theirs"} for n in range(3)))
    await fill(world.store, world.tenant("acme"), {"message": "ours"})
    async with world.client(Role.ADMIN) as client:
        for path in ("logs", "logs/0", "logs/export", "logs?id=o-1", "logs?q=theirs", "logs?metadata.tenant=other"):
            assert "theirs" not in (await client.get(f"/api/v1/{path}")).text
        assert (await client.get("/api/v1/logs/2")).status_code == 404
        assert (await client.get("/api/v1/logs/stats")).json()["total"] == 1


async def test_suspended_tenant_can_neither_append_nor_read(world: World) -> None:
    await fill(world.store, world.tenant("acme"), {})
    changed = world.cache.changed()
    world.registry.add_tenant(msgspec.structs.replace(world.tenant("acme"), state=State.SUSPENDED))
    await changed.wait()
    for route in (*ROUTES[:8], Route("GET", "/api/v1/tenants/acme", _READ)):
        async with world.client(Role.ADMIN) as client:
            assert await asked(client, route) == (403, "tenant-suspended")
    async with world.client(Role.AUDITOR) as client:
        assert (await client.get("/api/v1/whoami")).json()["state"] == "suspended"
    async with world.client(Role.ADMIN, "other") as client:
        assert (await client.post("/api/v1/logs", json=RECORD)).status_code == 201


async def test_revoked_key_is_refused(world: World) -> None:
    changed = world.cache.changed()
    world.registry.revoke(world.keys["acme", Role.ADMIN])
    await changed.wait()
    async with world.client(Role.ADMIN) as client:
        for route in ROUTES:
            assert await asked(client, route) == (401, "unauthenticated"), route


async def test_api_refuses_every_credential_when_the_registry_is_unreadable() -> None:
    async with running_world() as world:
        await world.cache.stop()
        world.cache._max_age = 0.0
        async with world.client(Role.ADMIN) as client:
            for route in ROUTES:
                assert await asked(client, route) == (503, "registry-stale"), route


async def test_token_whose_expiry_is_no_time_is_refused_on_every_route_and_one_without_keys_is_told_to_wait() -> None:
    it = IssuerWorld()
    async with running_world(issuers=it.issuers) as world:
        answers: tuple[tuple[dict[str, Any], bool, tuple[int, str]], ...] = (
            ({"exp": 10**400}, False, (401, "unauthenticated")),
            ({"exp": int(it.time + 300) * 1_000}, False, (401, "unauthenticated")),
            ({}, True, (503, "issuer-unavailable")),
        )
        for changes, down, answer in answers:
            it.server.down = down
            it.uptime += 10 * UNREACHABLE_SECONDS_MAX
            headers = {"Authorization": f"Bearer {it.token(decklog_role='admin', **changes)}"}
            async with httpx.AsyncClient(base_url=world.url, headers=headers) as client:
                for route in ROUTES:
                    assert await asked(client, route) == answer, route
                refused = await client.get("/api/v1/whoami")
                assert ("retry-after" in refused.headers) is down


async def test_whoami_returns_identity_and_permissions(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        response = await client.get("/api/v1/whoami")
        me = msgspec.json.decode(response.content, type=shapes.WhoAmI)
        assert (me.kind, me.tenant, me.role, me.permissions) == ("api_key", "acme", "auditor", ["mint-viewer-tokens", "read"])
        assert world.keys["acme", Role.AUDITOR].split("_")[2] not in response.text
    async with world.client(Role.PLATFORM) as client:
        me = msgspec.json.decode((await client.get("/api/v1/whoami")).content, type=shapes.WhoAmI)
        assert (me.tenant, me.role, me.permissions) == (None, "platform", ["create-tenants", "list-tenants", "read-platform-log"])


async def test_unknown_keys_do_not_each_cause_a_query(world: World) -> None:
    finds = world.registry.finds
    async with world.client() as client:
        await asyncio.gather(
            *(client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {new_key()[1]}"}) for _ in range(200))
        )
    assert world.registry.finds - finds < 100


async def refusals(world: World, wanted: int) -> list[tuple[str, str, str]]:
    """Return code, reason and credential of the refused attempts in the tenant's access log, once there are so many."""
    tenant = world.tenant("acme")
    for _ in range(200):
        head = await world.store.head(tenant, LogName.ACCESS)
        records = [json.loads(record.content) for record in await world.store.fetch(tenant, LogName.ACCESS, range(head.next_seq))]
        found = [record for record in records if record["action"] == "access.refused"]
        if len(found) >= wanted:
            break
        await asyncio.sleep(0.02)
    return sorted((each["metadata"]["code"], each["metadata"]["reason"], each["actor"]["id"]) for each in found)


async def test_refused_attempts_that_name_a_tenant_are_in_its_access_log(world: World) -> None:
    auditor, writer = (world.keys["acme", role].split("_")[1] for role in (Role.AUDITOR, Role.WRITER))
    async with world.client(Role.AUDITOR) as client:
        assert (await client.post("/api/v1/logs", json=RECORD)).status_code == 403
        assert (await client.post("/api/v1/logs/bulk", json=[RECORD])).status_code == 403
    async with world.client(Role.WRITER) as client:
        assert (await client.get("/api/v1/logs")).status_code == 403
    async with world.client() as client:
        guess = f"Bearer dlk_{writer}_{'0' * 40}"
        answer = await client.get("/api/v1/logs", headers={"Authorization": guess})
        unknown = await client.get("/api/v1/logs", headers={"Authorization": f"Bearer dlk_{'0' * 16}_{'0' * 40}"})
        assert (answer.status_code, answer.json()["detail"]) == (401, unknown.json()["detail"])
    assert await refusals(world, 3) == [
        ("forbidden", "role auditor", auditor),
        ("forbidden", "role writer", writer),
        ("unauthenticated", "wrong secret", writer),
    ]


async def test_attempts_in_a_suspended_tenant_are_in_its_access_log(world: World) -> None:
    changed = world.cache.changed()
    world.registry.add_tenant(msgspec.structs.replace(world.tenant("acme"), state=State.SUSPENDED))
    await changed.wait()
    async with world.client(Role.WRITER) as client:
        assert (await client.post("/api/v1/logs", json=RECORD)).status_code == 403
    assert await refusals(world, 1) == [("tenant-suspended", "role writer", world.keys["acme", Role.WRITER].split("_")[1])]


async def test_attempts_with_a_token_of_an_issuer_that_is_not_bound_to_the_tenant_are_in_its_access_log() -> None:
    it = IssuerWorld(tenants=["other"])
    async with running_world(issuers=it.issuers) as world:
        unbound = it.token(decklog_tenant="acme", sub="carol")
        async with world.client() as client:
            answer = await client.get("/api/v1/logs", headers={"Authorization": f"Bearer {unbound}"})
            assert answer.status_code == 401
        [(code, reason, subject)] = await refusals(world, 1)
        assert (code, subject) == ("unauthenticated", "carol")
        assert "tenant" in reason


async def test_platform_reads_its_own_access_log_and_no_other(world: World) -> None:
    await fill(world.store, world.tenant("acme"), {"message": "of a tenant"}, log=LogName.ACCESS)
    async with world.client(Role.PLATFORM) as client:
        await client.get("/api/v1/tenants")
        for path in ("logs", "logs/0", "logs/stats", "logs/export", "logs?log=events", "logs?log=access&log=events"):
            answer = await client.get(f"/api/v1/{path}")
            assert (answer.status_code, code_of(answer)) == (403, "forbidden"), path
        for path in ("logs?log=access", "logs/0?log=access", "logs/export?log=access", "logs/stats?log=access"):
            answer = await client.get(f"/api/v1/{path}")
            assert answer.status_code == 200, answer.text
            assert "of a tenant" not in answer.text
        page = (await client.get("/api/v1/logs?log=access&limit=1000")).json()
        assert {item["tenant"] for item in page["items"]} == {"decklog"}
        actions = [item["action"] for item in reversed(page["items"])]
        assert actions == ["tenants.list", "log.search", "log.read", "log.export.open", "log.export.close", "log.stats"]
    for role in (Role.ADMIN, Role.AUDITOR):
        async with world.client(role) as client:
            items = (await client.get("/api/v1/logs?log=access")).json()["items"]
            assert {item["tenant"] for item in items} <= {"acme"}
