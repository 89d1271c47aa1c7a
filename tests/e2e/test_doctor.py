"""`decklog doctor` as typed, on a running installation that is well, and on one whose database stands still."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.dev import Dev


def examine(dev: Dev, *words: str, role: str = "admin") -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
    content = dev.content
    told = {"DECKLOG_URL": content["url"], "DECKLOG_KEY": content["tenants"]["acme"][role]}
    return subprocess.run(
        [sys.executable, "-m", "decklog", "doctor", *words],
        env={**kept, **told}, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip


def test_a_well_installation_is_told_so_for_people_and_for_programs(dev: Dev) -> None:
    done = examine(dev)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"{dev.content['url']} is well.\n")
    told = examine(dev, "--json")
    report = json.loads(told.stdout)
    assert (told.returncode, report["healthy"]) == (0, True)
    assert {finding["outcome"] for finding in report["findings"]} == {"ok"}
    assert dev.content["tenants"]["acme"]["admin"] not in done.stdout + told.stdout


def test_wrong_use_ends_with_two_and_what_is_wrong_with_one(dev: Dev) -> None:
    assert examine(dev, "--timeout", "0").returncode == 2
    assert examine(dev, "--url", "ftp://x").returncode == 2
    refused = examine(dev, role="writer")
    assert refused.returncode == 1
    assert "Use the key of the role admin" in refused.stdout


@contextmanager
def stopped(dev: Dev) -> Iterator[None]:
    """The processes of PostgreSQL stand still, as on a machine that hangs."""
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


def test_a_database_that_stands_still_is_named_with_what_to_do(dev: Dev) -> None:
    with stopped(dev):
        done = examine(dev, "--ready")
        assert done.returncode == 1
        assert "FAILED   database: The API cannot use it: " in done.stdout
        assert "Look at PostgreSQL" in done.stdout
    assert examine(dev, "--ready").returncode == 0
