"""Run kubectl and operator processes on a real API server."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from decklog_operator import manifests
from tests.backends import KubernetesServer

ROOT = Path(__file__).parents[2]
LABEL = "test.decklog.dev/run"
WAIT_MAX = 120.0
Json = dict[str, Any]


def until(what: str, condition: Callable[[], Any], *, longest: float = WAIT_MAX) -> Any:
    """Return the first true value of `condition`; fail after `longest` seconds."""
    deadline = time.monotonic() + longest
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"still not so after {longest:g} s: {what}")
        time.sleep(0.05)
    return value


@contextmanager
def turn(server: KubernetesServer, thing: str) -> Iterator[None]:
    """Give one test at a time the exclusive use of this object in the cluster that all workers share."""
    with (server.kubeconfig.parent / f"{thing}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Kubernetes:
    """kubectl as an administrator, for the Tenants of one test, which carry its label."""

    def __init__(self, server: KubernetesServer) -> None:
        self.server = server
        self.run = f"r{uuid.uuid4().hex[:8]}"  # a letter: YAML may read bare hex as a number
        self.selector = f"{LABEL}={self.run}"

    def __call__(self, *words: str, stdin: str | None = None) -> str:
        return self.server.kubectl(*words, stdin=stdin)

    def refusal(self, *words: str, stdin: str | None = None) -> str:
        """Run a command that must fail and return kubectl's error message."""
        with pytest.raises(subprocess.CalledProcessError) as caught:
            self(*words, stdin=stdin)
        return str(caught.value.stderr)

    def name(self, prefix: str = "t") -> str:
        return f"{prefix}-{self.run}-{uuid.uuid4().hex[:4]}"

    def tenant(self, name: str, spec: Json | None = None, **metadata: Any) -> Json:
        """Return a Tenant without deletion protection, unless `spec` sets it."""
        body = {
            "apiVersion": "decklog.dev/v1",
            "kind": "Tenant",
            "metadata": {"name": name, "labels": {LABEL: self.run}, **metadata},
        }
        return {**body, "spec": {"deletionProtection": False, **(spec or {"retention": {"days": 30}})}}

    def apply(self, *objects: Json, dry_run: bool = False) -> str:
        words = ["apply", "-f", "-", *(["--dry-run=server"] if dry_run else [])]
        return self(*words, stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def patch(self, name: str, patch: Json, *flags: str) -> str:
        return self("patch", "tenant", name, "--type=merge", "-p", json.dumps(patch), *flags)

    def get(self, kind: str, name: str, namespace: str = "default") -> Json | None:
        found = self("get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json")
        return json.loads(found) if found else None

    def wait_ready(self, *names: str) -> None:
        self("wait", "--for=condition=Ready", *(f"tenant/{name}" for name in names), f"--timeout={WAIT_MAX:g}s")

    def condition(self, name: str, kind: str = "Ready") -> Json:
        found = self.get("tenant", name) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == kind), {})

    def secret(self, name: str, namespace: str = "default") -> Json | None:
        return self.get("secret", f"{name}-decklog", namespace)

    def clean(self) -> None:
        """Delete the Tenants of the test and their finalizers, which no operator removes any more."""
        free = '{"metadata":{"finalizers":null},"spec":{"deletionProtection":false,"legalHold":false}}'
        for name in self("get", "tenant", "-l", self.selector, "-o", "name").split():
            self("patch", name, "--type=merge", "-p", free)
        self("delete", "tenant", "-l", self.selector, "--wait=false")
        until("the test's Tenants are gone", lambda: not self("get", "tenant", "-l", self.selector, "-o", "name"))


class Operator:
    """One operator process. `start` after `kill` restarts the same operator. `name` distinguishes several in one folder."""

    def __init__(self, module: list[str], environment: dict[str, str], folder: Path, name: str = "operator") -> None:
        self._argv, self._environment, self._folder = [sys.executable, "-m", *module], environment, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = self._seen = 0
        self.log = folder / f"{name}.log"

    def another(self, name: str) -> Operator:
        """Return another operator of the same kind, not started."""
        return Operator(self._argv[2:], self._environment, self._folder, name)

    def start(self) -> None:
        """Start the operator and wait until it is ready."""
        self.launch()
        until("the operator is ready", lambda: self._answers("/readyz"))

    def launch(self) -> None:
        """Start the operator and wait until it is alive."""
        self._seen = len(self.log.read_bytes()) if self.log.exists() else 0
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(self._argv, cwd=ROOT, env=self._environment, stdout=out, stderr=out)
        until("the operator is alive", lambda: self._answers("/healthz"))

    def _answers(self, path: str) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        ports = [line["port"] for line in self.lines() if line["event"] == "probes answered"]
        self._port = ports[0] if ports else 0
        return bool(ports) and self.ask(path)[0] == 200

    def lines(self) -> list[Json]:
        """Return the log lines since the start."""
        whole = self.log.read_bytes()[self._seen :].rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]

    def ask(self, path: str) -> tuple[int, str]:
        """Return status and body of a probe; status 0 without a response."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of one sample of `/metrics`; None when it is absent."""
        for family in text_string_to_metric_families(self.ask("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None

    @property
    def leads(self) -> bool:
        return self.ask("/readyz") == (200, "leading\n")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=WAIT_MAX)

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def freeze(self) -> None:
        """Stop the process as a frozen machine would, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        if self.running():
            self.kill()


def least_rights_kubeconfig(server: KubernetesServer, folder: Path) -> Path:
    """Apply `manifests/install.yaml` without the pod, and return a kubeconfig of its service account."""
    objects = [each for each in yaml.safe_load_all(manifests.install_yaml()) if each["kind"] != "Deployment"]
    server.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(objects))
    server.kubectl("wait", "--for=condition=Established", "crd/tenants.decklog.dev", "--timeout=60s")
    return speaking_as(server, manifests.ACCOUNT, folder)


def speaking_as(server: KubernetesServer, account: str, folder: Path) -> Path:
    """Return a kubeconfig of this service account in the operator's namespace."""
    token = server.kubectl("create", "token", account, "-n", manifests.NAMESPACE, "--duration=24h").strip()
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path = folder / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


def operator_environment(kubernetes: Kubernetes, rights: Path, **variables: str) -> dict[str, str]:
    """Return the environment of an operator that serves only this test's Tenants, visits often and has no other rights."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DECKLOG_", "KUBE"))}
    return {
        **kept,
        "KUBECONFIG": str(rights),
        "DECKLOG_OPERATOR_SELECTOR": kubernetes.selector,
        "DECKLOG_OPERATOR_HEALTH_PORT": "0",
        "DECKLOG_OPERATOR_RESYNC_SECONDS": "1",
        "DECKLOG_OPERATOR_RETRY_MAX_SECONDS": "1",
        "DECKLOG_OPERATOR_API_URL": "https://decklog.example.test",
        **variables,
    }
