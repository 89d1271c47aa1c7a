"""The Tiltfile and the development scripts work, and the images, resources, paths and commands that they name exist.

These tests need neither Tilt nor Docker nor kind. A real Starlark interpreter evaluates the Tiltfile, and a real helm renders the
chart with a real API server. The scripts run with recording programs, and over a real `decklog dev` in tests/docs/test_readme.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import starlark
import yaml

from tests.backends import KubernetesServer
from tests.support.charts import namespace, of, pods
from tests.support.images import ROOT, context, stages
from tests.support.tilt import Tilt

TILTFILE = (ROOT / "Tiltfile").read_text()
FOLDER = ROOT / "tools/dev"
CONTEXT = "kind-decklog"
WAIT_MAX = 60.0
NAMESPACE = "decklog-system"
OURS = {"decklog": ("service", "decklog"), "decklog-operator": ("operator", "decklog_operator")}
MANUAL = {"doctor", "records", "tour", "test"}


@pytest.fixture(scope="module")
def evaluate(helm: Path, kubernetes_server: KubernetesServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tilt]:
    """Evaluate the Tiltfile with a cluster named like that of kind."""
    home = tmp_path_factory.mktemp("tilt")
    config = yaml.safe_load(kubernetes_server.kubeconfig.read_text())
    [given] = config["contexts"]
    config["contexts"], config["current-context"] = [{**given, "name": CONTEXT}], CONTEXT
    (home / "config").write_text(yaml.safe_dump(config))
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "KUBECONFIG": str(home / "config")}

    def made(subcommand: str = "up", text: str = TILTFILE) -> Tilt:
        tilt = Tilt(subcommand=subcommand, programs={"helm": helm}, environment=environment)
        tilt.evaluate(text)
        return tilt

    return made


@pytest.fixture(scope="module")
def tilt(evaluate: Callable[..., Tilt]) -> Tilt:
    return evaluate()


pytestmark = pytest.mark.xdist_group("kubernetes")


def test_tiltfile_accepts_only_the_cluster_of_make_kind(tilt: Tilt) -> None:
    cluster = yaml.safe_load((FOLDER / "kind.yaml").read_text())
    assert tilt.contexts == [CONTEXT] == [f"kind-{cluster['name']}"]
    assert f'CONTEXT, NAMESPACE = "{CONTEXT}", "{NAMESPACE}"' in (FOLDER / "cluster.py").read_text()


def test_tiltfile_syntax_error_fails(evaluate: Callable[..., Tilt]) -> None:
    for slip in ("docker_buld('x', '.')", "k8s_resource('decklog-api', port_forward = 1)", "local_resource(x)"):
        with pytest.raises(starlark.StarlarkError):
            evaluate(text=f"{TILTFILE}\n{slip}\n")


def test_tilt_images_use_the_dockerfiles_with_writable_sources(tilt: Tilt) -> None:
    assert tilt.images.keys() == OURS.keys()
    for name, image in tilt.images.items():
        folder, module = OURS[name]
        dockerfile = (ROOT / folder / "Dockerfile").read_text()
        assert image["dockerfile"].startswith(dockerfile)
        build, last = stages(ROOT / folder / "Dockerfile")[-2:]
        [entry] = last.of("ENTRYPOINT")
        python, flag, script, sources, started = image["entrypoint"]
        assert (python, started, entry[1:]) == (entry[0], module, ["-m", module])
        assert (flag, script) == ("-c", (FOLDER / "reload.py").read_text())
        assert "$(" not in script, "Kubernetes would put a variable in its place"
        # Tilt's context contains every copied path, and every path of the context exists and passes .dockerignore.
        inside = context()
        copied = {word for stage in stages(ROOT / folder / "Dockerfile")[:-1] for words in stage.copied() for word in words[:-1]}
        copied = {"board" if word.startswith("board/") else word for word in copied}
        for path in image["only"]:
            assert path in inside or any(each.startswith(f"{path}/") for each in inside), path
        assert {path.rstrip("/") for path in copied} - {"LICENSE"} <= {
            path.rsplit("/pyproject.toml")[0] for path in image["only"]
        } | set(image["only"])
        fallback, *synced = image["live_update"]
        assert all((ROOT / path).is_file() for path in fallback["fall_back_on"])
        [target] = {words[-1].rstrip("/") for words in build.of("COPY") if words[0].endswith("src")}
        assert [(step["sync"], step["to"]) for step in synced] == [
            (path, target) for words in build.of("COPY") for path in words[:-1] if path.endswith("src")
        ]
        assert sources == target
        # Python does not check these compiled modules against their sources, so they must be removed.
        end = image["dockerfile"].removeprefix(dockerfile).split()
        assert "__pycache__" in end
        assert end[-2:] == ["USER", last.of("USER")[0][0]]


def test_tilt_workloads_run_the_built_images_with_writable_roots(tilt: Tilt) -> None:
    built, brought = set(), set()
    for component, pod in pods(tilt.objects).items():
        [container] = pod["spec"]["containers"]
        repository, _, tag = container["image"].rpartition(":")
        if component.startswith("dev-"):
            brought.add(repository)
        else:
            built.add(repository)
            assert tag == "dev"
            assert container["securityContext"]["readOnlyRootFilesystem"] is False
            assert "command" not in container, "it would not be replaced by the one that reloads"
    assert built == OURS.keys()
    assert len(brought) == 4
    [place] = of(tilt.objects, "Namespace")
    assert place["metadata"]["name"] == NAMESPACE
    assert not [each for each in tilt.objects if "helm.sh/hook" in each["metadata"].get("annotations", {})]


def test_tilt_resources_are_workloads_with_existing_dependencies(tilt: Tilt) -> None:
    workloads = {each["metadata"]["name"]: each for each in tilt.objects if each["kind"] in ("Deployment", "StatefulSet", "Job")}
    assert tilt.resources.keys() == workloads.keys()
    known = {*tilt.resources, *tilt.commands}
    for name, each in (*tilt.resources.items(), *tilt.commands.items()):
        assert set(each["deps"]) <= known - {name}
        assert each["labels"]
    containers = workloads["decklog-api"]["spec"]["template"]["spec"]["containers"]
    [forwarded] = tilt.resources["decklog-api"]["forwards"]
    assert forwarded["to"] in {port["containerPort"] for port in containers[0]["ports"]}
    assert f'URL = "http://127.0.0.1:{forwarded["from"]}"' in (FOLDER / "cluster.py").read_text()
    assert tilt.resources["decklog-migrate-1"]["trigger"] == "manual"


def test_tilt_commands_exist_and_buttons_are_manual(tilt: Tilt, evaluate: Callable[..., Tilt]) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    tasks = re.findall(r'"(\w+)": \1\b', (FOLDER / "cluster.py").read_text())
    for name, each in tilt.commands.items():
        program, *words = each["command"]
        if program == "make":
            assert words == [name]
            assert name in targets
        else:
            assert program == ".venv/bin/python"
            assert (ROOT / words[0], words[1:]) == (FOLDER / "cluster.py", [name])
            assert name in tasks
        assert all((ROOT / path).exists() for path in each["watched"])
    assert all((ROOT / path).exists() for path in tilt.watched)
    assert {name for name, each in tilt.commands.items() if each["trigger"] == "manual"} == MANUAL
    assert {name for name, each in tilt.commands.items() if not each["starts"]} == MANUAL
    assert {name for name, each in evaluate("ci").commands.items() if not each["starts"]} == MANUAL - {"doctor"}


def test_tilt_keeps_the_passwords_of_the_cluster(evaluate: Callable[..., Tilt], kubernetes_server: KubernetesServer) -> None:
    with namespace(kubernetes_server, f"tilt-{uuid.uuid4().hex[:8]}") as place:

        def secret() -> dict[str, Any]:
            [found] = of(evaluate(text=TILTFILE.replace(NAMESPACE, place)).objects, "Secret")
            return found

        first = secret()
        kubernetes_server.kubectl("apply", "-f", "-", stdin=json.dumps(first))
        assert secret()["stringData"] == first["stringData"]
        kubernetes_server.kubectl("delete", "secret", first["metadata"]["name"], "-n", place)
        assert secret()["stringData"] != first["stringData"]


# The scripts


def recording(folder: Path, **answers: str) -> dict[str, str]:
    """Return an environment whose programs record their arguments in `calls` and run a line of shell."""
    for name, answer in answers.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/calls\n{answer}\n')
        program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_kind_script_creates_one_cluster_with_a_local_registry(tmp_path: Path) -> None:
    docker = 'case "$1" in inspect) cat state 2>/dev/null;; run) echo true >state;; exec) [ "$2" != --interactive ] || cat >>hosts;; esac'
    kind = 'case "$2" in clusters) cat made 2>/dev/null;; cluster) echo decklog >made;; nodes) echo decklog-control-plane;; esac; exit 0'
    environment = recording(tmp_path, docker=docker.replace("state", f"{tmp_path}/state").replace(">>hosts", f">>{tmp_path}/hosts"),
                            kind=kind.replace("made", f"{tmp_path}/made"), kubectl="")  # fmt: skip
    for _ in range(2):
        subprocess.run([FOLDER / "kind.sh"], env=environment, check=True, timeout=60)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sum(each.startswith("kind create cluster --config kind.yaml") for each in calls) == 1
    [run] = [each for each in calls if each.startswith("docker run")]
    hosting = yaml.safe_load(yaml.safe_load((FOLDER / "registry.yaml").read_text())["data"]["localRegistryHosting.v1"])
    assert f"127.0.0.1:{hosting['host'].removeprefix('localhost:')}:5000" in run
    assert re.search(r"registry:\d+\.\d+\.\d+$", run)
    assert (tmp_path / "hosts").read_text().splitlines()[0] == '[host."http://decklog-registry:5000"]'
    assert f"kubectl --context {CONTEXT} apply -f registry.yaml" in calls
    assert f"/certs.d/{hosting['host']}/hosts.toml" in "\n".join(calls)
    subprocess.run([FOLDER / "kind.sh", "delete"], env=environment, check=True, timeout=60)
    assert "kind delete cluster --name decklog" in (tmp_path / "calls").read_text()


def test_tilt_tour_is_the_tour_of_the_readme(tmp_path: Path) -> None:
    environment = recording(tmp_path, bash="cat")
    told = subprocess.run(
        [sys.executable, FOLDER / "cluster.py", "tour"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert told == (ROOT / "README.md").read_text().partition("<!-- tour: curl -->\n```sh\n")[2].partition("```")[0]
    assert "/api/v1/logs" in told


def test_tilt_writes_the_example_keys_where_the_tour_reads_them(tmp_path: Path) -> None:
    tenant = {"metadata": {"name": "acme"}, "spec": {"credentials": {"secretNamespace": "place"}}}
    data = dict.fromkeys(("writer", "auditor", "admin", "url"), "eA==")
    answers = {"tenants": {"items": [tenant]}, "secret": {"data": data}}
    for name, answer in answers.items():
        (tmp_path / name).write_text(json.dumps(answer))
    answer = f'case "$3" in get) cat {tmp_path}/$4;; exec) echo dlk_platform;; *) echo done;; esac'
    environment = recording(tmp_path, kubectl=answer)
    subprocess.run([sys.executable, FOLDER / "cluster.py", "tenants"], cwd=tmp_path, env=environment, check=True, timeout=60)
    path = tmp_path / ".decklog/dev.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {
        "url": "http://127.0.0.1:8321",
        "platform": {"key": "dlk_platform"},
        "tenants": {"acme": dict.fromkeys(("writer", "auditor", "admin"), "x")},
    }
    calls = (tmp_path / "calls").read_text()
    assert all(line.startswith(f"kubectl --context {CONTEXT} ") for line in calls.splitlines() if line.startswith("kubectl"))
    assert "get secret acme-decklog -n place -o json" in calls
    assert (ROOT / "manifests/examples").is_dir()
    assert "apply -f manifests/examples" in calls


def test_platform_key_is_created_with_the_operators_settings(tmp_path: Path) -> None:
    text = (FOLDER / "cluster.py").read_text()
    script = text.partition('PLATFORM_KEY = """')[2].partition('"""')[0]
    given = {"PATH": "/usr/bin:/bin", "DECKLOG_OPERATOR_API_URL": "x", "DECKLOG_DATABASE_OWNER_DSN": "postgresql://127.0.0.1:9/x"}
    done = subprocess.run([sys.executable, "-c", script], env=given, capture_output=True, text=True, check=False, timeout=60)
    assert "There is no setting" not in done.stderr
    assert done.returncode == 2
    assert "The database cannot be reached" in done.stderr


def test_reload_restarts_a_program_on_source_changes_and_forwards_its_exit(tmp_path: Path) -> None:
    def until(true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_MAX
        while not true():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)

    def says(text: str) -> Callable[[], bool]:
        return lambda: text in (tmp_path / "log").read_text()

    sources = tmp_path / "src"
    sources.mkdir()
    program = sources / "program.py"
    served = "import sys, time\nprint('{}', sys.argv[1:], flush=True)\ntime.sleep(600)\n"
    program.write_text(served.format("first"))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", (FOLDER / "reload.py").read_text(), sources, "program", "api"],
            env={"PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]},
            stdout=log, stderr=log,
        )  # fmt: skip
        until(says("first ['api']"))
        program.write_text("a slip\n")
        until(says("SyntaxError"))
        program.write_text(served.format("third"))
        until(says("third ['api']"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=WAIT_MAX) == -signal.SIGTERM % 256
        program.write_text("print('done')\n")
        ended = subprocess.run(
            [sys.executable, "-c", (FOLDER / "reload.py").read_text(), sources, "program"],
            env={"PYTHONPATH": str(sources)}, check=False, timeout=WAIT_MAX, capture_output=True,
        )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, b"done\n")
