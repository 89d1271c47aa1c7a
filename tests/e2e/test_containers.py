"""The images and the compose file in a real Docker engine: built, started, used, upgraded in place and removed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.backends import UnavailableError
from tests.backends.docker import DockerEngine
from tests.docs.pages import script
from tests.support.stack import free_port

ROOT = Path(__file__).parents[2]
OVERRIDE = {"services": {"secrets": {"build": {"network": "host"}}}}
"""A build reaches package registries by the machine's own network: the engine has none for builds."""
CONFINED = ("--read-only", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200), pytest.mark.xdist_group("interfaces")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a clone that was made under a strict umask: only their owner may read them."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        target.chmod(0o600)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o700)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / "override.json").write_text(json.dumps(OVERRIDE))
    return folder


class Stack:
    """The compose project of one checkout."""

    def __init__(self, engine: DockerEngine, checkout: Path) -> None:
        self.engine = engine
        self.checkout = checkout
        self.port = free_port()

    def compose(self, *words: str) -> str:
        files = ("compose", "--file", "docker-compose.yml", "--file", "override.json")
        return self.engine.done(*files, *words, cwd=self.checkout, HTTP_PORT=str(self.port))

    def states(self) -> dict[str, str]:
        """Health, or the exit code of what ended, by service."""
        rows = [json.loads(line) for line in self.compose("ps", "--all", "--format", "json").splitlines()]
        return {row["Service"]: row["Health"] or f"exited {row['ExitCode']}" for row in rows}

    def keys(self) -> dict[str, dict[str, str]]:
        target = self.checkout / ".decklog/dev.json"
        target.parent.mkdir(exist_ok=True)
        self.compose("cp", "provision:/secrets/keys/keys.json", str(target))
        found: dict[str, dict[str, str]] = json.loads(target.read_text())["tenants"]
        return found

    def run(self, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
        return subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", text], cwd=self.checkout, env={**kept, **environment},
            capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip


@pytest.fixture(scope="module")
def stack(docker_engine: DockerEngine, checkout: Path) -> Iterator[Stack]:
    stack = Stack(docker_engine, checkout)
    try:
        stack.compose("up", "--build", "--wait")
    except UnavailableError as failed:
        failed.add_note(stack.compose("logs", "--no-color", "--tail", "20"))
        raise
    yield stack
    stack.compose("down", "--volumes")


def test_every_service_becomes_healthy(stack: Stack) -> None:
    states = stack.states()
    assert {name for name, state in states.items() if state == "exited 0"} == {"secrets", "migrate"}
    assert {name for name, state in states.items() if state == "healthy"} == {
        "api", "worker", "provision", "timescale", "opensearch", "elasticmq", "s3",
    }  # fmt: skip
    assert len(states) == 9


def test_image_has_the_board(stack: Stack) -> None:
    """Built by its stage of the Dockerfile: a clone has none."""
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.port}") as client:
        page = client.get("/board")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        [script] = re.findall(r'src="(/board/assets/[^"]+\.js)"', page.text)
        assert client.get(script).headers["content-encoding"] in ("br", "zstd", "gzip")


def test_readme_tour_runs_against_the_stack(stack: Stack) -> None:
    stack.keys()
    done = stack.run(script("README.md", "curl"))
    assert done.returncode == 0, done.stderr
    assert '"status":"stored"' in done.stdout
    assert "problems/" not in done.stdout


def test_doctor_finds_the_stack_well(stack: Stack) -> None:
    key = stack.keys()["acme"]["admin"]
    done = stack.run(".venv/bin/decklog doctor", DECKLOG_URL=f"http://127.0.0.1:{stack.port}", DECKLOG_KEY=key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Indexed after" in done.stdout


def test_second_up_keeps_records_and_keys(stack: Stack) -> None:
    keys = stack.keys()
    url = f"http://127.0.0.1:{stack.port}/api/v1/logs"
    count = f"curl -sf '{url}/stats?by=action' -H 'Authorization: Bearer {keys['acme']['auditor']}'"
    before = json.loads(stack.run(count).stdout)
    stack.compose("down")
    stack.compose("up", "--wait")
    assert stack.keys() == keys
    assert json.loads(stack.run(count).stdout)["total"] == before["total"] > 0


def test_down_with_volumes_leaves_nothing(stack: Stack) -> None:
    stack.compose("down", "--volumes")
    for words in (["ps", "--all"], ["volume", "ls"], ["network", "ls", "--filter", "type=custom"]):
        assert stack.engine.done(*words, "--quiet") == ""


IMAGES = {
    "decklog:dev": ("decklog.otel.traces", "worker", "DECKLOG_DATABASE_DSN is not set"),
    "decklog-operator:dev": ("decklog_operator", "run", "No Kubernetes API is configured"),
}
"""By name: a module that only this image has, a verb, and what the verb lacks in an empty environment."""


@pytest.fixture(scope="module")
def built(stack: Stack) -> DockerEngine:
    """The engine with both images: Compose built the service's."""
    words = ("build", "--network", "host", "--file", "operator/Dockerfile")
    # The engine removes images without a name at its end, and those of the first stage have the libraries.
    stack.engine.done(*words, "--target", "build", "--tag", "decklog-operator:build", ".", cwd=stack.checkout)
    stack.engine.done(*words, "--tag", "decklog-operator:dev", ".", cwd=stack.checkout)
    return stack.engine


@pytest.mark.parametrize("name", IMAGES)
def test_image_starts_as_nobody_on_a_read_only_root(built: DockerEngine, name: str) -> None:
    module, verb, missing = IMAGES[name]
    shown = built.done("run", "--rm", *CONFINED, name, "--help")
    assert verb in shown
    # Everything that it may need is there, also modules that are loaded late; and its user can write to none of it.
    late = ("assembly.control_plane", "opensearch.client", "sqs.queue")
    probe = f"import os, {', '.join(f'decklog.{each}' for each in late)}, {module}; print(os.getuid(), os.access('/opt/decklog', os.W_OK))"
    assert built.done("run", "--rm", *CONFINED, "--entrypoint", "/opt/decklog/bin/python", name, "-c", probe) == "65532 False\n"
    refused = built.run("run", "--rm", *CONFINED, name, verb)
    assert refused.returncode == 2
    assert missing in refused.stderr


def test_dev_names_the_read_only_folder_and_exits_with_two(built: DockerEngine) -> None:
    refused = built.run("run", "--rm", *CONFINED, "decklog:dev", "dev")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert refused.stderr.splitlines()[-1].endswith("Read-only file system.")


def test_operator_image_prints_the_manifests_of_the_repository(built: DockerEngine) -> None:
    printed = built.done("run", "--rm", *CONFINED, "decklog-operator:dev", "manifests")
    assert printed == (ROOT / "manifests/install.yaml").read_text()
