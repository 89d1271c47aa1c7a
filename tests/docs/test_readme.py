"""The README says what is true: its tables are those of the code, its commands and paths exist, its tour runs as typed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def script(name: str) -> str:
    """The shell block behind the mark of a tour."""
    return README.partition(f"<!-- tour: {name} -->\n```sh\n")[2].partition("```")[0]


def test_every_path_that_is_named_exists() -> None:
    named = set(re.findall(r"\]\(([\w./-]+)\)", README)) | set(re.findall(r"-f (manifests/[\w./-]+)", README))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE))
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= known
    assert {"run", "test", "lint", "bench"} <= targets


def test_every_verb_of_the_programs_is_documented() -> None:
    for program, verbs in (
        (
            "decklog",
            [
                "dev",
                "api",
                "worker",
                "migrate",
                "provision",
                "platform-key",
                "plan",
                "tenants",
                "archive",
                "import",
                "doctor",
                "recover",
            ],
        ),
        ("decklog-operator", ["run", "crd", "manifests"]),
    ):
        told = subprocess.run([ROOT / ".venv/bin" / program, "--help"], capture_output=True, text=True, check=True).stdout
        for verb in verbs:
            assert verb in told
            assert re.search(rf"`{program}[^`]*\b{verb}\b", README), f"{program} {verb} is not in the README"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as a new clone has it, with `decklog dev` running in it on a free port."""
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


def test_the_curl_tour_runs_as_typed(dev: Path) -> None:
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail"], input=script("curl"), cwd=dev, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert '"status":"stored"' in told
    assert '"status":"duplicate"' in told
    assert '"rejected":1' in told
    assert "never stored" not in told
    assert '"masked":["/metadata/password"]' in told
    assert '"action":"log.search"' in told
    assert re.search(r'"name":"initech".*"keys":\{"writer":"dlk_', told)
    assert "event: record" in told
    assert "problems/" not in told, told


def test_the_greeting_has_a_curl_line_that_works_when_pasted(dev: Path) -> None:
    [line] = [line for line in (dev / "log").read_text().splitlines() if line.startswith("curl ")]
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["status"] == "stored"


def test_dev_json_has_the_keys_and_is_for_its_owner_only(dev: Path) -> None:
    path = dev / ".decklog" / "dev.json"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    content = json.loads(path.read_text())
    assert content["url"] == (dev / "ready").read_text().strip()
    assert content["platform"]["key"].startswith("dlk_")
    assert set(content["tenants"]) >= {"acme", "globex", "minimal"}
    assert all(set(keys) == {"writer", "auditor", "admin"} for keys in content["tenants"].values())


def test_the_buttons_of_the_tiltfile_load_records_once_and_ask_the_doctor(dev: Path) -> None:
    def task(name: str) -> str:
        argv: list[str | Path] = [dev / ".venv/bin/python", ROOT / "tools/dev/cluster.py", name]
        return subprocess.run(argv, cwd=dev, capture_output=True, text=True, check=True, timeout=240).stdout

    assert task("records") == "1000 stored, 0 already there, 0 rejected.\n"
    assert task("records") == "0 stored, 1000 already there, 0 rejected.\n"
    assert "is well." in task("doctor")
