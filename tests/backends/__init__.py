"""Start the real servers that tests and benchmarks of Decklog run against.

Programs use `running`, pytest uses `tests.backends.fixtures`, and a terminal uses `python -m tests.backends`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tests.backends import kubernetes, opensearch, postgres, s3, sqs, timescale
from tests.backends.cache import UnavailableError
from tests.backends.docker import LocalDocker
from tests.backends.kubernetes import KubernetesServer, LocalKubernetes
from tests.backends.node import LocalNode
from tests.backends.opensearch import LocalOpenSearch, OpenSearchServer
from tests.backends.postgres import LocalPostgres, PostgresServer, Variant
from tests.backends.resolve import BACKENDS, BadAddressError, named
from tests.backends.run import Run
from tests.backends.s3 import LocalS3, S3Server
from tests.backends.sqs import LocalSqs, SqsServer

__all__ = [
    "BACKENDS",
    "BadAddressError",
    "KubernetesServer",
    "LocalDocker",
    "LocalKubernetes",
    "LocalNode",
    "LocalOpenSearch",
    "LocalPostgres",
    "LocalS3",
    "LocalSqs",
    "OpenSearchServer",
    "PostgresServer",
    "S3Server",
    "Servers",
    "SqsServer",
    "UnavailableError",
    "Variant",
    "running",
]


class Servers:
    """The shared servers of one run, started at first use, and private ones. Each property may raise `UnavailableError`."""

    def __init__(self, run: Run, *, durable: bool = False) -> None:
        self.run = run
        self._durable = durable

    @property
    def timescale(self) -> PostgresServer:
        return self.run.address(timescale.BACKEND, durable=self._durable)

    @property
    def postgres(self) -> PostgresServer:
        return self.run.address(postgres.BACKEND, durable=self._durable)

    @property
    def opensearch(self) -> OpenSearchServer:
        return self.run.address(opensearch.BACKEND, durable=self._durable)

    @property
    def sqs(self) -> SqsServer:
        return self.run.address(sqs.BACKEND)

    @property
    def s3(self) -> S3Server:
        return self.run.address(s3.BACKEND)

    @property
    def kubernetes(self) -> KubernetesServer:
        return self.run.address(kubernetes.BACKEND)

    def private_postgres(self, variant: Variant = "timescale", *, durable: bool = True, **settings: str) -> LocalPostgres:
        """Start a PostgreSQL that the caller may kill and restart; `settings` are added to its configuration."""
        backend = timescale.BACKEND if variant == "timescale" else postgres.BACKEND
        return self.run.private(backend, lambda folder: backend.local(folder, durable=durable, changes=settings))

    def private_opensearch(self) -> LocalOpenSearch:
        return self.run.private(opensearch.BACKEND, opensearch.BACKEND.local)

    def private_s3(self) -> LocalS3:
        return self.run.private(s3.BACKEND, s3.BACKEND.local)

    def private_kubernetes(self) -> LocalKubernetes:
        return self.run.private(kubernetes.BACKEND, kubernetes.BACKEND.local)

    def private_node(self) -> LocalNode:
        """Start a Kubernetes that runs pods; a machine runs one at a time. Call `node.available` first."""
        return self.run.private(kubernetes.BACKEND, LocalNode)

    def private_docker(self) -> LocalDocker:
        """Start a private Docker engine; a machine runs one at a time. Call `docker.available` first."""
        return self.run.private(timescale.BACKEND, LocalDocker)

    def private_sqs(self) -> LocalSqs:
        return self.run.private(sqs.BACKEND, sqs.BACKEND.local)


@contextlib.contextmanager
def running(*names: str, durable: bool = False) -> Iterator[Servers]:
    """Run the named servers until the block ends; inside a test run, use the servers of that run.

    `durable` selects production settings (PostgreSQL with fsync), which benchmarks need. Raises `UnavailableError` if a
    server cannot start on this machine.
    """
    run = Run.open(os.environ)
    try:
        for backend in named(*names) if names else []:
            run.address(backend, durable=durable)
        yield Servers(run, durable=durable)
    finally:
        run.close()
