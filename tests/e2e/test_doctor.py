"""`decklog doctor` on a healthy installation, on one with a drifted tenant, and on one with a stopped database."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from decklog.assembly.control_plane import open_provisioner
from decklog.cli.dev_folder import DevFolder
from decklog.domain.tenancy.spec import parse_spec
from tests.backends import PostgresServer
from tests.support.dev import Dev, decklog
from tests.support.stack import installed
from tests.support.stores import drop_database, new_database


def doctor(url: str, key: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `decklog doctor` as a process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
    return subprocess.run(
        [sys.executable, "-m", "decklog", "doctor", *words],
        env={**kept, "DECKLOG_URL": url, "DECKLOG_KEY": key}, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip


def examine(dev: Dev, *words: str, role: str = "admin") -> subprocess.CompletedProcess[str]:
    return doctor(dev.content["url"], dev.content["tenants"]["acme"][role], *words)


def test_doctor_passes_on_a_healthy_installation_as_text_and_json(dev: Dev) -> None:
    done = examine(dev)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"{dev.content['url']} is healthy.\n")
    as_json = examine(dev, "--json")
    report = json.loads(as_json.stdout)
    assert (as_json.returncode, report["healthy"]) == (0, True)
    assert {finding["outcome"] for finding in report["findings"]} == {"ok"}
    assert dev.content["tenants"]["acme"]["admin"] not in done.stdout + as_json.stdout


def test_doctor_exits_2_on_wrong_use_and_1_on_a_failed_check(dev: Dev) -> None:
    assert examine(dev, "--timeout", "0").returncode == 2
    assert examine(dev, "--url", "ftp://x").returncode == 2
    refused = examine(dev, role="writer")
    assert refused.returncode == 1
    assert "Use the key of the role admin" in refused.stdout


def check_database(dev: Dev, *words: str) -> tuple[int, dict[str, str]]:
    """Return the exit code of `decklog doctor --database`, and the outcome of each subject."""
    done = decklog("doctor", "--database", "--data-dir", str(dev.data), "--json", *words)
    return done.returncode, {each["check"]: each["outcome"] for each in json.loads(done.stdout)["findings"]}


async def as_superuser(dev: Dev, statement: str) -> None:
    connection = await asyncpg.connect(DevFolder(dev.data).running_settings().database.admin_dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_doctor_finds_a_record_that_a_superuser_changed_in_the_database(dev: Dev) -> None:
    with dev.client(role="writer") as client:
        assert client.post("/api/v1/logs", json={"action": "door.open", "actor": {"id": "alice"}}).status_code == 201
    code, outcomes = check_database(dev)
    assert (code, set(outcomes.values())) == (0, {"ok"})
    [log] = [subject for subject in outcomes if "acme" in subject and "events" in subject]
    schema = (await relation_of(dev, "acme")).replace('"', "")
    await as_superuser(dev, f"""UPDATE "{schema}".records SET content = replace(content, 'alice', 'mallo') WHERE log = 0""")
    try:
        code, outcomes = check_database(dev)
        assert code == 1
        assert [subject for subject, outcome in outcomes.items() if outcome != "ok"] == [log]
        as_text = decklog("doctor", "--database", "--data-dir", str(dev.data))
        assert as_text.returncode == 1
        assert "find out who connected as a superuser or as the owner" in as_text.stdout
    finally:
        await as_superuser(dev, f"""UPDATE "{schema}".records SET content = replace(content, 'mallo', 'alice') WHERE log = 0""")
    assert check_database(dev)[0] == 0


def test_doctor_refuses_a_data_folder_without_a_check_of_the_database(dev: Dev) -> None:
    done = decklog("doctor", "--data-dir", str(dev.data))
    assert done.returncode == 2
    assert "--data-dir names the database that --database checks" in done.stderr


async def relation_of(dev: Dev, tenant: str) -> str:
    connection = await asyncpg.connect(DevFolder(dev.data).running_settings().database.admin_dsn)
    try:
        found: str = await connection.fetchval("SELECT schema FROM decklog.tenants WHERE name = $1", tenant)
        return found
    finally:
        await connection.close()


@contextmanager
def stopped(dev: Dev) -> Iterator[None]:
    """Stop the processes of PostgreSQL with SIGSTOP, as on a machine that hangs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(dev.data) in words and "postgres" in words.split("\0")[0]:
            found.append(int(entry.parent.name))
    children = [
        int(entry.parent.name)
        for entry in Path("/proc").glob("[0-9]*/stat")
        if int(entry.read_text().rpartition(")")[2].split()[1]) in found
    ]
    assert found
    for pid in (*found, *children):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in (*found, *children):
            os.kill(pid, signal.SIGCONT)


def test_doctor_names_a_stopped_database(dev: Dev) -> None:
    with stopped(dev):
        done = examine(dev, "--ready")
        assert done.returncode == 1
        assert "FAILED   database: The API cannot use it: " in done.stdout
        assert "Check that PostgreSQL runs" in done.stdout
    assert examine(dev, "--ready").returncode == 0


async def test_doctor_fails_for_a_drifted_tenant_until_the_drift_is_gone(postgres_server: PostgresServer, tmp_path: Path) -> None:
    database = await new_database(postgres_server)
    spec = {"isolation": "Shared", "retention": {"days": 30}, "driftPolicy": "Report"}
    burst = "UPDATE decklog.heads SET burst = burst + $1 WHERE log = 0 AND tenant_id = (SELECT id FROM decklog.tenants WHERE name = $2)"
    try:
        async with installed(tmp_path, service_dsn=database.service_dsn, owner_dsn=database.owner_dsn) as stack:
            await stack.provision(probes=spec)
            api = await stack.api()
            for change, code in ((0, 0), (1, 1), (-1, 0)):
                await database.execute(burst, change, "probes")
                async with open_provisioner(stack.settings) as provisioner:
                    await provisioner.reconcile(await provisioner.manifest("probes", parse_spec(spec)), stack.vault)
                done = await asyncio.to_thread(doctor, api.url, stack.key("probes", "admin"))
                assert done.returncode == code, done.stdout + done.stderr
                assert ("Synced is False (Drifted)" in done.stdout) is (code == 1)
    finally:
        await drop_database(database)
