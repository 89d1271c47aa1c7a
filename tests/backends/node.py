"""Run a Kubernetes with one real node that runs pods: containerd, runc, kubelet, kube-proxy, scheduler and the control plane.

The node is a virtual machine of namespaces (processes, mounts, network). A pid file names its first process. When that process
ends, the kernel kills all other processes and removes mounts, interfaces and iptables rules. This module removes the empty
cgroups. A veth pair connects the machine with its host: tests reach pods and Services by their addresses, and pods reach servers
that listen on `HOST`. The addresses are from the range for benchmarks (RFC 2544), which no network uses. A host runs one node at
a time; a lock makes others wait.

Pods get their addresses from the plugin ptp, so nothing enforces NetworkPolicies. Needs root on Linux. The programs of the
control plane come from `kubernetes`; the others are unpacked from the packages of this Debian or Ubuntu, without installation.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, ClassVar

from tests.backends import kubernetes
from tests.backends.cache import (
    Building,
    Recipe,
    UnavailableError,
    cache_folder,
    last_lines,
    locked,
    make_folder,
    provision,
    provisioned,
)
from tests.backends.kubernetes import LocalKubernetes
from tests.backends.packages import command, from_debian
from tests.backends.server import LOOPBACK, POLL_EVERY, Process, descendants, http_status, stop_all, wait_ready

NAME = "decklog-node"
"""Name of the host's end of the veth pair, and of the cgroup of pods."""
NETWORK = "198.18.0.0/15"
HOST, MACHINE, CABLE_BITS = "198.18.0.1", "198.18.0.2", 30
PODS, SERVICES = "198.18.1.0/24", "198.19.0.0/16"
SANDBOX = "localhost/sandbox:1"
"""Image that holds the namespaces of a pod. The caller of `load` must include it; its entry point must never exit."""
NAMES = Path(__file__).parent / "names.py"
LOCK = Path("/run") / f"{NAME}.lock"
CGROUPS = Path("/sys/fs/cgroup")
PACKAGES = (
    *("containerd", "runc", "containernetworking-plugins", "iptables"),
    *("libip4tc2", "libip6tc2", "libxtables12", "libmnl0", "libnetfilter-conntrack3", "libnfnetlink0", "libnftnl11"),
)
CLEARED_MAX = timedelta(seconds=60)  # for the kernel to end the processes of pods
COVERED = ("/var/lib", "/var/log")
"""Folders that the programs write to. The machine mounts private ones over them, and over /run."""

# Tries the kernel features that a machine needs, in namespaces that end with the script. Argument: the path of iptables.
_PROBE = """
set -e
mount -t tmpfs tmpfs /tmp && mkdir /tmp/upper /tmp/work && mount -t overlay overlay -o lowerdir=/etc,upperdir=/tmp/upper,workdir=/tmp/work /etc
ip link add probe type veth peer name other
echo 1 > /proc/sys/net/ipv4/ip_forward
"$1" -t nat -A POSTROUTING -m comment --comment probe -m statistic --mode random --probability 0.5 -m conntrack --ctstate NEW -j MASQUERADE
"""

# The machine's first process. The kubelet sets some kernel variables that are not namespaced, so files with the wanted values
# are mounted over them. After the set-up, the process waits and reaps orphans, as the init of any machine.
_MACHINE = """
set -e
folder=$1 address=$2; shift 2
mount -t tmpfs tmpfs /run
for covered in "$@"; do
  mkdir -p "$folder/disk$covered"
  mount --bind "$folder/disk$covered" "$covered"
done
mkdir -p "$folder/kernel"
for wanted in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \\
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file="$folder/kernel/$(basename "${wanted%=*}")"
  echo "${wanted#*=}" > "$file"
  mount --bind "$file" "/proc/sys/${wanted%=*}"
done
until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip addr add "$address" dev eth0
ip link set eth0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
touch "$folder/up"
while :; do sleep 3600 & wait $!; done
"""
_PLUGIN = {
    "type": "ptp",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
}
_CONTAINERD = """version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox}"
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{programs}"
conf_dir = "{plugins}"
"""
_KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": MACHINE,
    "healthzPort": 0,
    # Only the host is connected to this address.
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": f"/{NAME}",
    "failCgroupV1": False,
    "failSwapOn": False,
    "enforceNodeAllocatable": [],
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
    "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    "resolvConf": "",
    "clusterDNS": [MACHINE],
    "clusterDomain": "cluster.local",
    "evictionHard": dict.fromkeys(("nodefs.available", "imagefs.available", "nodefs.inodesFree"), "1%"),
    "imageGCHighThresholdPercent": 100,
}
_NAMESPACES = ("--mount", "--net", "--uts", "--ipc", "--pid")
_UNSHARE = ("unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc", "--propagation", "private")


def _build(building: Building) -> None:
    from_debian(building, PACKAGES, building.folder)
    for each in ("iptables", "ip6tables"):  # links that an installation of the package would create
        for verb in ("", "-save", "-restore"):
            (building.folder / "usr/sbin" / f"{each}{verb}").symlink_to("xtables-nft-multi")


