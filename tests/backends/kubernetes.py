"""Run a Kubernetes control plane as a test server: etcd, API server and controller manager, without nodes; `node` adds one.

One Go program (`kube/` beside this module) contains these and kubectl. It is built once from published modules. Admission
policies, CRD defaulting and CEL, RBAC, garbage collection and namespace deletion work as in production. Pods stay pending. The
first start creates keys and certificates, which stay in the folder of the server.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from tests.backends.backend import Backend, LocalServer
from tests.backends.cache import Building, Recipe, provision, provisioned
from tests.backends.certificates import write_pki
from tests.backends.compose import Compose
from tests.backends.packages import command
from tests.backends.server import LOOPBACK, free_ports, wait_ready

SOURCES = Path(__file__).parent / "kube"
VERSION = "1.36.3"
LINK_FLAGS = (
    f"-s -w -X k8s.io/component-base/version.gitVersion=v{VERSION} "
    "-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
)
START_MAX = timedelta(seconds=90)
KUBECTL_MAX = timedelta(seconds=120)
SERVICES = "10.96.0.0/16"
COMPOSE_PORT = 6443


@dataclass(frozen=True)
class KubernetesServer:
    """An API server with the kubeconfig of an administrator, and a matching kubectl."""

    url: str
    kubeconfig: Path
    kubectl_program: Path

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output. Raises `subprocess.CalledProcessError`, with its stderr as a note, if it fails."""
        argv = [str(self.kubectl_program), "--kubeconfig", str(self.kubeconfig), *words]
        run = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=KUBECTL_MAX.total_seconds(), check=False)
        if run.returncode:
            error = subprocess.CalledProcessError(run.returncode, argv, run.stdout, run.stderr)
            error.add_note(run.stderr.strip())
            raise error
        return run.stdout


def _build(building: Building) -> None:
    program = building.folder / "kube"
    flags: list[str | Path] = ["-buildvcs=false", "-trimpath", "-o", program, "-ldflags", LINK_FLAGS]
    building.run([command("go"), "build", *flags, "."], cwd=SOURCES, environ={"GOFLAGS": "-buildvcs=false"})
    (building.folder / "kubectl").symlink_to("kube")  # the program selects its function by its own name


RECIPE = Recipe("kube", (LINK_FLAGS, *(path.read_text() for path in sorted(SOURCES.iterdir()))), _build)


class LocalKubernetes(LocalServer[KubernetesServer]):
    host = LOOPBACK  # of the API server
    services = SERVICES
    users: ClassVar[Mapping[str, tuple[str, str]]] = {
        "kubeconfig": ("admin", "system:masters"),
        "manager.kubeconfig": ("system:kube-controller-manager", ""),
    }
    """User and group of each kubeconfig, by file name."""
    endpoints = "none"
    """Value of --endpoint-reconciler-type: how the Service `kubernetes` gets the API server's address."""

    def prepare(self) -> None:
        self.ports = self.choose_ports()
        program = provision(RECIPE) / "kubectl"
        self.address = KubernetesServer(f"https://{self.host}:{self.ports['api']}", self.folder / "kubeconfig", program)
        self.pki = self.folder / "pki"
        if not self.pki.exists():
            names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            write_pki(self.pki, names, [*{LOOPBACK, self.host}, str(ipaddress.ip_network(self.services)[1])])
        tokens = []
        for file, (user, group) in self.users.items():
            token = secrets.token_hex(16)
            tokens.append(f'{token},{user},{user},"{group}"\n')
            self._write_kubeconfig(self.folder / file, token)
        (self.pki / "tokens.csv").write_text("".join(tokens))

    def choose_ports(self) -> dict[str, int]:
        return dict(zip(("etcd", "peer", "api", "manager"), free_ports(4), strict=True))

    def _write_kubeconfig(self, path: Path, token: str) -> None:
        authority = base64.b64encode((self.pki / "ca.crt").read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.address.url, "certificate-authority-data": authority}}],
            "users": [{"name": "test", "user": {"token": token}}],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))  # JSON is YAML

    def launch(self) -> None:
        # `stop` ends them in reverse order: without etcd, the API server would hang while it shuts down.
        program = provision(RECIPE) / "kube"
        for name, words in (
            ("etcd", self._etcd()),
            ("kube-apiserver", self.api_flags()),
            ("kube-controller-manager", self._manager()),
        ):
            self.spawn(name, [program, name, *words], cwd=self.folder)
        log = self.log("kube-apiserver")
        wait_ready("the Kubernetes API server", lambda: BACKEND.answers(self.address), self.processes, log, START_MAX)

    def _etcd(self) -> list[str | Path]:
        client, peer = (f"http://{LOOPBACK}:{self.ports[name]}" for name in ("etcd", "peer"))
        return ["--data-dir", self.folder / "etcd", "--listen-client", client, "--listen-peer", peer]

    def api_flags(self) -> list[str | Path]:
        return [
            f"--etcd-servers=http://{LOOPBACK}:{self.ports['etcd']}",
            f"--bind-address={self.host}", f"--advertise-address={self.host}", f"--secure-port={self.ports['api']}",
            f"--tls-cert-file={self.pki / 'apiserver.crt'}", f"--tls-private-key-file={self.pki / 'apiserver.key'}",
            f"--token-auth-file={self.pki / 'tokens.csv'}", "--anonymous-auth=true", "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.pki / 'sa.pub'}", f"--service-account-signing-key-file={self.pki / 'sa.key'}",
            f"--service-cluster-ip-range={self.services}", f"--endpoint-reconciler-type={self.endpoints}",
            "--profiling=false", "--shutdown-delay-duration=0s",
        ]  # fmt: skip

    def _manager(self) -> list[str | Path]:
        config = self.folder / "manager.kubeconfig"
        return [
            f"--kubeconfig={config}", f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}",
            "--authentication-skip-lookup", f"--bind-address={LOOPBACK}", f"--secure-port={self.ports['manager']}",
            "--leader-elect=false", "--profiling=false", "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.pki / 'sa.key'}", f"--root-ca-file={self.pki / 'ca.crt'}",
            f"--cluster-signing-cert-file={self.pki / 'ca.crt'}", f"--cluster-signing-key-file={self.pki / 'ca.key'}",
        ]  # fmt: skip


