"""README.md: short, and its commands do what it says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, script

README = (ROOT / "README.md").read_text()
LINES_MAX = 150
WORDS_MAX = 1_200


def test_readme_stays_short() -> None:
    assert len(README.splitlines()) <= LINES_MAX
    assert len(README.split()) <= WORDS_MAX


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder like a new clone, with `decklog dev` running in it on a free port."""
    tmp_path = tmp_path_factory.mktemp("clone")
    for name in (".venv", "manifests"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [tmp_path / ".venv/bin/decklog", "dev", "--port", "0", "--ready-file", "ready"],
            cwd=tmp_path, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield tmp_path
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0, (tmp_path / "log").read_text()


def run(text: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail"], input=text, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "problems/" not in done.stdout, done.stdout
    return done.stdout


def documents(text: str) -> list[dict[str, Any]]:
    """The JSON documents in a text that has nothing else."""
    found, decoder = [], json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def test_readme_tour_stores_a_record_finds_it_and_shows_who_looked(dev: Path) -> None:
    stored, found, looked = documents(run(script("README.md", "curl"), dev))
    assert stored["status"] == "stored"
    [record] = found["items"]
    assert (record["seq"], record["id"]) == (stored["seq"], "order-17")
    assert record["metadata"] == {"amount": 250, "password": "[masked]"}
    assert record["masked"] == ["/metadata/password"]
    access = looked["items"][0]
    shown = json.loads("{" + README.partition("```json\n")[2].partition("```")[0] + "}")
    assert (access["action"], access["outcome"]) == (shown["action"], shown["outcome"])
    assert access["metadata"] == shown["metadata"]
    assert access["actor"].keys() == shown["actor"].keys()
    assert access["source"].keys() == shown["source"].keys()


def test_embedded_tour_runs_as_typed(dev: Path) -> None:
    shown = run(script("docs/start/embedded.md", "embedded"), dev)
    assert '"status":"stored"' in shown
    assert '"status":"duplicate"' in shown
    assert '"stored":1' in shown
    assert '"rejected":1' in shown
    assert '"count":' in shown
    assert "seq,received_at,occurred_at,action,actor_type," in shown
    assert "never stored" not in shown
    assert '"masked":["/metadata/password"]' in shown
    assert '"action":"log.search"' in shown
    assert '"action":"log.export.close"' in shown
    assert re.search(r'"name":"initech".*"keys":\{"writer":"dlk_', shown)
    assert "event: record" in shown
    first, second = (json.loads(line) for line in re.findall(r'\{"tenant":"acme".*?"status":"\w+"\}', shown)[:2])
    assert (first["seq"], first["status"], second["status"]) == (second["seq"], "stored", "duplicate")
    assert '"seq":0,' in shown.partition("event: record")[2].partition("event: record")[0], (
        "the stream starts with the first record"
    )


def test_dev_prints_a_curl_line_that_works_when_pasted(dev: Path) -> None:
    [line] = [line for line in (dev / "log").read_text().splitlines() if line.startswith("curl ")]
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["status"] == "stored"


def test_dev_json_holds_the_keys_for_its_owner_only(dev: Path) -> None:
    path = dev / ".decklog" / "dev.json"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    content = json.loads(path.read_text())
    assert content["url"] == (dev / "ready").read_text().strip()
    assert content["platform"]["key"].startswith("dlk_")
    assert set(content["tenants"]) >= {"acme", "globex", "minimal"}
    assert all(set(keys) == {"writer", "auditor", "admin"} for keys in content["tenants"].values())


def test_tilt_buttons_load_records_once_and_run_the_doctor(dev: Path) -> None:
    def task(name: str) -> str:
        argv: list[str | Path] = [dev / ".venv/bin/python", ROOT / "tools/dev/cluster.py", name]
        return subprocess.run(argv, cwd=dev, capture_output=True, text=True, check=True, timeout=240).stdout

    assert task("records") == "1000 stored, 0 already there, 0 rejected.\n"
    assert task("records") == "0 stored, 1000 already there, 0 rejected.\n"
    assert "is healthy." in task("doctor")
