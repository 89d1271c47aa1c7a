"""What all answers have in common, and the probes and metrics for Kubernetes and Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from decklog.api.app import create_app, create_metrics_app
from decklog.api.errors import STATUSES, close_code, problem, retry_after
from decklog.api.server import serve
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.records.append import Rate
from decklog.services.identity.issuers import IssuerConfig, Issuers
from decklog.settings import Api, Settings
from tests.support.api_world import RECORD, World, code_of, running_world

PATHS = ["/nothing", "/api", "/api/v1", "/api/v1/log", "/api/v1/logs/1/2", "/schema/other", "/schema/openapi.yaml", "/docs"]


async def test_unknown_path_returns_a_problem(world: World) -> None:
    async with world.client(Role.ADMIN) as client:
        for path in PATHS:
            response = await client.get(path)
            assert (response.status_code, code_of(response)) == (404, "not-found"), path


async def test_answer_has_a_request_id_and_security_headers(world: World) -> None:
    async with world.client(Role.ADMIN) as client:
        seen = set()
        for method, path, body in (
            ("GET", "/api/v1/logs", None),
            ("POST", "/api/v1/logs", RECORD),
            ("POST", "/api/v1/logs", {}),
            ("POST", "/api/v1/logs/bulk", [RECORD]),
            ("GET", "/api/v1/logs/export", None),
            ("GET", "/nothing", None),
            ("DELETE", "/api/v1/logs", None),
            ("GET", "/healthz", None),
            ("GET", "/schema", None),
        ):
            response = await client.request(method, path, json=body)
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cache-control"] in ("no-store", "no-cache")
            assert "server" not in response.headers
            assert [name for name, _ in response.headers.multi_items()].count("x-request-id") == 1
            seen.add(response.headers["x-request-id"])
        assert len(seen) == 9


async def test_request_id_of_the_client_is_kept_only_when_it_is_safe(world: World) -> None:
    async with world.client(Role.ADMIN) as client:
        for method, body in (("GET", None), ("POST", RECORD)):
            for sent in ("a1b2", "trace:01-x.y_z"):
                response = await client.request(method, "/api/v1/logs", json=body, headers={"X-Request-Id": sent})
                assert response.headers["x-request-id"] == sent
            for sent in ("", "a b", "x" * 200, '"><script>', "a\tb"):
                response = await client.request(method, "/api/v1/logs", json=body, headers={"X-Request-Id": sent})
                assert re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", response.headers["x-request-id"])


async def test_bad_host_header_returns_a_problem(world: World) -> None:
    async with world.client(Role.ADMIN) as client:
        response = await client.get("/api/v1/whoami", headers={"Host": "<script>"})
        assert (response.status_code, code_of(response)) == (422, "invalid-parameter")


async def test_read_returns_an_opaque_internal_error_on_an_unexpected_exception(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*arguments: Any, **more: Any) -> Any:
        raise ZeroDivisionError("the secret is 42")

    world.reading.list = broken  # type: ignore[method-assign]
    async with world.client(Role.ADMIN) as client:
        response = await client.get("/api/v1/logs")
        assert (response.status_code, code_of(response)) == (500, "internal")
        assert "the secret is" not in response.text
        assert response.json()["instance"] in "".join(capsys.readouterr())  # the stream depends on who set up logging


# Readiness and metrics


async def test_readiness_names_each_backend_without_details(world: World) -> None:
    async with world.client() as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "checks": {"database": "ok", "search": "ok"}})
        world.backends["search"].error = DecklogError(Code.SEARCH_UNAVAILABLE, "https://admin@10.0.0.7 refused")
        degraded = await client.get("/readyz")
        assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
        assert degraded.json()["checks"]["search"] == "search-unavailable"
        assert "10.0.0.7" not in degraded.text
        world.backends["database"].error = RuntimeError("password=hunter2")
        unready = await client.get("/readyz")
        assert (unready.status_code, unready.json()["status"]) == (503, "unready")
        assert "hunter2" not in unready.text
        assert (await client.get("/healthz")).status_code == 200


async def test_readiness_answers_when_a_backend_hangs(world: World) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    world.backends["database"].check = hang  # type: ignore[method-assign]
    async with world.client() as client:
        response = await client.get("/readyz")
        assert (response.status_code, response.json()["checks"]["database"]) == (503, "timeout")


def samples(text: str, name: str, **labels: str) -> list[float]:
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in text.splitlines() if line.startswith(name + "{") and all(part in line for part in wanted)]
    return [float(line.rsplit(" ", 1)[1]) for line in lines]


async def test_metrics_label_requests_by_route_and_not_by_path_or_tenant(world: World) -> None:
    async with world.client(Role.ADMIN) as client:
        before = (await client.get("/metrics")).text
        for number in range(3):
            await client.post("/api/v1/logs", json=RECORD)
            await client.get(f"/api/v1/logs/{number}")
            await client.get(f"/unknown/{number}")
        after = (await client.get("/metrics")).text
        for route, method, status in (
            ("/api/v1/logs", "POST", "201"),
            ("/api/v1/logs/{seq}", "GET", "200"),
            ("unmatched", "GET", "404"),
        ):
            count = [
                sum(samples(text, "decklog_http_requests_total", route=route, method=method, status=status))
                for text in (before, after)
            ]
            assert count[1] - count[0] == 3
        seconds = samples(after, "decklog_http_request_seconds_bucket", route="/api/v1/logs", method="POST", le="+Inf")
        assert seconds == samples(after, "decklog_http_request_seconds_count", route="/api/v1/logs", method="POST")
        assert "unknown/1" not in after
        assert "acme" not in after


async def test_metrics_are_served_on_their_own_port_only_when_configured() -> None:
    async with running_world(settings=Settings(api=Api(metrics_port=1))) as world:
        async with world.client() as client:
            assert (await client.get("/metrics")).status_code == 404
        async with (
            serve(create_metrics_app(world.services), "127.0.0.1", 0, freeze=False) as server,
            httpx.AsyncClient() as client,
        ):
            url = f"http://127.0.0.1:{server.port}"
            metrics = await client.get(url + "/metrics")
            assert metrics.headers["content-type"].startswith("text/plain; version=")
            assert (await client.get(url + "/readyz")).json()["status"] == "ready"
            assert (await client.get(url + "/api/v1/whoami")).status_code == 404


# The server


async def test_server_raises_at_once_when_the_port_is_taken(world: World) -> None:
    port = int(world.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"):
        async with serve(create_metrics_app(world.services), "127.0.0.1", port, freeze=False):
            pass


async def test_readiness_returns_503_while_the_server_stops(world: World) -> None:
    async with contextlib.AsyncExitStack() as stack:
        app = create_app(world.services, Settings())
        server = await stack.enter_async_context(serve(app, "127.0.0.1", 0, freeze=False, linger=60))
        _, idle = await asyncio.open_connection("127.0.0.1", server.port)
        stopping = asyncio.create_task(stack.aclose())
        async with httpx.AsyncClient(timeout=60) as client:
            while (ready := await client.get(f"http://127.0.0.1:{server.port}/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
        assert (ready.status_code, ready.json()) == (503, {"status": "stopping", "checks": {}})
        idle.close()
        await stopping


async def test_server_finishes_open_requests_when_it_stops(world: World) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()
    append = world.ingest.append

    async def slow(*arguments: Any, **more: Any) -> Any:
        entered.set()
        await go_on.wait()
        return await append(*arguments, **more)

    world.ingest.append = slow  # type: ignore[method-assign]
    async with serve(create_app(world.services, Settings()), "127.0.0.1", 0, freeze=False) as server:
        client = world.client(Role.WRITER)
        posting = asyncio.create_task(client.post(f"http://127.0.0.1:{server.port}/api/v1/logs", json=RECORD))
        await entered.wait()
        asyncio.get_running_loop().call_later(0.3, go_on.set)
    assert (await posting).status_code == 201
    assert server.finished.done()
    await client.aclose()


async def test_server_closes_kept_connections_without_losing_a_request(world: World) -> None:
    stack = AsyncExitStack()
    server = await stack.enter_async_context(
        serve(create_app(world.services, Settings()), "127.0.0.1", 0, freeze=False, linger=60)
    )
    url = f"http://127.0.0.1:{server.port}/api/v1/logs"
    async with world.client(Role.WRITER) as client:
        kept = await client.post(url, json=RECORD)
        assert "connection" not in kept.headers
        ending = asyncio.create_task(stack.aclose())
        while kept.headers.get("connection") != "close":
            kept = await client.post(url, json=RECORD)
            assert kept.status_code == 201
        await ending  # and not for a minute, as nobody is connected any more


@pytest.mark.parametrize(
    ("trusted", "told", "ip"),
    [
        ("", ["203.0.113.9"], "127.0.0.1"),
        ("10.0.0.0/8", ["203.0.113.9"], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("127.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1, 10.42.0.0/16", ["198.51.100.1, 203.0.113.9, 10.42.3.4"], "203.0.113.9"),
    ],
)
async def test_client_address_comes_from_a_trusted_proxy_only(world: World, trusted: str, told: list[str], ip: str) -> None:
    app = create_app(world.services, Settings())
    async with serve(app, "127.0.0.1", 0, freeze=False, trusted_proxies=trusted) as server, world.client(Role.AUDITOR) as client:
        url = f"http://127.0.0.1:{server.port}/api/v1/logs?log=access"
        await client.get(url, headers=[("X-Forwarded-For", each) for each in told])
        [record] = (await client.get(url)).json()["items"]
        assert record["source"]["ip"] == ip


@pytest.mark.parametrize("wrong", ["*", "proxy.example", "127.0.0.1,10.0.0.1/8", "10.0.0.0/33"])
async def test_server_refuses_a_trusted_proxy_that_is_not_an_address(world: World, wrong: str) -> None:
    with pytest.raises(DecklogError, match=r"DECKLOG_API_TRUSTED_PROXIES: entry [12] is neither") as refused:
        async with serve(create_app(world.services, Settings()), "127.0.0.1", 0, freeze=False, trusted_proxies=wrong):
            pass
    assert refused.value.code is Code.MISCONFIGURED
    assert wrong not in refused.value.detail


# Errors as values


def test_problem_has_every_member_and_no_internal_value() -> None:
    rate = Rate(10.0, 20, 0.0)
    error = DecklogError(Code.RATE_LIMITED, "Slower.", retry_after=0.2, extra={"rate": rate, "parameter": "x", "status": 1})
    assert problem(error, "r-1") == {
        "type": "https://decklog.dev/problems/rate-limited",
        "title": "Rate limit reached",
        "status": 429,
        "code": "rate-limited",
        "detail": "Slower.",
        "instance": "r-1",
        "retry_after": 1,
        "parameter": "x",
    }
    assert json.dumps(problem(error, "r-1"))


@pytest.mark.parametrize("code", list(Code))
def test_error_code_has_status_close_code_and_retry_after(code: Code) -> None:
    error = DecklogError(code, "x")
    status, title = STATUSES[code]
    assert 400 <= status < 600
    assert title
    assert close_code(error) in (1011, 1013) or close_code(error) == 4000 + status
    assert (retry_after(error) is not None) is (status in (429, 503))


# Tokens through the whole edge


async def test_jwt_of_a_trusted_issuer_works_within_its_tenant_and_role() -> None:
    key = ECKey.generate_key("P-256", {"kid": "k"})

    async def keys(url: str) -> bytes:
        return json.dumps({"keys": [key.as_dict(private=False)]}).encode()

    config = IssuerConfig(
        issuer="https://issuer.example", audience="decklog", algorithms=["ES256"], tenants=["acme"], jwks_url="https://x"
    )

    def token(tenant: str, role: str) -> str:
        now = int(time.time())
        claims = {"iss": config.issuer, "aud": "decklog", "sub": "alice", "iat": now, "exp": now + 300}
        return jwt.encode(
            {"alg": "ES256", "kid": "k"}, {**claims, "decklog_tenant": tenant, "decklog_role": role}, key, ["ES256"]
        )

    async with running_world(issuers=Issuers([config], fetch=keys)) as world, world.client() as client:
        for role, post, get in (("writer", 201, 403), ("auditor", 403, 200), ("admin", 201, 200)):
            headers = {"Authorization": f"Bearer {token('acme', role)}"}
            for _ in range(2):
                assert (await client.post("/api/v1/logs", json=RECORD, headers=headers)).status_code == post
                assert (await client.get("/api/v1/logs", headers=headers)).status_code == get
            me = (await client.get("/api/v1/whoami", headers=headers)).json()
            assert (me["kind"], me["subject"], me["issuer"], me["role"]) == ("jwt", "alice", config.issuer, role)
        for tenant, role in (("other", "writer"), ("acme", "platform"), ("decklog", "auditor")):
            response = await client.post("/api/v1/logs", json=RECORD, headers={"Authorization": f"Bearer {token(tenant, role)}"})
            assert (response.status_code, code_of(response)) == (401, "unauthenticated")
