"""The TypeScript client against real processes: kills, lost answers and broken transfers."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.senders.conftest import CLIENT, Node
from tests.support.dev import ROOT, Dev
from tests.support.faulty_proxy import Fault, FaultyProxy

TOTAL = 3_000
GUIDE = dict(
    re.findall(r"<!-- run: (\w+) -->\n```ts\n(.*?)```", (ROOT / "docs/guides/client-typescript.md").read_text(), re.DOTALL)
)
OPTIONS = [
    "--strict",
    "--exactOptionalPropertyTypes",
    "--target",
    "es2022",
    "--module",
    "nodenext",
    "--lib",
    "es2023,dom,dom.asynciterable",
]


@pytest.fixture
def variables(dev: Dev, proxy: FaultyProxy) -> dict[str, str]:
    return {"DECKLOG_URL": proxy.url, "DECKLOG_KEY": dev.content["tenants"]["acme"]["admin"]}


def last_line(printed: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return found


def stored_ids(dev: Dev) -> list[str]:
    with dev.client() as client:
        exported = client.get("/api/v1/logs/export", params={"action": "order.approve"})
    assert exported.status_code == 200, exported.text
    return [json.loads(line)["id"] for line in exported.text.splitlines()]


def waited(dev: Dev, count: int, program: subprocess.Popen[str]) -> None:
    """Wait until so many records are stored."""
    deadline = time.monotonic() + 60
    with dev.client() as client:
        while client.get("/api/v1/logs/stats").json()["total"] < count:
            assert program.poll() is None, program.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_each_record_is_stored_once_through_kills_refusals_and_lost_answers(
    node: Node, dev: Dev, proxy: FaultyProxy, variables: dict[str, str]
) -> None:
    faults: list[Fault] = ["pass", "lose", "pass", "refuse", "half", "pass"]
    proxy.fault = lambda number, _path: faults[number % len(faults)]
    program = node.start("node", "use.ts", "send", str(TOTAL), variables=variables)
    waited(dev, TOTAL // 4, program)
    dev.signal(signal.SIGKILL)
    dev.start()
    printed, _ = program.communicate(timeout=120)
    assert program.returncode == 0, printed
    counts = last_line(printed)
    assert stored_ids(dev) == [f"r-{n}" for n in range(TOTAL)]
    assert counts["recorded"] == counts["stored"] + counts["duplicates"] == TOTAL
    assert counts["duplicates"] >= 100
    assert counts["retries"] >= 10
    assert (counts["waiting"], counts["refused"], counts["lastError"]) == (0, 0, None)


def test_stream_misses_and_doubles_nothing_over_broken_connections(
    node: Node, dev: Dev, proxy: FaultyProxy, variables: dict[str, str]
) -> None:
    have = len(stored_ids(dev))
    with dev.client() as client:
        program = node.start("node", "use.ts", "tail", str(have + 200), variables=variables)
        assert program.stdout is not None
        for n in range(200):
            if n % 50 == 0:
                assert json.loads(program.stdout.readline())
                assert proxy.cut() == 1
            record = {"id": f"t-{n}", "action": "order.cancel" if n % 2 else "order.ship", "actor": {"id": "bob"}}
            client.post("/api/v1/logs", json=record).raise_for_status()
            client.post("/api/v1/logs", json={"action": "noise", "actor": {"id": "bob"}}).raise_for_status()
        found = last_line(program.communicate(timeout=60)[0])
        listed = client.get("/api/v1/logs/export", params={"q": "action:order.*", "fields": "seq"}).text.splitlines()
    assert found["seen"] == [json.loads(line)["seq"] for line in listed]
    assert found["connections"] >= 4


def test_export_continues_where_a_transfer_broke(node: Node, dev: Dev, proxy: FaultyProxy, variables: dict[str, str]) -> None:
    proxy.fault = lambda number, _path: "half" if number < 3 else "pass"
    found = last_line(node.run("node", "use.ts", "export", variables=variables))
    assert found["ids"] == stored_ids(dev)
    assert proxy.requests == 4


def test_search_pages_filters_by_metadata_and_throws_problems(
    node: Node, dev: Dev, proxy: FaultyProxy, variables: dict[str, str]
) -> None:
    proxy.fault = lambda number, _path: "lose" if number % 3 == 1 else "pass"
    found = last_line(node.run("node", "use.ts", "search", "1000", variables=variables))
    assert found["seqs"] == found["exports"] == [found["seq"]]
    assert sum(found["sizes"]) == len(stored_ids(dev))
    assert len(found["sizes"]) >= 3
    assert found["code"] == "invalid-parameter"


def test_unit_tests_of_the_client_pass(node: Node) -> None:
    printed = node.run("node", "--test", *sorted((CLIENT / "test").glob("*.test.ts")))
    assert int(re.findall(r"pass (\d+)", printed)[0]) > 20
    assert "fail 0" in printed


@pytest.fixture(scope="module")
def compiled(node: Node) -> Path:
    """The programs of these tests and the examples of the guide, compiled with the published types."""
    for name, text in GUIDE.items():
        (node.folder / f"guide-{name}.ts").write_text(text)
    (node.folder / "process.d.ts").write_text(
        "declare const process: { argv: string[]; env: Record<string, string | undefined> };"
    )
    names = sorted(path.name for path in node.folder.glob("*.ts"))
    node.run("tsc", *OPTIONS, "--outDir", "compiled", *names)
    return node.folder / "compiled"


def test_examples_of_the_guide_do_what_they_say(compiled: Path, node: Node, dev: Dev, variables: dict[str, str]) -> None:
    assert set(GUIDE) == {"send", "refused", "read", "tail"}
    before = len(stored_ids(dev))
    printed = {name: node.run("node", compiled / f"guide-{name}.js", variables=variables) for name in GUIDE}
    assert len(stored_ids(dev)) == before + 1
    assert printed["send"] == ""
    assert "invalid-record" in printed["refused"]
    assert "refused: 1," in printed["refused"]
    assert "1 of 1" in printed["read"]
    assert printed["tail"].splitlines()[-1] == "order.approve"


def test_package_runs_on_the_oldest_node_it_names(compiled: Path, node: Node, variables: dict[str, str]) -> None:
    """Where the machine has a Node of its own, that is another one than the Node of the lock."""
    own = shutil.which("node", path="/usr/local/bin:/usr/bin:/bin")
    version = subprocess.run([own, "--version"], capture_output=True, text=True, check=True).stdout if own else ""
    if not version.startswith("v20."):
        pytest.skip("this machine has no Node 20")
    assert (
        last_line(node.run(str(own), compiled / "use.js", "search", "1000", variables=variables))["code"] == "invalid-parameter"
    )


def test_package_has_no_dependency_and_holds_the_built_files_only(node: Node) -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    assert {name for name in package if "ependencies" in name} == set()
    listed = json.loads(
        node.run("npm", "pack", "--dry-run", "--json", "--loglevel=error", cwd=node.folder / "node_modules/@decklog/client")
    )
    names = {each["path"] for each in listed[0]["files"]}
    assert {"package.json", "dist/index.js", "dist/index.d.ts", "dist/schema.d.ts"} <= names
    assert {Path(name).suffix for name in names} == {".json", ".js", ".ts"}
    assert not any(name.endswith(".ts") and not name.endswith(".d.ts") for name in names)