RECIPE = Recipe("node", (*PACKAGES, *platform.libc_ver()), _build)


def check() -> None:
    """Raise `UnavailableError` if no node can run on this machine. Must be quick and change nothing."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise UnavailableError("a node needs root on Linux")
    for name in ("unshare", "nsenter", "mount", "ip", *(() if provisioned(RECIPE) else ("apt-get", "dpkg-deb"))):
        command(name)
    if not _hierarchies():
        raise UnavailableError(f"no cgroup file system is mounted in {CGROUPS}")
    try:
        for probe in (root / f"{NAME}-probe-{os.getpid()}" for root in _hierarchies()):
            probe.mkdir()
            probe.rmdir()
    except OSError as error:
        raise UnavailableError(f"a cgroup cannot be created: {error}") from error
    for covered in map(Path, COVERED):
        if cache_folder().is_relative_to(covered):
            raise UnavailableError(
                f"the cache is in {covered}, which a node hides by a mount; set DECKLOG_CACHE to another folder"
            )
    used = subprocess.run(
        ["ip", "-4", "-o", "route", "show", "root", NETWORK], capture_output=True, text=True, check=False
    ).stdout
    foreign = [line for line in used.splitlines() if f"dev {NAME} " not in f"{line} "]
    if foreign:
        raise UnavailableError(f"the addresses of a node ({NETWORK}) are in use: {foreign[0].strip()}")


def check_kernel() -> None:
    """Raise `UnavailableError` if this kernel lacks a feature that a node needs. `RECIPE` must be provisioned."""
    iptables = provision(RECIPE) / "usr/sbin/iptables"
    words = [*_UNSHARE, "sh", "-c", _PROBE, "sh", str(iptables)]
    run = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **_environment()})
    if run.returncode:
        raise UnavailableError(
            f"the kernel does not support a node: {run.stderr.strip()[-300:] or f'exit code {run.returncode}'}"
        )


def available() -> None:
    """Provision the recipes of a node. Raises `UnavailableError` if no node can run on this machine."""
    check()
    for recipe in (kubernetes.RECIPE, RECIPE):
        provision(recipe)
    check_kernel()


def _environment() -> dict[str, str]:
    """Return the environment with which programs and libraries of the recipe are found first."""
    root = provision(RECIPE)
    [libraries] = (root / "usr/lib").glob("*-linux-gnu*")
    path = os.pathsep.join(
        [*(str(root / each) for each in ("usr/sbin", "usr/bin")), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    )
    return {"PATH": path, "LD_LIBRARY_PATH": str(libraries), "XTABLES_LIBDIR": str(libraries / "xtables")}


def _hierarchies() -> list[Path]:
    """Return the roots of cgroups: one under version 2, one for each controller under version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return sorted({each.resolve() for each in CGROUPS.glob("*") if (each / "cgroup.procs").exists()})


def _clear() -> None:
    """Remove the interface, the processes and the cgroups of an earlier node. The caller must hold the lock.

    Processes in these cgroups belong to a machine whose first process is ending, or to a run that was killed.
    """
    subprocess.run(["ip", "link", "delete", NAME], capture_output=True, check=False)
    deadline = time.monotonic() + CLEARED_MAX.total_seconds()
    for top in (root / NAME for root in _hierarchies()):
        while top.exists():
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    for pid in map(int, Path(folder, "cgroup.procs").read_text().split()):
                        if pid:  # 0 is a process outside this PID namespace; kill(0) would signal this process group
                            os.kill(pid, signal.SIGKILL)
                    Path(folder).rmdir()
            if time.monotonic() > deadline:
                raise UnavailableError(f"{top} cannot be removed: processes of a node still run in it")
            time.sleep(POLL_EVERY.total_seconds())


