"""helm, and an API server that knows the custom resources which others bring."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends import KubernetesServer
from tests.support.charts import ROOT, Helm


@pytest.fixture(scope="session")
def chart(helm: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(helm, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def cluster(kubernetes_server: KubernetesServer, definitions: Path) -> KubernetesServer:
    """With the definitions of Contour, the Gateway API, KEDA, the Prometheus operator and Decklog."""
    ours = str(ROOT / "manifests/crd.yaml")
    kubernetes_server.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(definitions), "-f", ours)
    kubernetes_server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    return kubernetes_server
