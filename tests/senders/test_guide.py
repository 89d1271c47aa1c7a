"""The senders of "Send from your code": each stores its record once through a lost answer and a refusal, and ends at a wrong key."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.backends.cache import UnavailableError
from tests.backends.packages import command
from tests.senders import languages
from tests.senders.conftest import Node
from tests.support.dev import ROOT, Dev
from tests.support.faulty_proxy import Fault, FaultyProxy

PAGE = (ROOT / "docs/guides/send-from-code.md").read_text()
EXAMPLES = {name: (kind, text) for name, kind, text in re.findall(r"<!-- run: (\w+) -->\n```(\w+)\n(.*?)```", PAGE, re.DOTALL)}
Prepared = tuple[list[str], Mapping[str, str]]


def shell(file: Path) -> Prepared:
    (file.parent / "records.ndjson").write_text('{"action": "order.approve", "actor": {"id": "alice"}}\n' * 2)
    return [command("bash"), "-euo", "pipefail", str(file)], {}


def go(file: Path) -> Prepared:
    subprocess.run([command("go"), "build", "-o", "send", file], cwd=file.parent, check=True)
    return [str(file.with_name("send"))], {}


def java(file: Path) -> Prepared:
    subprocess.run([command("javac"), file.rename(file.with_name("Send.java"))], check=True)
    return [command("java"), "-cp", str(file.parent), "Send"], {}


def ruby(file: Path) -> Prepared:
    found, variables = languages.program("ruby")
    return [found, str(file)], variables


def php(file: Path) -> Prepared:
    found, variables = languages.program("php")
    return [found, "-n", str(file)], variables


LANGUAGES: dict[str, Callable[[Path], Prepared]] = {
    "sh": shell, "file": shell, "go": go, "java": java, "ruby": ruby, "php": php,
}  # fmt: skip
SERVERS = {"express": "Express", "fastify": "Fastify"}


@dataclass
class Stage:
    """A server behind a proxy that loses the first answer and refuses the second request; a writer's address and key."""

    node: Node
    dev: Dev
    proxy: FaultyProxy

    @property
    def variables(self) -> dict[str, str]:
        return {"DECKLOG_URL": self.proxy.url, "DECKLOG_KEY": self.dev.content["tenants"]["acme"]["writer"]}


@pytest.fixture
def stage(node: Node, dev: Dev, proxy: FaultyProxy) -> Stage:
    faults: list[Fault] = ["lose", "refuse"]
    proxy.fault = lambda number, _path: faults[number] if number < len(faults) else "pass"
    return Stage(node, dev, proxy)


def approved(dev: Dev) -> int:
    with dev.client() as client:
        found: int = client.get("/api/v1/logs/stats", params={"action": "order.approve", "actor": "alice"}).json()["total"]
    return found


def test_page_says_which_examples_are_run_and_which_are_not() -> None:
    assert set(EXAMPLES) == {*LANGUAGES, *SERVERS, "next"}
    blocks = re.findall(r"^```(\w+)$", PAGE, re.MULTILINE)
    assert {kind for kind in blocks if kind not in {kind for kind, _ in EXAMPLES.values()}} == {"csharp"}
    assert "for shell, Go, Java, Express, Fastify and Next.js, and for Ruby and PHP on machines that have them" in PAGE
    assert "It does not run those for C# and NestJS." in PAGE


@pytest.mark.parametrize("name", LANGUAGES)
def test_sender_stores_its_record_once_and_ends_at_a_wrong_key(name: str, stage: Stage, tmp_path: Path) -> None:
    kind, text = EXAMPLES[name]
    file = tmp_path / f"send.{kind}"
    file.write_text(text)
    try:
        words, needed = LANGUAGES[name](file)
    except UnavailableError as unavailable:
        pytest.skip(str(unavailable))
    before = approved(stage.dev)
    stage.node.run(*words, cwd=tmp_path, variables={**stage.variables, **needed})
    assert approved(stage.dev) == before + (2 if name == "file" else 1)
    assert stage.proxy.requests == 3
    with pytest.raises(AssertionError) as refused:
        stage.node.run(*words, cwd=tmp_path, variables={**stage.variables, **needed, "DECKLOG_KEY": "dlk_0000000000000000_wrong"})
    assert stage.proxy.requests == 4
    answer = (tmp_path / "answer.json").read_text() if name == "file" else str(refused.value)
    assert "unauthenticated" in answer


@pytest.mark.parametrize("name", SERVERS)
def test_server_answers_when_the_record_is_stored_and_ends_at_sigterm(name: str, stage: Stage, packages: Path) -> None:
    node = stage.node
    modules = node.folder / "node_modules" / name
    if not modules.exists():
        modules.symlink_to(packages / name)
    (node.folder / f"{name}.ts").write_text(EXAMPLES[name][1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = node.start("node", f"{name}.ts", variables={**stage.variables, "PORT": str(port)})
    try:
        answer = posted(f"http://127.0.0.1:{port}/orders/o-7/approve", program)
        with stage.dev.client() as client:
            record = client.get(f"/api/v1/logs/{answer['seq']}").json()
        assert (record["action"], record["resource"]["id"], record["actor"]["id"]) == ("order.approve", "o-7", "alice")
        assert record["source"]["ip"].endswith("127.0.0.1")
        assert stage.proxy.requests == 3
    finally:
        program.send_signal(signal.SIGTERM)
        code = program.wait(timeout=30)
    assert code == 0


def posted(url: str, program: subprocess.Popen[str]) -> dict[str, int]:
    """Return the answer of a server that is starting."""
    deadline = time.monotonic() + 60
    while True:
        assert program.poll() is None
        assert time.monotonic() < deadline
        try:
            answer = httpx.post(url, timeout=60)
        except httpx.ConnectError:
            time.sleep(0.05)
            continue
        assert answer.status_code == 200, answer.text
        found: dict[str, int] = answer.json()
        return found


def test_route_handler_of_next_answers_when_the_record_is_stored(stage: Stage) -> None:
    """Next.js calls it with a standard Request and awaits a standard Response, as this program does."""
    (stage.node.folder / "route.ts").write_text(EXAMPLES["next"][1])
    (stage.node.folder / "call.ts").write_text(
        'import { POST } from "./route.ts";\n'
        'const request = new Request("http://localhost/orders/o-8/approve", { method: "POST", headers: { "user-agent": "test" } });\n'
        'console.log(await (await POST(request, { params: Promise.resolve({ id: "o-8" }) })).text());\n'
    )
    answer = json.loads(stage.node.run("node", "call.ts", variables=stage.variables))
    with stage.dev.client() as client:
        record = client.get(f"/api/v1/logs/{answer['seq']}").json()
    assert (record["resource"]["id"], record["source"]) == ("o-8", {"user_agent": "test"})
    assert stage.proxy.requests == 3
