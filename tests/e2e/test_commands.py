"""The commands of the control plane, as typed, on a real installation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from decklog.timescale.connection import SERVICE_ROLE, WORKER_ROLE
from tests.backends import PostgresServer
from tests.support.dev import ROOT, decklog
from tests.support.relay import Relay
from tests.support.stack import Program, Stack, free_port, installed
from tests.support.stores import drop_database, new_database


@pytest.fixture
async def stack(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Stack]:
    """An installation over PostgreSQL alone, without a tenant."""
    database = await new_database(postgres_server)
    try:
        async with installed(tmp_path, service_dsn=database.service_dsn, owner_dsn=database.owner_dsn) as made:
            yield made
    finally:
        await drop_database(database)


async def test_tenants_prints_the_table_with_the_least_role(stack: Stack) -> None:
    least = {"DECKLOG_DATABASE_DSN": stack.variables["DECKLOG_DATABASE_DSN"]}
    empty = decklog("tenants", variables=least)
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "There are no tenants.\n")
    await stack.provision(beta={"retention": {"days": 60}, "isolation": "Shared"}, acme={"retention": {"days": 365}})
    lines = decklog("tenants", variables=least).stdout.splitlines()
    assert lines[0].split() == ["NAME", "READY", "REASON", "ISOLATION", "RETENTION", "AGE"]
    assert [line.split()[:5] for line in lines[1:]] == [
        ["acme", "True", "Ready", "Dedicated", "365"],
        ["beta", "True", "Ready", "Shared", "60"],
    ]
    everybody = decklog(
        "tenants", "--all", variables={"DECKLOG_DATABASE_OWNER_DSN": stack.variables["DECKLOG_DATABASE_OWNER_DSN"]}
    )
    assert [line.split()[0] for line in everybody.stdout.splitlines()[1:]] == ["acme", "beta", "decklog"]
    items = json.loads(decklog("tenants", "--json", variables=least).stdout)["items"]
    assert [(item["name"], item["spec"]) for item in items] == [
        ("acme", {"retention": {"days": 365}}),
        ("beta", {"retention": {"days": 60}, "isolation": "Shared"}),
    ]


def test_tenants_names_the_missing_variable_without_a_database() -> None:
    told = decklog("tenants", variables={})
    assert (told.returncode, told.stdout) == (2, "")
    assert "DECKLOG_DATABASE_DSN" in told.stderr


# decklog plan


def manifest(folder: Path, name: str, text: str = "retention: {days: 30}") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"apiVersion: decklog.dev/v1\nkind: Tenant\nmetadata: {{name: {name}}}\nspec: {{{text}}}\n")
    return path


def test_plan_shows_every_action_without_backends() -> None:
    told = decklog("plan", "-f", str(ROOT / "manifests" / "examples"), variables={})
    assert (told.returncode, told.stderr) == (0, "")
    first, second, *rest = told.stdout.splitlines()
    assert first.startswith("Offline")
    assert second.startswith("decklog:")
    assert [line for line in rest if not line.startswith(" ")] == [f"{name}: 7 to do" for name in ("acme", "globex", "minimal")]
    assert any(line.startswith("  search       CreateIndex         index=decklog-shared-90 generation=v") for line in rest)
    detailed = decklog("plan", "-f", str(ROOT / "manifests/examples/minimal.yaml"), "--detailed-exitcode", variables={})
    assert detailed.returncode == 3


def test_plan_offline_covers_the_configured_parts_only() -> None:
    example = str(ROOT / "manifests/examples/dedicated.yaml")
    # Nobody listens there: nothing is asked.
    variables = {
        "DECKLOG_DATABASE_OWNER_DSN": "postgresql://127.0.0.1:9/x",
        "DECKLOG_SEARCH_URL": "http://127.0.0.1:9",
        "DECKLOG_PREFIX": "audit",
    }
    told = decklog("plan", "--offline", "--json", "-f", example, variables=variables)
    assert told.returncode == 0, told.stderr
    shown = json.loads(told.stdout)
    assert (shown["offline"], shown["platform_first"]) == (True, True)
    [tenant] = shown["tenants"]
    assert {action["part"] for action in tenant["actions"]} == {"DatabaseReady", "SearchReady", "CredentialsReady"}
    assert [action["index"] for action in tenant["actions"] if action["action"] == "CreateIndex"] == ["audit-t-acme"]


def test_plan_offline_refuses_an_unknown_cell() -> None:
    example = str(ROOT / "manifests/examples/dedicated.yaml")
    told = decklog("plan", "--offline", "-f", example, variables={"DECKLOG_CELL": "eu-1"})
    assert told.returncode == 1
    assert "acme: refused (UnknownCell). There is no cell 'default' in this installation, which has 'eu-1' alone." in told.stdout


async def test_plan_compares_with_the_backends_and_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    acme = manifest(tmp_path, "acme", "displayName: Acme, retention: {days: 30}")
    words = ["plan", "-f", str(acme), "--detailed-exitcode"]
    owner = {"DECKLOG_DATABASE_OWNER_DSN": stack.variables["DECKLOG_DATABASE_OWNER_DSN"]}
    before = decklog(*words, variables=owner)
    assert before.returncode == 3
    assert before.stdout.splitlines()[:2] == ["decklog: the platform's own tenant is created first", "acme: 5 to do"]
    assert decklog(*words, variables=owner).stdout == before.stdout
    assert decklog("tenants", "--all", variables=owner).stderr == "There are no tenants.\n"

    await stack.provision(acme={"displayName": "Acme", "retention": {"days": 30}})
    settled = decklog(*words, variables=owner)
    assert (settled.returncode, settled.stdout) == (0, "acme: nothing to do\n")
    manifest(tmp_path, "acme", "displayName: Other, retention: {days: 30}")
    edited = decklog("plan", "-f", str(acme), variables=owner)
    assert edited.returncode == 0
    assert edited.stdout.startswith("acme: 1 to do (changes spec.displayName)\n  database     UpdateTenant")

    other = manifest(tmp_path, "other")
    manifest(tmp_path, "acme", "isolation: Shared, retention: {days: 30}")
    refused = decklog("plan", "-f", str(acme), "-f", str(other), variables=owner)
    assert refused.returncode == 1
    assert refused.stdout.startswith("acme: refused (Immutable). spec.isolation is Dedicated")
    assert "\nother: 5 to do\n" in refused.stdout

    unseen = decklog("plan", "-f", str(other), variables={**owner, "DECKLOG_SEARCH_URL": "http://127.0.0.1:9"})
    assert unseen.returncode == 1
    assert "  search       not seen (Unreachable)" in unseen.stdout


async def test_plan_names_the_wrong_file_or_setting(stack: Stack, tmp_path: Path) -> None:
    good = manifest(tmp_path, "good")
    twice = tmp_path / "twice.yaml"
    twice.write_text(f"{good.read_text()}---\n{good.read_text()}")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    empty = tmp_path / "empty"
    empty.mkdir()
    for file, words in (
        (manifest(tmp_path, "bad", "retention: {days: 0}"), ["bad.yaml", "retention.days"]),
        (manifest(tmp_path, "decklog"), ["decklog.yaml", "reserved"]),
        (twice, ["twice.yaml", "good"]),
        (binary, ["binary.yaml", "is not YAML"]),
        (empty, ["no Tenant"]),
        (tmp_path / "missing.yaml", ["missing.yaml", "cannot be read"]),
    ):
        told = decklog("plan", "-f", str(file), variables={})
        assert (told.returncode, told.stdout) == (2, ""), file
        assert all(word in told.stderr for word in words), told.stderr
    least = {"DECKLOG_DATABASE_DSN": stack.variables["DECKLOG_DATABASE_DSN"]}
    told = decklog("plan", "-f", str(good), variables=least)
    assert (told.returncode, told.stdout) == (2, "")
    assert "DECKLOG_DATABASE_OWNER_DSN" in told.stderr


# decklog worker


async def test_worker_starts_with_a_dsn_alone(stack: Stack) -> None:
    port = free_port()
    dsn = stack.variables["DECKLOG_DATABASE_DSN"].replace(SERVICE_ROLE, WORKER_ROLE)
    given = {"DECKLOG_DATABASE_DSN": dsn, "DECKLOG_WORKER_METRICS_PORT": str(port)}
    worker = Program("worker", {"PATH": "/usr/bin:/bin", **given}, stack.folder / "worker.log", port)
    worker.start()
    try:
        await worker.ready()
    finally:
        code = worker.stop()
    assert code == 0, worker.log.read_text()


# decklog migrate


def test_migrate_fails_without_a_database_and_waits_for_it_on_request(stack: Stack) -> None:
    dsn = urlsplit(stack.variables["DECKLOG_DATABASE_OWNER_DSN"])
    relay = Relay(dsn.hostname or "", dsn.port or 0)
    relay.cut()
    address = dsn.netloc.rpartition("@")[0] + f"@127.0.0.1:{relay.port}"
    variables = {"DECKLOG_DATABASE_OWNER_DSN": dsn._replace(netloc=address).geturl()}
    away = decklog("migrate", variables=variables)
    assert (away.returncode, away.stderr.splitlines()[-1]) == (
        2,
        "decklog: The database cannot be reached or refused the work. Try again.",
    )
    waiting = subprocess.Popen(
        [sys.executable, "-m", "decklog", "migrate", "--wait=100"],
        env={"PATH": "/usr/bin:/bin", **variables},
        stderr=subprocess.PIPE,
    )
    assert waiting.poll() is None
    relay.mend()
    assert waiting.wait(timeout=120) == 0
    relay.close()