class LocalNode(LocalKubernetes):
    """One node and its control plane. It pulls no images; `load` imports them."""

    host = MACHINE
    services = SERVICES
    endpoints = "lease"
    users: ClassVar[Mapping[str, tuple[str, str]]] = {
        **LocalKubernetes.users,
        "scheduler.kubeconfig": ("system:kube-scheduler", ""),
        "proxy.kubeconfig": ("system:kube-proxy", ""),
        "kubelet.kubeconfig": ("system:node:node", "system:nodes"),
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lock: contextlib.ExitStack | None = None
        self._inside: list[str | Path] = []
        """Command prefix that runs a program in the machine."""

    def choose_ports(self) -> dict[str, int]:
        return {"etcd": 2379, "peer": 2380, "api": 6443, "manager": 10257}  # no other program listens in the machine

    def prepare(self) -> None:
        if self._lock is None:
            self._lock = contextlib.ExitStack()
            self._lock.enter_context(locked(LOCK, "another node on this machine to end"))
        super().prepare()

    def launch(self) -> None:
        _clear()
        for root in _hierarchies():
            (root / NAME).mkdir()
        self._start_machine()
        super().launch()
        self._configure()
        kube = provision(kubernetes.RECIPE) / "kube"
        self.spawn("containerd", [provision(RECIPE) / "usr/bin/containerd", "--config", self.folder / "containerd.toml"])
        self._wait("containerd", lambda: self.ctr("version").returncode == 0)
        self.spawn("kube-scheduler", [kube, "kube-scheduler", *self._scheduler()])
        self.spawn("kubelet", [kube, "kubelet", *self._kubelet()])
        self.spawn("kube-proxy", [kube, "kube-proxy", *self._proxy()])
        self.spawn("names", [sys.executable, NAMES, self.folder / "proxy.kubeconfig", MACHINE])
        self._wait("kube-proxy", lambda: http_status(f"http://{MACHINE}:10256/healthz") == 200)
        self._wait("kubelet", self._ready)

    def api_flags(self) -> list[str | Path]:
        return [*super().api_flags(), "--kubelet-preferred-address-types=InternalIP"]

    def _start_machine(self) -> None:
        """Start the machine and connect it with the host."""
        self._inside = []
        up = self.folder / "up"
        up.unlink(missing_ok=True)
        machine = self.spawn("machine", [*_UNSHARE, "sh", "-c", _MACHINE, NAME, self.folder, f"{MACHINE}/{CABLE_BITS}", *COVERED])
        self._wait("machine", lambda: descendants(machine.pid))
        first = descendants(machine.pid)[0].pid
        for words in (
            f"link add {NAME} type veth peer name eth0 netns {first}",
            f"address add {HOST}/{CABLE_BITS} dev {NAME}",
            f"link set {NAME} up",
            f"route add {PODS} via {MACHINE} dev {NAME}",
            f"route add {SERVICES} via {MACHINE} dev {NAME}",
        ):
            run = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
            if run.returncode:
                raise UnavailableError(f"`ip {words}` failed: {run.stderr.strip()}")
        self._wait("machine", up.exists)
        self._inside = ["nsenter", f"--target={first}", *_NAMESPACES, "--"]

    def _wait(self, name: str, ready: Callable[[], object]) -> None:
        wait_ready(f"the node's {name}", lambda: bool(ready()), self.processes, self.log(name), kubernetes.START_MAX)

    def _ready(self) -> bool:
        shown = 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
        return self.address.kubectl("get", "nodes", "-o", shown) == "True"

    def spawn(
        self,
        name: str,
        argv: list[str | Path],
        *,
        end: signal.Signals = signal.SIGKILL,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Process:
        return super().spawn(name, [*self._inside, *argv], end=end, cwd=cwd, environ={**_environment(), **(environ or {})})

    def _configure(self) -> None:
        plugins = self.folder / "plugins"
        make_folder(plugins)
        (plugins / "10-node.conflist").write_text(json.dumps({"cniVersion": "0.4.0", "name": NAME, "plugins": [_PLUGIN]}))
        programs = provision(RECIPE) / "usr/lib/cni"
        (self.folder / "containerd.toml").write_text(_CONTAINERD.format(sandbox=SANDBOX, plugins=plugins, programs=programs))
        (self.folder / "kubelet.yaml").write_text(json.dumps(_KUBELET))  # JSON is YAML

    def _scheduler(self) -> list[str | Path]:
        config = self.folder / "scheduler.kubeconfig"
        return [
            f"--kubeconfig={config}", f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}",
            "--authentication-skip-lookup", f"--bind-address={LOOPBACK}", "--leader-elect=false", "--profiling=false",
        ]  # fmt: skip

    def _kubelet(self) -> list[str | Path]:
        own = [f"--config={self.folder / 'kubelet.yaml'}", f"--kubeconfig={self.folder / 'kubelet.kubeconfig'}"]
        return [*own, "--hostname-override=node", f"--node-ip={MACHINE}"]

    def _proxy(self) -> list[str | Path]:
        return [
            f"--kubeconfig={self.folder / 'proxy.kubeconfig'}", "--hostname-override=node", "--proxy-mode=iptables",
            f"--cluster-cidr={PODS}", f"--nodeport-addresses={LOOPBACK}/8", f"--healthz-bind-address={MACHINE}:10256",
            "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
        ]  # fmt: skip

    def ctr(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._ctr(*words), capture_output=True, text=True, check=False)

    def _ctr(self, *words: str) -> list[str | Path]:
        return [*self._inside, provision(RECIPE) / "usr/bin/ctr", "--namespace", "k8s.io", *words]

    def load(self, write: Callable[[IO[bytes]], None]) -> None:
        """Import images; `write` writes an OCI archive of them to the stream."""
        with self.log("images").open("ab") as log:
            child = subprocess.Popen(self._ctr("images", "import", "-"), stdin=subprocess.PIPE, stdout=log, stderr=log)
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError), child.stdin as stream:  # the error below quotes the log
                write(stream)
        if child.wait():
            raise UnavailableError(f"the node did not import the images: {last_lines(self.log('images'))}")

    def discard(self) -> None:
        """Stop the machine and remove its interface, cgroups and folder."""
        stop_all(reversed(self.processes))
        if self._lock is not None:
            _clear()
            self._lock.close()
            self._lock = None
        super().discard()
