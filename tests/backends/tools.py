"""Programs and files that tests of the delivery use beside servers: helm, the definitions of what others bring into a cluster,
Prometheus' own evaluation of expressions (`promql/` beside this module; promtool would take six times as long to build), and
the reader of compose files that Docker compose has in it (`composefile/`).

They come from published Go modules, once, into the cache. They belong to the Kubernetes backend: where that is required, so are they.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.backends.cache import Building, Recipe, make_folder, remove
from tests.backends.kubernetes import VERSION
from tests.backends.packages import command

PROMQL = Path(__file__).parent / "promql"
COMPOSEFILE = Path(__file__).parent / "composefile"
HELM_VERSION = "v3.22.0"
_MAJOR, _MINOR = VERSION.split(".")[:2]
_HELM_FLAGS = (
    f"-s -w -X helm.sh/helm/v3/internal/version.version={HELM_VERSION}"
    f" -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor={_MAJOR} -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={_MINOR}"
    f" -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor={_MAJOR} -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor={_MINOR}"
)
"""With the version of Kubernetes that it takes a cluster to have when there is none to ask."""


@dataclass(frozen=True)
class Definitions:
    """Files of one module that define custom resources."""

    module: str
    paths: tuple[str, ...]


DEFINITIONS = (
    Definitions("github.com/projectcontour/contour@v1.33.8", ("examples/contour/01-crds.yaml", "examples/gateway/00-crds.yaml")),
    Definitions("github.com/kedacore/keda/v2@v2.21.0", ("config/crd/bases/keda.sh_scaledobjects.yaml",)),
    Definitions(
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        tuple(
            f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
            for kind in ("servicemonitors", "prometheusrules")
        ),
    ),
)


def _helm(building: Building) -> None:
    environ = {"GOBIN": str(building.folder), "GOFLAGS": "-buildvcs=false -trimpath"}
    building.run([command("go"), "install", "-ldflags", _HELM_FLAGS, f"helm.sh/helm/v3/cmd/helm@{HELM_VERSION}"], environ=environ)


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
    """A program of this folder, of the name that its own folder has."""

    def build(building: Building) -> None:
        flags: list[str | Path] = ["-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", building.folder / sources.name]
        building.run([command("go"), "build", *flags, "."], cwd=sources)

    return Recipe(sources.name, tuple(path.read_text() for path in sorted(sources.iterdir())), build)


TOOLS: Mapping[str, Recipe] = {
    "helm": Recipe("helm", (HELM_VERSION, _HELM_FLAGS), _helm),
    "definitions": Recipe("definitions", tuple(map(repr, DEFINITIONS)), _definitions),
    "promql": _ours(PROMQL),
    "composefile": _ours(COMPOSEFILE),
}
