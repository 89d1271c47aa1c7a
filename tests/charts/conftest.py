"""Fixtures: helm, and an API server with the custom resources of other projects."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends import KubernetesServer
from tests.support.charts import Helm, defined


@pytest.fixture(scope="session")
def chart(helm: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(helm, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def cluster(kubernetes_server: KubernetesServer, definitions: Path) -> KubernetesServer:
    return defined(kubernetes_server, definitions)
