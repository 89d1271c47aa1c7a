"""Render the chart with helm, and install it on a real API server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.backends import KubernetesServer

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/decklog"
MATRIX = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
WAIT_MAX = 120.0
Json = dict[str, Any]


class RefusedError(Exception):
    """Helm failed. The message is its output."""


class Helm:
    """The helm program with its own home folder."""

    def __init__(self, program: Path, home: Path) -> None:
        self._program, self._home = program, home

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self._home)}
        return subprocess.Popen(
            [self._program, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __call__(self, *words: str | Path, longest: float = WAIT_MAX) -> str:
        """Run helm and return its output. Raises `RefusedError`."""
        process = self.start(*words)
        output, errors = process.communicate(timeout=longest)
        if process.returncode:
            raise RefusedError(errors + output)
        return output

    def render(self, values: str, *words: str, release: str = "decklog", namespace: str = "decklog-system") -> list[Json]:
        """Return all objects of a release with one of the chart's `ci` values, including hooks."""
        given: list[str | Path] = ["-f", CHART / f"ci/{values}.yaml", "--namespace", namespace, *words]
        return [each for each in yaml.safe_load_all(self("template", release, CHART, *given)) if each]


def of(objects: list[Json], kind: str, name: str | None = None) -> list[Json]:
    """Return the objects of a kind, optionally with a name."""
    return [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]


def pods(objects: list[Json]) -> dict[str, Json]:
    """Return the pod template of each component, with the volumes that a StatefulSet claims."""
    found = {}
    for each in objects:
        template = each if each["kind"] == "Pod" else each.get("spec", {}).get("template")
        if template is not None and "containers" in template["spec"]:
            claims = [claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])]
            volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
            if volumes:
                template = {**template, "spec": {**template["spec"], "volumes": [*template["spec"].get("volumes", []), *volumes]}}
            found[template["metadata"]["labels"]["app.kubernetes.io/component"]] = template
    return found


def environment(pod: Json) -> dict[str, str]:
    """Return the variables of a pod's program. A value from a Secret is the name of its key in angle brackets.

    A file of a Secret counts under the setting's own name, and only if the pod mounts it.
    """
    mounted = secret_files(pod)
    found = {}
    for each in pod["spec"]["containers"][0].get("env", []):
        source = each.get("valueFrom", {}).get("secretKeyRef")
        if source:
            found[each["name"]] = f"<{source['name']}/{source['key']}>"
        elif each["value"].startswith("/secrets/"):
            found[each["name"].removesuffix("_FILE")] = mounted[each["value"]]
        else:
            found[each["name"]] = each["value"]
    return found


def secret_files(pod: Json) -> dict[str, str]:
    """Return the keys of Secrets that a pod mounts, in angle brackets, by the path of their file."""
    projected = {each["name"]: each["projected"] for each in pod["spec"].get("volumes", []) if "projected" in each}
    return {
        f"{mount['mountPath']}/{item['path']}": f"<{source['secret']['name']}/{item['key']}>"
        for mount in pod["spec"]["containers"][0].get("volumeMounts", [])
        if mount["name"] in projected and mount["readOnly"]
        for source in projected[mount["name"]]["sources"]
        for item in source["secret"]["items"]
    }


def defined(server: KubernetesServer, definitions: Path) -> KubernetesServer:
    """Install the definitions of Contour, the Gateway API, Envoy Gateway, KEDA, the Prometheus operator and Decklog."""
    ours = str(ROOT / "manifests/crd.yaml")
    server.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(definitions), "-f", ours)
    server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    return server


def make_namespace(server: KubernetesServer, name: str) -> None:
    """Create a namespace that accepts only restricted pods."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    server.kubectl("apply", "-f", "-", stdin=json.dumps(body))


@contextmanager
def namespace(server: KubernetesServer, name: str) -> Iterator[str]:
    """Create a namespace as `make_namespace` does, and delete it after the block."""
    make_namespace(server, name)
    yield name
    server.kubectl("delete", "namespace", name, "--wait=false")


def complete(server: KubernetesServer, namespace: str, job: str) -> None:
    """Mark a Job as complete in place of a kubelet, after the Job controller has reported its start."""
    conditions = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
    deadline = time.monotonic() + WAIT_MAX
    while True:
        try:
            started = json.loads(server.kubectl("get", "job", job, "-n", namespace, "-o", "json"))["status"]["startTime"]
            status = {"active": 0, "ready": 0, "terminating": 0, "succeeded": 1, "completionTime": started}
            patch = json.dumps(
                {"status": {**status, "conditions": [{**each, "lastTransitionTime": started} for each in conditions]}}
            )
            server.kubectl("patch", "job", job, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
        except (subprocess.CalledProcessError, KeyError):  # the Job has not started, or the controller wrote in between
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
