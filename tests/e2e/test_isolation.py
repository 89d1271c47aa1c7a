"""Isolation (rule 6) over real backends: no request with any credential returns data of another tenant."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from joserfc import jwk, jwt

from decklog.domain.tenancy.names import index_name
from decklog.domain.tenancy.spec import parse_spec
from tests.backends import OpenSearchServer
from tests.backends.sqs import SqsServer
from tests.e2e.conftest import whole
from tests.support.stack import Program, Stack

pytestmark = pytest.mark.slow

SPECS: dict[str, dict[str, object]] = {
    "dedicated_a": {"retention": {"days": 30}},
    "dedicated_b": {"retention": {"days": 30}},
    "shared_a": {"isolation": "Shared", "retention": {"days": 30}},
    "shared_b": {"isolation": "Shared", "retention": {"days": 30}},
}
TENANTS = [name.replace("_", "-") for name in SPECS]
ROLES = ("writer", "auditor", "admin")
RECORDS = 40
ISSUER = "https://issuer.example"
QUESTIONS = 1_500


@dataclass
class World:
    stack: Stack
    api: Program
    credentials: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """(tenant, role, kind) → bearer."""


def marker(tenant: str) -> str:
    return f"marker{tenant.replace('-', '')}"


def record(tenant: str, number: int) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "action": f"{marker(tenant)}.act{number % 3}",
        "actor": {"id": f"{marker(tenant)}-{number % 4}"},
        "resource": {"type": "document", "id": f"{marker(tenant)}-{number}"},
        "message": f"hello {marker(tenant)} number{number}",
        "source": {"ip": f"10.0.0.{number}"},
        "session_id": marker(tenant),
        "metadata": {"mark": marker(tenant), "n": number},
    }


@pytest.fixture
async def world(
    timescale_server: Any, opensearch_server: OpenSearchServer, sqs_server: SqsServer, tmp_path: Path
) -> AsyncIterator[World]:
    key = jwk.OKPKey.generate_key("Ed25519", {"kid": "k1", "alg": "EdDSA", "use": "sig"})
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    # One issuer, bound to two of the four tenants.
    issuer = {
        "issuer": ISSUER,
        "audience": "decklog",
        "algorithms": ["EdDSA"],
        "jwks_file": "jwks.json",
        "tenant_claim": "tenant",
        "role_claim": "role",
        "tenants": ["dedicated-a", "shared-a"],
    }
    (tmp_path / "issuers.json").write_text(json.dumps([issuer]))
    async with AsyncExitStack() as stack:
        issuers = {"DECKLOG_IDENTITY_ISSUERS_FILE": str(tmp_path / "issuers.json")}
        made = await stack.enter_async_context(whole(tmp_path, timescale_server, opensearch_server, sqs_server, **issuers))
        await made.provision(**SPECS)
        world = World(made, await made.api())
        await made.worker()
        for tenant in TENANTS:
            for role in ROLES:
                world.credentials[tenant, role, "api_key"] = made.key(tenant, role)
                claims = {
                    "iss": ISSUER,
                    "aud": "decklog",
                    "sub": f"{role}@{tenant}",
                    "exp": 2**32,
                    "tenant": tenant,
                    "role": role,
                }
                world.credentials[tenant, role, "jwt"] = jwt.encode(
                    {"alg": "EdDSA", "kid": "k1"}, claims, key, algorithms=["EdDSA"]
                )
        for tenant in TENANTS:
            async with made.client(world.api.url, made.key(tenant, "writer")) as client:
                answer = await client.post("/api/v1/logs/bulk", json=[record(tenant, number) for number in range(RECORDS)])
                assert answer.json()["stored"] == RECORDS, answer.text
            async with made.client(world.api.url, made.key(tenant, "auditor")) as client, asyncio.timeout(60):
                while (await client.get("/api/v1/logs", params={"limit": 1})).json()["indexed"] < RECORDS:
                    await asyncio.sleep(0.1)
        yield world


def parameters(other: str, cursors: list[str]) -> dict[str, str]:
    """Return some filters that match records of the other tenant, or none."""
    choices: dict[str, list[str]] = {
        "q": [marker(other), "hello", "number3"],
        "actor": [f"{marker(other)}-1"],
        "action": [f"{marker(other)}.*", "*", "marker*"],
        "resource_id": [f"{marker(other)}-3"],
        "session_id": [marker(other)],
        "metadata.mark": [marker(other)],
        "metadata.n": ["3"],
        "ip": ["10.0.0.0/24", "10.0.0.3"],
        "id": ["r3"],
        "log": ["events", "access"],
        "limit": ["1", "1000"],
        "from": ["2020-01-01T00:00:00Z"],
        "cursor": cursors,
        "tenant": [other],
        "tenant_id": ["2"],
    }
    names = random.sample(sorted(choices), k=random.randint(0, 3))
    return {name: random.choice(choices[name]) for name in names if choices[name]}


def requests(other: str, cursors: list[str]) -> tuple[str, str, dict[str, Any]]:
    """Return a random request: method, path, arguments. Its headers and body try to name the other tenant."""
    asked = parameters(other, cursors)
    listing = {name: value for name, value in asked.items() if name not in ("limit", "cursor") or random.random() < 0.5}
    headers = random.choice(
        [{}, {"X-Tenant": other, "X-Decklog-Tenant": other, "X-Role": "platform", "X-Forwarded-User": "root"}]
    )
    spoken = {**record("nobody", 1), **random.choice([{}, {"tenant": other}, {"seq": 0}, {"log": "access"}])}
    choices: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/api/v1/logs", {"params": asked}),
        ("GET", f"/api/v1/logs/{random.randint(0, RECORDS)}", {"params": random.choice([{}, {"log": "access"}])}),
        ("GET", "/api/v1/logs/export", {"params": {**listing, "format": random.choice(["ndjson", "csv", "json"])}}),
        ("GET", "/api/v1/logs/stats", {"params": {**listing, "by": random.choice(["actor", "action", "action,actor"])}}),
        ("GET", "/api/v1/tenants", {}),
        ("GET", "/api/v1/whoami", {}),
        ("POST", "/api/v1/logs", {"json": spoken}),
        ("POST", "/api/v1/logs/bulk", {"json": [spoken, spoken]}),
        ("DELETE", f"/api/v1/logs/{random.randint(0, 3)}", {}),
    ]
    method, path, arguments = random.choice(choices)
    return method, path, {**arguments, "headers": headers}


READ_ROUTES = ("/api/v1/logs", "/api/v1/logs/export", "/api/v1/logs/stats")


async def test_random_requests_never_return_data_of_another_tenant(world: World) -> None:
    seed = random.randrange(2**32)
    random.seed(seed)
    print(f"seed {seed}")
    cursors: dict[str, list[str]] = {tenant: [] for tenant in TENANTS}
    statuses: dict[int, int] = {}
    given = 0
    async with httpx.AsyncClient(base_url=world.api.url, timeout=60) as client:
        for _ in range(QUESTIONS):
            (tenant, role, kind), token = random.choice(sorted(world.credentials.items()))
            other = random.choice([name for name in TENANTS if name != tenant])
            method, path, arguments = requests(other, cursors[other])
            headers = {**arguments.pop("headers"), "Authorization": f"Bearer {token}"}
            answer = await client.request(method, path, headers=headers, **arguments)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            trusted = kind == "api_key" or tenant in ("dedicated-a", "shared-a")
            where = (tenant, role, kind, method, path, arguments, answer.status_code, answer.text[:500])
            assert answer.status_code < 500, where
            if not trusted:
                assert answer.status_code == (405 if method == "DELETE" else 401), where
            if method == "DELETE":
                assert answer.status_code == 405, where
            if method == "POST" and role == "auditor":
                assert answer.status_code in (401, 403), where
            if method == "GET" and path in READ_ROUTES and role == "writer":
                assert answer.status_code in (401, 403), where
            if answer.status_code == 200 and path == "/api/v1/logs":
                page = answer.json()
                # Filters of the own access records may name what was searched for; the records are the tenant's own.
                assert {item["tenant"] for item in page["items"]} <= {tenant}, where
                cursors[tenant] += [page["next"]] if page["next"] and len(cursors[tenant]) < 20 else []
                given += len(page["items"])
            if answer.status_code == 200 and arguments.get("params", {}).get("log") != "access":
                for name in TENANTS:
                    assert name == tenant or marker(name) not in answer.text, where
    assert given > 100
    assert {200, 401, 403, 405, 422} <= set(statuses), statuses


async def test_stream_returns_records_of_its_own_tenant_only(world: World) -> None:
    for tenant in TENANTS:
        for other in TENANTS:
            protocols: Any = ["decklog", f"bearer.{world.credentials[tenant, 'auditor', 'api_key']}"]
            query = f"?after=-1&action={marker(other)}.*"
            url = world.api.url.replace("http", "ws") + "/api/v1/logs/stream" + query
            seen: list[dict[str, Any]] = []
            async with websockets.connect(url, subprotocols=protocols) as socket:
                try:
                    async with asyncio.timeout(3 if other == tenant else 0.3):
                        async for message in socket:
                            event = json.loads(message)
                            seen += [event["record"]] if event["type"] == "record" else []
                            if len(seen) == RECORDS:
                                break
                except TimeoutError:
                    pass
            assert {item["tenant"] for item in seen} <= {tenant}
            assert len(seen) == (RECORDS if other == tenant else 0)


async def test_worker_writes_the_index_that_the_api_reads(world: World) -> None:
    prefix, url = world.stack.settings.prefix, world.stack.settings.search.url
    async with httpx.AsyncClient(base_url=url) as opensearch:
        await opensearch.post(f"/{prefix}-*/_refresh")
        found = (await opensearch.get(f"/_cat/indices/{prefix}-*", params={"format": "json"})).json()
    written = {each["index"].partition(".")[0] for each in found if int(each["docs.count"])}
    named = {index_name(name, parse_spec(SPECS[name.replace("-", "_")]), prefix) for name in TENANTS}
    assert written >= named
    assert {each["index"].partition(".")[0] for each in found} <= {*named, f"{prefix}-shared-365"}
    for tenant in TENANTS:
        async with world.stack.client(world.api.url, world.credentials[tenant, "auditor", "api_key"]) as client:
            page = (await client.get("/api/v1/logs", params={"q": marker(tenant), "limit": "1000"})).json()
        assert page["engine"] == "opensearch"
        assert sorted(item["seq"] for item in page["items"] if "message" in item) == list(range(RECORDS))
