"""Envoy Gateway as it stands before the API: a real one, without a cluster, that is told by files and runs a real Envoy on loopback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.backends.server import LOOPBACK, Process, free_ports, http_status, spawn, stop_all, wait_ready
from tests.backends.tools import ENVOY_VERSION
from tests.support.charts import Json, of
from tests.support.edge import START_MAX, serves
from tests.support.operators import until

_CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
_API = "gateway.envoyproxy.io/v1alpha1"


class EnvoyGateway:
    """Its Gateway has the name that the routes of these objects ask for, and listens on `port`. There is one at a time: its own ports
    are fixed."""

    def __init__(self, program: Path, envoy: Path, folder: Path) -> None:
        self._program, self._folder = program, folder
        self._processes: list[Process] = []
        self._homes = {name: str(folder / name) for name in ("configHome", "dataHome", "stateHome", "runtimeDir")}
        # Where it would put an Envoy that it fetched.
        place = folder / f"dataHome/envoy-versions/{ENVOY_VERSION}/bin"
        place.mkdir(parents=True)
        (place / "envoy").symlink_to(envoy)
        self._told = folder / "told"
        self._told.mkdir()
        self.port = 0

    def start(self, host: str, objects: list[Json]) -> None:
        """With the routes and policies of a release, until `host` is served. They lead to loopback, not to the API's Service: without a
        cluster it knows none."""
        self.port, admin = free_ports(2)
        routes = of(objects, "HTTPRoute")
        [parent] = routes[0]["spec"]["parentRefs"]
        told = [*_gateway(parent["namespace"], parent["name"], self.port), *of(objects, "BackendTrafficPolicy")]
        for route in routes:
            told += [_to_loopback(route), route]
        (self._told / "told.yaml").write_text(yaml.safe_dump_all(told))
        config = self._folder / "envoy-gateway.yaml"
        config.write_text(yaml.safe_dump(self._config(admin)))
        certificates: list[str | Path] = [self._program, "certgen", "--local", "--config-home", self._homes["configHome"]]
        subprocess.run(certificates, check=True, capture_output=True, timeout=START_MAX.total_seconds())
        log = self._folder / "envoy-gateway.log"
        argv: list[str | Path] = [self._program, "server", "--config-path", config]
        self._processes.append(spawn(argv, pid_file=self._folder / "envoy-gateway.pid", log=log, cwd=self._folder))
        url = f"http://{LOOPBACK}:{admin}/api/info"
        wait_ready("envoy-gateway", lambda: http_status(url) == 200, self._processes, log, START_MAX)
        until(f"{host} is served", lambda: serves(self.port, host), longest=START_MAX.total_seconds())

    def close(self) -> None:
        stop_all(self._processes)

    def _config(self, admin: int) -> Json:
        custom = {
            "resource": {"type": "File", "file": {"paths": [str(self._told)]}},
            "infrastructure": {"type": "Host", "host": self._homes},
        }
        return {
            "apiVersion": _API,
            "kind": "EnvoyGateway",
            "gateway": {"controllerName": _CONTROLLER},
            "provider": {"type": "Custom", "custom": custom},
            "extensionApis": {"enableBackend": True},
            "admin": {"address": {"host": LOOPBACK, "port": admin}},
            "telemetry": {"metrics": {"prometheus": {"disable": True}}},
            "logging": {"level": {"default": "warn"}},
        }


def _gateway(namespace: str, name: str, port: int) -> list[Json]:
    """The Gateway, which is somebody else's in a cluster, with one Envoy of one thread."""
    proxy = {
        "provider": {"type": "Host", "host": {"envoyVersion": ENVOY_VERSION}},
        "concurrency": 1,
        "shutdown": {"drainTimeout": "1s"},
    }
    parameters = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": name}
    listener = {"name": "http", "protocol": "HTTP", "port": port, "allowedRoutes": {"namespaces": {"from": "All"}}}
    gateway = {"gatewayClassName": name, "infrastructure": {"parametersRef": parameters}, "listeners": [listener]}
    metadata = {"name": name, "namespace": namespace}
    api = "gateway.networking.k8s.io/v1"
    return [
        {"apiVersion": api, "kind": "GatewayClass", "metadata": {"name": name}, "spec": {"controllerName": _CONTROLLER}},
        {"apiVersion": _API, "kind": "EnvoyProxy", "metadata": metadata, "spec": proxy},
        {"apiVersion": api, "kind": "Gateway", "metadata": metadata, "spec": gateway},
    ]


def _to_loopback(route: Json) -> Json:
    """The backend that this route now leads to."""
    metadata = {key: route["metadata"][key] for key in ("name", "namespace")}
    [rule] = route["spec"]["rules"]
    [to] = rule["backendRefs"]
    rule["backendRefs"] = [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": metadata["name"]}]
    spec = {"endpoints": [{"ip": {"address": LOOPBACK, "port": to["port"]}}]}
    return {"apiVersion": _API, "kind": "Backend", "metadata": metadata, "spec": spec}
