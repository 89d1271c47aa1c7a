"""`decklog provision` over real backends: it creates and repairs the tenants of files, survives kills, and loses no key."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.backends import OpenSearchServer, PostgresServer
from tests.backends.sqs import SqsServer
from tests.e2e.conftest import whole
from tests.support.stack import Program, Stack, installed
from tests.support.stores import drop_database, new_database

RECORD = {"action": "document.create", "actor": {"id": "alice"}}
LONGEST = 120.0
OTHER = {"apiVersion": "decklog.dev/v1", "kind": "Tenant", "metadata": {"name": "other"}, "spec": {"retention": {"days": 30}}}


@pytest.fixture
async def stack(
    timescale_server: PostgresServer, opensearch_server: OpenSearchServer, sqs_server: SqsServer, tmp_path: Path
) -> AsyncIterator[Stack]:
    """An installation over TimescaleDB, OpenSearch and SQS that owns its tenants, without a tenant."""
    (tmp_path / "manifests").mkdir()
    async with whole(tmp_path, timescale_server, opensearch_server, sqs_server, DECKLOG_TENANTS_OWNER="decklog") as made:
        yield made


@pytest.fixture
async def small(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Stack]:
    """An installation over PostgreSQL alone that owns its tenants, without a tenant."""
    (tmp_path / "manifests").mkdir()
    database = await new_database(postgres_server)
    try:
        dsns = {"service_dsn": database.service_dsn, "owner_dsn": database.owner_dsn}
        async with installed(tmp_path, **dsns, DECKLOG_TENANTS_OWNER="decklog") as made:
            yield made
    finally:
        await drop_database(database)


def write(stack: Stack, name: str, spec: str, rotate: str = '""') -> None:
    metadata = f"{{name: {name}, annotations: {{decklog.dev/rotate: {rotate}}}}}"
    text = f"apiVersion: decklog.dev/v1\nkind: Tenant\nmetadata: {metadata}\nspec: {{retention: {{days: 30}}, {spec}}}\n"
    (stack.folder / "manifests" / f"{name}.yaml").write_text(text)


def words(stack: Stack, *more: str) -> list[str]:
    return ["--manifests", str(stack.folder / "manifests"), "--keys", str(stack.folder / "keys.json"), *more]


def kept(stack: Stack) -> dict[str, Any]:
    """Return the content of the file of keys; no tenants where it does not exist yet."""
    path = stack.folder / "keys.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"tenants": {}}
    return found


async def until(what: str, true: Callable[[], Awaitable[bool]]) -> None:
    try:
        async with asyncio.timeout(LONGEST):
            while not await true():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not so in {LONGEST:g} s: {what}") from None


async def ready(program: Program) -> bool:
    """Return whether its last pass found every tenant ready."""
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{program.url}/readyz")).status_code == 200


async def status(stack: Stack, api: Program, key: str) -> int:
    """Append with this key, and return the status once the process has read the registry."""
    async with stack.client(api.url, key) as client, asyncio.timeout(LONGEST):
        while (answer := (await client.post("/api/v1/logs", json=RECORD)).status_code) in (401, 503):
            await asyncio.sleep(0.1)
        return answer


def once(stack: Stack, *more: str, variables: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "decklog", "provision", *words(stack, *more), "--once"],
        env={"PATH": "/usr/bin:/bin", **stack.variables, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
    )


async def test_provision_creates_and_repairs_tenants_of_files_after_a_kill(
    stack: Stack, opensearch_server: OpenSearchServer
) -> None:
    write(stack, "acme", "credentials: {rotation: {intervalDays: 90}}")
    write(stack, "beta", "isolation: Shared")
    keeper = await stack.provisioner(*words(stack, "--interval", "1", "--platform-key", "--url", "http://127.0.0.1:1"))
    await until("both are ready", lambda: ready(keeper))
    before = kept(stack)
    assert (stack.folder / "keys.json").stat().st_mode & 0o777 == 0o600
    assert sorted(before["tenants"]) == ["acme", "beta"]
    assert all(set(keys) == {"writer", "auditor", "admin"} for keys in before["tenants"].values())
    assert before["url"] == "http://127.0.0.1:1"
    api = await stack.api()
    for name in ("acme", "beta"):
        assert await status(stack, api, before["tenants"][name]["writer"]) == 201
    async with stack.client(api.url, before["platform"]["key"]) as platform:
        listed = {each["name"]: each for each in (await platform.get("/api/v1/tenants")).json()["items"]}
    assert {listed[name]["conditions"][0]["status"] for name in ("acme", "beta")} == {"True"}

    keeper.kill()
    indices = f"{opensearch_server.url}/{stack.settings.prefix}-t-acme.*"
    async with httpx.AsyncClient() as client:
        assert (await client.get(indices)).json()
        assert (await client.delete(indices)).status_code == 200

        async def back() -> bool:
            return bool((await client.get(indices)).json())

        keeper.start()
        await keeper.ready()
        await until("the index is back", back)
    await until("all is well again", lambda: ready(keeper))
    assert kept(stack) == before
    assert await status(stack, api, before["tenants"]["acme"]["writer"]) == 201
    told = "".join(path.read_text() for path in stack.folder.glob("*.log"))
    assert "dlk_" not in told
    assert keeper.stop() == 0


@pytest.mark.chaos
async def test_provision_leaves_every_tenant_with_working_keys_when_killed_midway(stack: Stack) -> None:
    names = [f"tenant-{number}" for number in range(4)]
    for name in names:
        write(stack, name, "isolation: Shared")
    keeper = await stack.provisioner(*words(stack, "--interval", "1"))
    for count in (1, 3):

        async def some(count: int = count) -> bool:
            return len(kept(stack)["tenants"]) >= count

        await until(f"{count} have keys", some)
        keeper.kill()
        keeper.start()
        await keeper.ready()
    await until("all are ready", lambda: ready(keeper))
    api = await stack.api()
    keys = kept(stack)["tenants"]
    assert sorted(keys) == names
    for name in names:
        async with stack.client(api.url, keys[name]["admin"]) as client:
            assert (await client.get("/api/v1/whoami")).json()["tenant"] == name


async def test_provision_rotates_keys_when_due_or_requested_and_keeps_previous_ones_valid(small: Stack) -> None:
    schedule = "credentials: {rotation: {intervalDays: 30, overlapHours: 24}}"
    write(small, "acme", schedule)
    assert once(small).returncode == 0
    before = kept(small)["tenants"]["acme"]
    owner = await asyncpg.connect(small.variables["DECKLOG_DATABASE_OWNER_DSN"])
    await owner.execute("UPDATE decklog.api_keys SET created_at = created_at - interval '31 days'")
    await owner.close()
    keeper = await small.provisioner(*words(small, "--interval", "1"))
    await until("all is well", lambda: ready(keeper))
    after = kept(small)["tenants"]["acme"]
    assert {role for role in after if after[role] != before[role]} == {"writer", "auditor", "admin"}
    api = await small.api()
    assert [await status(small, api, keys["writer"]) for keys in (before, after)] == [201, 201]

    write(small, "acme", schedule, rotate="2026-11-26")  # which YAML takes for a date

    async def complained() -> bool:
        return "put it in quotes" in keeper.log.read_text()

    await until("it complains of the annotation", complained)
    assert kept(small)["tenants"]["acme"] == after
    write(small, "acme", schedule, rotate="'2026-11-26'")

    async def changed() -> bool:
        return bool(kept(small)["tenants"]["acme"] != after)

    await until("new keys are in the file", changed)
    last = kept(small)["tenants"]["acme"]
    assert [await status(small, api, keys["writer"]) for keys in (after, last)] == [201, 201]
    await until("all is well again", lambda: ready(keeper))
    assert kept(small)["tenants"]["acme"] == last


async def test_provision_keeps_tenants_of_the_api_and_reads_files_again(small: Stack) -> None:
    write(small, "acme", "displayName: Acme")
    keeper = await small.provisioner(*words(small, "--interval", "1", "--platform-key"))
    await until("it is ready", lambda: ready(keeper))
    api = await small.api()

    async def listed(name: str) -> dict[str, Any]:
        found: dict[str, Any] = (await platform.get(f"/api/v1/tenants/{name}")).json()
        return found

    async with small.client(api.url, kept(small)["platform"]["key"]) as platform:
        made = await platform.post("/api/v1/tenants", json=OTHER)
        assert made.status_code == 201, made.text
        scheduled = {**OTHER, "spec": {**OTHER["spec"], "credentials": {"rotation": {"intervalDays": 30}}}}  # type: ignore[dict-item]
        refused = await platform.post("/api/v1/tenants", json=scheduled)
        assert refused.status_code == 422
        assert "decklog provision" in refused.json()["detail"]

        (small.folder / "manifests" / "acme.yaml").write_text("kind: [")

        async def complained() -> bool:
            return "manifests cannot be read" in keeper.log.read_text()

        await until("it complains of the file", complained)
        assert (await listed("acme"))["spec"]["displayName"] == "Acme"
        write(small, "acme", "displayName: Acme Inc.")

        async def renamed() -> bool:
            return bool((await listed("acme"))["spec"]["displayName"] == "Acme Inc.")

        await until("the file is read again", renamed)
        assert (await listed("other"))["conditions"][0]["status"] == "True"
    assert set(kept(small)["tenants"]) == {"acme"}
    assert await status(small, api, made.json()["keys"]["writer"]) == 201


async def test_provision_once_reports_by_its_exit_code(small: Stack) -> None:
    write(small, "acme", "")
    away = once(small, variables={"DECKLOG_SEARCH_URL": "http://127.0.0.1:9"})
    assert away.returncode == 1
    assert "Not ready: acme: " in away.stderr
    assert once(small).returncode == 0
    keeper = await small.provisioner(*words(small, "--interval", "60"))
    await until("it is ready", lambda: ready(keeper))
    second = once(small)
    assert second.returncode == 2
    assert "Another decklog provision" in second.stderr
    assert keeper.stop() == 0

    foreign = once(small, variables={"DECKLOG_TENANTS_OWNER": "kubernetes"})
    assert foreign.returncode == 2
    assert "kubectl" in foreign.stderr
    (small.folder / "keys.json").write_text("{")
    broken = once(small)
    assert broken.returncode == 2
    assert "Move it away" in broken.stderr
    (small.folder / "keys.json").unlink()
    write(small, "acme", "isolation: Other")
    wrong = once(small)
    assert wrong.returncode == 2
    assert "acme.yaml" in wrong.stderr
