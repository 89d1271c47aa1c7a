"""Each record is stored once, although applications are killed, the server restarts, answers are lost and the disk is full."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from decklog.domain.identity.access import Role
from decklog_client import Options
from decklog_client.spool import Spool
from tests.clients_python.storm import Storm
from tests.clients_python.test_sending import stored
from tests.support.api_world import World
from tests.support.dev import ROOT, Dev

pytestmark = pytest.mark.chaos

FILE_BYTES_MAX = 40_000
"""Bytes of a file for the applications, less than a segment may have: writes fail in the middle of a record, as on a full disk."""


class Applications:
    """Applications that share a spool, one after the other or at once, and what they were told."""

    def __init__(self, url: str, key: str, spool: Path) -> None:
        self._url, self._key, self.spool = url, key, spool
        self.told: dict[str, list[str]] = {}
        self.kills = 0

    def run(self, name: str, count: int, *, kill_after: int | None) -> None:
        """Run an application until it has stored `count` records, or kill it after it has printed `kill_after` lines."""
        argv = [sys.executable, "-m", "tests.clients_python.application", self._url, str(self.spool), name, str(count)]
        process = subprocess.Popen(
            [*argv, str(FILE_BYTES_MAX)],
            cwd=ROOT,
            env={**os.environ, "DECKLOG_KEY": self._key},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == kill_after:
                process.send_signal(signal.SIGKILL)
                self.kills += 1
        process.wait(timeout=60)
        if kill_after is None:
            assert process.returncode == 0
            assert lines.pop() == "done\n"
        self.told[name] = [line.split()[0] for line in lines if line.endswith("\n")]


def all_of(dev: Dev) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with dev.client() as api:
        cursor: str | None = ""
        while cursor is not None:
            parameters = {"action": "chaos.step", "sort": "received_at", "limit": "1000"} | ({"cursor": cursor} if cursor else {})
            page = api.get("/api/v1/logs", params=parameters).raise_for_status().json()
            found += page["items"]
            cursor = page["next"]
    return found


@contextmanager
def restarting(dev: Dev, times: int, between: float) -> Iterator[None]:
    """Restart the server again and again meanwhile, at least once."""
    stop = threading.Event()

    def restart() -> None:
        for _ in range(times):
            stop.wait(between)
            dev.signal(signal.SIGTERM)
            dev.start()

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def attack(storm: Storm, applications: Applications, *, count: int, kills: int, seed: int) -> None:
    """Record `count` records by applications of which all but the last one are killed."""
    chance = random.Random(seed)
    share = count // (kills + 1)
    for number in range(kills):
        applications.run(f"app-{number}", 10 * share, kill_after=share - chance.randrange(share // 4))
    storm.calm = True
    # A killed application may have been told more than the lines after which it was killed.
    applications.run("last", max(1, count - sum(map(len, applications.told.values()))), kill_after=None)
    wait_until_empty(applications.spool)


def wait_until_empty(spool: Path) -> None:
    """The last application committed its own records; those of the killed ones are sent by another client."""
    left = Spool(spool, Options())
    left.adopt()
    assert not left.waiting


def check(world: Applications, records: list[dict[str, Any]], count: int) -> None:
    ids = Counter(record["id"] for record in records)
    assert [name for name, times in ids.items() if times > 1] == []
    told = {name for names in world.told.values() for name in names}
    assert len(told) >= count
    assert told - ids.keys() == set()
    # A record may be on disk while its application is killed before it hears so.
    assert len(ids.keys() - told) <= world.kills
    for name, names in world.told.items():
        mine = [record["id"] for record in records if record["actor"]["id"] == name]
        assert mine[: len(names)] == names, f"{name}: the order changed"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk that has room for about 400 records, where the tests may mount one; else an ordinary folder."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=False, capture_output=True)
    try:
        yield folder
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)


async def test_records_are_stored_once_through_kills_and_storms(world: World, tmp_path: Path) -> None:
    storm = Storm(lambda: world.url, seed=7)
    applications = Applications(storm.url, world.keys["acme", Role.WRITER], tmp_path / "spool")
    try:
        await asyncio.to_thread(attack, storm, applications, count=500, kills=2, seed=7)
    finally:
        storm.close()
    check(applications, await stored(world), 500)
    assert {"503", "lost request", "lost answer", "forwarded"} <= storm.did.keys()


@pytest.mark.endurance
def test_ten_thousand_records_are_stored_once_through_restarts_and_full_disks_as_well(tmp_path: Path) -> None:
    dev, seed = Dev(tmp_path), random.randrange(10**6)
    dev.start()
    storm = Storm(lambda: str(dev.content["url"]), seed=seed)
    try:
        with small_disk(tmp_path / "spool") as spool:
            applications = Applications(storm.url, dev.content["tenants"]["acme"]["writer"], spool)
            with restarting(dev, 5, 3.0):
                attack(storm, applications, count=10_000, kills=25, seed=seed)
        check(applications, all_of(dev), 10_000)
    finally:
        storm.close()
        dev.close()
    print(seed, dict(storm.did))
    assert {"503", "lost request", "lost answer", "too large", "server down"} <= storm.did.keys()
