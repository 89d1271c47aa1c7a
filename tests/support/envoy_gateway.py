"""Run a real Envoy Gateway without a cluster, configured by files, with a real Envoy on loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.backends.server import LOOPBACK, free_ports, http_status, spawn, stop_all, wait_ready
from tests.backends.tools import ENVOY_VERSION
from tests.support.charts import Helm, Json, of
from tests.support.edge import START_MAX, serves
from tests.support.operators import until

_CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
_API = "gateway.envoyproxy.io/v1alpha1"


@contextmanager
def envoy_gateway(program: Path, envoy: Path, chart: Helm, folder: Path, *, host: str, api_port: int) -> Iterator[int]:
    """Yield the port of an Envoy that serves `host` by the routes of the chart with ci/edge.yaml and limits per client.

    Requests go to the API on `api_port` of loopback. Only one may run at a time, because Envoy Gateway has fixed ports."""
    words = f"api.port={api_port},httpRoute.hostnames={{{host}}},httpRoute.envoyGateway.global=false"
    port, admin = free_ports(2)
    told, config, log = folder / "told", folder / "envoy-gateway.yaml", folder / "envoy-gateway.log"
    homes = {name: str(folder / name) for name in ("configHome", "dataHome", "stateHome", "runtimeDir")}
    # the folder for an Envoy that Envoy Gateway would download
    place = folder / f"dataHome/envoy-versions/{ENVOY_VERSION}/bin"
    place.mkdir(parents=True)
    (place / "envoy").symlink_to(envoy)
    told.mkdir()
    (told / "told.yaml").write_text(yaml.safe_dump_all(_told(chart.render("edge", "--set", words), port)))
    config.write_text(yaml.safe_dump(_config(told, homes, admin)))
    certificates: list[str | Path] = [program, "certgen", "--local", "--config-home", homes["configHome"]]
    subprocess.run(certificates, check=True, capture_output=True, timeout=START_MAX.total_seconds())
    argv: list[str | Path] = [program, "server", "--config-path", config]
    process = spawn(argv, pid_file=folder / "envoy-gateway.pid", log=log, cwd=folder)
    try:
        wait_ready("envoy-gateway", lambda: http_status(f"http://{LOOPBACK}:{admin}/api/info") == 200, [process], log, START_MAX)
        until(f"{host} is served", lambda: serves(port, host), longest=START_MAX.total_seconds())
        yield port
    finally:
        stop_all([process])


def _config(told: Path, homes: Json, admin: int) -> Json:
    custom = {
        "resource": {"type": "File", "file": {"paths": [str(told)]}},
        "infrastructure": {"type": "Host", "host": homes},
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


def _told(objects: list[Json], port: int) -> list[Json]:
    """Return the routes and policies of a release with their Gateway.

    They lead to loopback instead of the API's Service, because Envoy Gateway knows no Services without a cluster."""
    routes = of(objects, "HTTPRoute")
    [parent] = routes[0]["spec"]["parentRefs"]
    backends = [_to_loopback(route) for route in routes]
    return [*_gateway(parent["namespace"], parent["name"], port), *of(objects, "BackendTrafficPolicy"), *backends, *routes]


def _gateway(namespace: str, name: str, port: int) -> list[Json]:
    """Return a Gateway with one Envoy of one thread. In a cluster, the Gateway belongs to the platform."""
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
    """Redirect the route to loopback and return its backend."""
    metadata = {key: route["metadata"][key] for key in ("name", "namespace")}
    [rule] = route["spec"]["rules"]
    [to] = rule["backendRefs"]
    rule["backendRefs"] = [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": metadata["name"]}]
    spec = {"endpoints": [{"ip": {"address": LOOPBACK, "port": to["port"]}}]}
    return {"apiVersion": _API, "kind": "Backend", "metadata": metadata, "spec": spec}
