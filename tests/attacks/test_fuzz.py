"""Random requests with any credential over every route: no byte of another tenant, no unexpected failure."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from decklog.api.app import openapi_document
from tests.attacks.conversation import Findings, judge, run
from tests.attacks.fuzz import Credential, Fuzz, Sent
from tests.attacks.wire import Answer, unhandled
from tests.backends import PostgresServer
from tests.support.chance import seeded
from tests.support.stack import Program, Stack, installed
from tests.support.stores import drop_database, new_database

SPECS: dict[str, dict[str, object]] = {
    "dedicated_a": {"retention": {"days": 30}},
    "dedicated_b": {"retention": {"days": 30}},
    "shared_a": {"isolation": "Shared", "retention": {"days": 30}},
    "shared_b": {"isolation": "Shared", "retention": {"days": 30}},
}
TENANTS = tuple(name.replace("_", "-") for name in SPECS)
ROLES = ("writer", "auditor", "admin")
RECORDS = 12
CONNECTIONS = 24
SMALL = 2_000
FULL = pytest.param(100_000, marks=[pytest.mark.endurance, pytest.mark.timeout(3_600)])
NOBODY = ("", "dlk_0000000000000000_" + "0" * 64, "a.b.c", "x" * 9_000, "~", "eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4ifQ.")


@dataclass
class World:
    """An API process over records that carry the secret marker of their tenant."""

    stack: Stack
    api: Program
    markers: dict[str, str]
    viewers: list[str] = field(default_factory=list)
    """Viewer tokens of scopes without records: an answer to one with any marker has it from outside of the scope."""

    @property
    def credentials(self) -> list[Credential]:
        made = [Credential(self.stack.key(tenant, role), tenant, role) for tenant in TENANTS for role in ROLES]
        made.append(Credential(self.stack.platform_key, kind="platform"))
        made += [Credential(token, kind="viewer") for token in self.viewers]
        return [*made, *(Credential(bearer) for bearer in NOBODY)]


def record(marker: str, number: int) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "action": f"act{number % 3}.{marker}",
        "actor": {"id": f"{marker}-{number % 4}", "name": marker},
        "resource": {"type": "document", "id": f"{marker}-{number}"},
        "message": f"hello {marker} number{number}",
        "session_id": marker,
        "metadata": {"mark": marker, "n": number},
        "before": {"mark": marker},
    }


@pytest.fixture
async def world(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[World]:
    database = await new_database(postgres_server)
    try:
        dsns = {"service_dsn": database.service_dsn, "owner_dsn": database.owner_dsn}
        async with installed(tmp_path, **dsns) as stack:
            await stack.provision(**SPECS)
            world = World(stack, await stack.api(), {tenant: f"mk{secrets.token_hex(12)}" for tenant in TENANTS})
            await stack.worker()
            for tenant, marker in world.markers.items():
                async with stack.client(world.api.url, stack.key(tenant, "writer")) as client:
                    answer = await client.post("/api/v1/logs/bulk", json=[record(marker, number) for number in range(RECORDS)])
                    assert answer.json()["stored"] == RECORDS, answer.text
            world.viewers += await minted(world, TENANTS[0])
            yield world
    finally:
        await drop_database(database)


async def minted(world: World, tenant: str) -> list[str]:
    """Viewer tokens of a tenant that show whole records and few fields, and no record that exists."""
    found = []
    async with world.stack.client(world.api.url, world.stack.key(tenant, "auditor")) as client:
        for fields in (None, ["action", "message", "metadata.n"]):
            scope = {"query": "action:none AND metadata.n:-1", "fields": fields, "expires_in": 3_600}
            answer = await client.post("/api/v1/viewer-tokens", json=scope)
            assert answer.status_code == 201, answer.text
            found.append(answer.json()["token"])
    return found


def answered(status: int, code: str, **headers: str) -> Answer:
    problem = json.dumps({"code": code, "status": status}).encode()
    return Answer(status, {"content-type": "application/problem+json", **headers}, problem)


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        (Answer(200, {}, b"... marker-of-a ..."), 0),
        (Answer(200, {}, b"... marker-of-b ..."), 1),
        (Answer(200, {"x-request-id": "marker-of-b"}, b""), 1),
        (answered(503, "overloaded", **{"retry-after": "1"}), 0),
        (answered(503, "overloaded"), 1),
        (answered(503, "registry-stale", **{"retry-after": "1"}), 1),
        (answered(500, "internal"), 1),
        (answered(422, "invalid-json"), 0),
        (answered(422, "no-such-code"), 1),
        (Answer(400, {"content-type": "text/plain"}, b"Bad Request"), 1),
    ],
)
def test_judge_finds_foreign_markers_failures_and_refusals_without_a_problem(answer: Answer, faults: int) -> None:
    fuzz = Fuzz(random.Random(0), {"paths": {}}, [], ["a", "b"], {"a": "marker-of-a", "b": "marker-of-b"})
    findings = Findings()
    judge(fuzz, Sent(b"", ("GET",), ("a",), ("",)), 0, answer, findings)
    assert len(findings.faults) == faults, findings.faults


@pytest.mark.parametrize("requests", [SMALL, FULL])
async def test_api_returns_no_foreign_byte_and_no_unexpected_failure_to_random_requests(world: World, requests: int) -> None:
    fuzz = Fuzz(seeded(), openapi_document(), world.credentials, TENANTS, world.markers)
    findings = await run(world.api.port, fuzz, requests, CONNECTIONS)
    print(f"{dict(sorted(findings.statuses.items()))}, {findings.unanswered} connections without an answer")
    assert findings.faults == [], "\n".join(findings.faults[:20])
    assert unhandled(world.api.log.read_text()) == []
    async with httpx.AsyncClient(base_url=world.api.url) as client:
        assert (await client.get("/readyz")).status_code == 200
    # The requests must have been of every kind, or nothing was shown.
    assert {200, 201, 401, 403, 404, 405, 422} <= set(findings.statuses)
    # Few of about fifty operations give records, and one credential of many is the one to give them to.
    assert findings.own_markers > requests / 100
    # A request that needs the number of something that exists is rare: a small round may miss it.
    rare = {"create_tenant"} | (fuzz.numbered if requests == SMALL else set())
    assert fuzz.operation_ids - rare <= set(findings.operations), "an operation never succeeded"
