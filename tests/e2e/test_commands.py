"""The commands that look at the control plane, as typed, on a real installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.backends import PostgresServer
from tests.support.stack import Stack, installed
from tests.support.stores import drop_database, new_database


@pytest.fixture
async def stack(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Stack]:
    """PostgreSQL alone, migrated, without a tenant."""
    database = await new_database(postgres_server)
    try:
        async with installed(tmp_path, service_dsn=database.service_dsn, owner_dsn=database.owner_dsn) as made:
            yield made
    finally:
        await drop_database(database)


def decklog(*words: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What the program prints, with these settings and no others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
    return subprocess.run(
        [sys.executable, "-m", "decklog", *words],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


async def test_the_table_shows_the_tenants_and_needs_no_more_than_the_least_role(stack: Stack) -> None:
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


def test_without_a_database_the_table_says_which_variable_is_missing() -> None:
    told = decklog("tenants", variables={})
    assert (told.returncode, told.stdout) == (2, "")
    assert "DECKLOG_DATABASE_DSN" in told.stderr
