"""Fixtures: an operator process with exactly the rights of `manifests/install.yaml`, on a real API server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from decklog_operator.manifests import NAMESPACE
from decklog_operator.names import OPERATOR
from tests.backends import KubernetesServer, OpenSearchServer
from tests.backends.sqs import SqsServer
from tests.support.operator_installation import Installation, Installing
from tests.support.operators import Kubernetes, Operator, least_rights_kubeconfig, operator_environment, turn
from tests.support.provisioning import FOLDER_VARIABLE, FolderProvisioner
from tests.support.relay import Relay
from tests.support.stack import installed
from tests.support.stores import Database


@pytest.fixture(scope="session")
def least_rights(kubernetes_server: KubernetesServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig of the operator's service account."""
    return least_rights_kubeconfig(kubernetes_server, tmp_path_factory.mktemp("rights"))


@pytest.fixture
def kubernetes(kubernetes_server: KubernetesServer, least_rights: Path) -> Iterator[Kubernetes]:
    """The cluster with the definition and without an operator."""
    cluster = Kubernetes(kubernetes_server)
    yield cluster
    cluster.clean()


@pytest.fixture
def the_lease(kubernetes: Kubernetes) -> Iterator[None]:
    """The Leases that the installation may use, and those of its shards. One test at a time uses them, and they start and end absent."""
    with turn(kubernetes.server, "lease"):
        drop = ("delete", "lease", OPERATOR, f"{OPERATOR}-a", f"{OPERATOR}-b", "-n", NAMESPACE, "--ignore-not-found")
        kubernetes(*drop)
        yield
        kubernetes(*drop)


@pytest.fixture
def backends(tmp_path: Path) -> FolderProvisioner:
    """The folder that stands for the operator's backends. Tests inspect it and break backends by files."""
    folder = tmp_path / "backends"
    folder.mkdir()
    return FolderProvisioner(folder)


@pytest.fixture
def operator(kubernetes: Kubernetes, least_rights: Path, backends: FolderProvisioner, tmp_path: Path) -> Iterator[Operator]:
    """A running operator that serves the Tenants of this test, with a folder as its backends."""
    environment = operator_environment(kubernetes, least_rights, **{FOLDER_VARIABLE: str(backends.folder)})
    process = Operator(["tests.support.operator_on_folder"], environment, tmp_path)
    process.start()
    yield process
    process.end()


@pytest.fixture
def away(least_rights: Path, tmp_path: Path) -> Iterator[tuple[Relay, Path]]:
    """A relay to the API server, and a kubeconfig that uses it."""
    config = yaml.safe_load(least_rights.read_text())
    url = urlsplit(config["clusters"][0]["cluster"]["server"])
    relay = Relay(str(url.hostname), url.port or 443)
    config["clusters"][0]["cluster"] |= {"server": f"https://127.0.0.1:{relay.port}", "tls-server-name": url.hostname}
    path = tmp_path / "through-the-relay"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    yield relay, path
    relay.close()


@pytest.fixture
async def install(
    kubernetes: Kubernetes, least_rights: Path, database: Database, opensearch_server: OpenSearchServer, tmp_path: Path
) -> AsyncIterator[Installing]:
    """A factory: given an SQS server and operator settings, it migrates backends and starts an operator on them."""
    async with AsyncExitStack() as stack:

        async def start(sqs: SqsServer, **variables: str) -> tuple[Installation, Operator]:
            made = Installation(database, opensearch_server, sqs)
            dsns = {"service_dsn": database.service_dsn, "owner_dsn": database.owner_dsn}
            settings = await stack.enter_async_context(installed(tmp_path, **dsns, **made.variables))
            environment = operator_environment(kubernetes, least_rights, **settings.variables, **variables)
            operator = Operator(["decklog_operator", "run"], environment, tmp_path)
            stack.callback(operator.end)
            operator.start()
            return made, operator

        yield start