class KubernetesBackend(Backend[KubernetesServer]):
    name = "kubernetes"
    variables = ("DECKLOG_TEST_KUBECONFIG",)
    address_type = KubernetesServer

    def from_environment(self, environ: Mapping[str, str]) -> KubernetesServer | None:
        given = environ.get(self.variables[0])
        if not given:
            return None
        config = Path(given).expanduser().resolve()
        program = _kubectl()
        words: list[str | Path] = [
            program,
            "--kubeconfig",
            config,
            "config",
            "view",
            "--minify",
            "-o",
            "jsonpath={.clusters[0].cluster.server}",
        ]
        run = subprocess.run(words, capture_output=True, text=True, timeout=KUBECTL_MAX.total_seconds(), check=False)
        if run.returncode or not run.stdout:
            raise ValueError(f"{self.variables[0]} is not a usable kubeconfig: {run.stderr.strip()}")
        return KubernetesServer(run.stdout, config, program)

    def from_compose(self, compose: Compose) -> KubernetesServer:
        host, port = compose.up(self.name, COMPOSE_PORT)
        text = compose.read(self.name, "cat", "/etc/rancher/k3s/k3s.yaml")
        config = compose.folder / "kubeconfig"
        config.touch(mode=0o600)
        config.write_text(text.replace(f"https://127.0.0.1:{COMPOSE_PORT}", f"https://{host}:{port}"))
        return KubernetesServer(f"https://{host}:{port}", config, _kubectl())

    def check(self) -> None:
        if not provisioned(RECIPE):
            command("go")

    def recipes(self) -> list[Recipe]:
        return [RECIPE]

    def local(self, folder: Path, *, durable: bool = False) -> LocalKubernetes:
        return LocalKubernetes(folder)

    def answers(self, address: KubernetesServer) -> bool:
        """Return whether the API server is ready and the controllers run: they have created the default service account."""
        try:
            address.kubectl("--request-timeout=5s", "get", "--raw=/readyz")
            address.kubectl("--request-timeout=5s", "--namespace=default", "get", "serviceaccount", "default")
        except (subprocess.SubprocessError, OSError):
            return False
        return True

    def exports(self, address: KubernetesServer) -> dict[str, str]:
        return {self.variables[0]: str(address.kubeconfig)}


def _kubectl() -> Path:
    """Return a kubectl for a foreign cluster: the built one, else the machine's, else build one."""
    if not provisioned(RECIPE) and (found := shutil.which("kubectl")):
        return Path(found)
    return provision(RECIPE) / "kubectl"


BACKEND = KubernetesBackend()
