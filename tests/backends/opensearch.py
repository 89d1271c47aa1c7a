"""Run OpenSearch as a test server: one node without plugins.

The distribution is an artifact of the Maven repository. The cache keeps it unchanged; each server has its own folder of
configuration, data and logs. OpenSearch refuses to run as root, so root starts it as the user nobody.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.backends.backend import Backend, LocalServer
from tests.backends.cache import Building, Recipe, make_folder, provision, provisioned
from tests.backends.compose import Compose
from tests.backends.java import has_module, java_home
from tests.backends.packages import from_maven, obtainable, unzip
from tests.backends.server import LOOPBACK, as_nobody, free_ports, give_to_nobody, wait_ready

VERSION = "3.8.0"
ARTIFACT = f"org.opensearch.distribution.integ-test-zip:opensearch:{VERSION}:zip"
JAVA_MIN = 21
VECTOR_MODULE = "jdk.incubator.vector"  # optional: makes searches faster
START_MAX = timedelta(seconds=180)
HEAP_VARIABLE = "DECKLOG_TEST_OPENSEARCH_HEAP"
HEAP = "512m"
# An audit log does not need them, and each one slows every start.
MODULES_LEFT_OUT = (
    "cache-common", "geo", "ingest-geoip", "ingest-user-agent", "opensearch-dashboards", "percolator", "rank-eval", "repository-url",
    "rule-framework", "search-pipeline-common", "store-subdirectory", "transport-grpc",
)  # fmt: skip


@dataclass(frozen=True)
class OpenSearchServer:
    url: str


def _java() -> Path:
    return java_home(JAVA_MIN, "OPENSEARCH_JAVA_HOME")


def _build(building: Building) -> None:
    from_maven(building, ARTIFACT, building.folder / "download")
    [archive] = (building.folder / "download").glob("*.zip")
    unzip(archive, building.folder)
    shutil.rmtree(building.folder / "download")
    (building.folder / f"opensearch-{VERSION}").rename(building.folder / "opensearch")
    for module in MODULES_LEFT_OUT:
        shutil.rmtree(building.folder / "opensearch" / "modules" / module)
    make_folder(building.folder / "opensearch" / "plugins")
    for path in building.folder.rglob("*"):  # the user nobody must be able to read it
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))


RECIPE = Recipe("opensearch", (ARTIFACT, *MODULES_LEFT_OUT), _build)


class LocalOpenSearch(LocalServer[OpenSearchServer]):
    """OpenSearch on this machine, with its translog synced at every request.

    `durable` selects the shipped compiler and garbage collector, for benchmarks.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        super().__init__(folder)
        self.durable = durable

    def prepare(self) -> None:
        http, transport = free_ports(2)
        self.address = OpenSearchServer(f"http://{LOOPBACK}:{http}")
        for name in ("config", "data", "logs", "tmp"):
            make_folder(self.folder / name)
        lines: dict[str, object] = {
            "cluster.name": "decklog-test",
            "node.name": "node",
            "path.data": str(self.folder / "data"),
            "path.logs": str(self.folder / "logs"),
            "network.host": LOOPBACK,
            "http.port": http,
            "transport.port": transport,
            "discovery.type": "single-node",
            "action.auto_create_index": True,
            "cluster.routing.allocation.disk.threshold_enabled": False,
        }
        (self.folder / "config" / "opensearch.yml").write_text(
            "".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items())
        )
        shipped = provision(RECIPE) / "opensearch" / "config"
        shutil.copyfile(shipped / "log4j2.properties", self.folder / "config" / "log4j2.properties")
        options = (shipped / "jvm.options").read_text().splitlines()
        # Drop options that write garbage collection logs and heap dumps into the distribution, which must stay unchanged.
        kept = [line for line in options if not any(word in line for word in ("logs/", "HeapDump", "-Xms", "-Xmx", "G1GC"))]
        if not has_module(_java(), VECTOR_MODULE):
            kept = [line for line in kept if VECTOR_MODULE not in line]
        # The quick compiler and the serial collector save a third of the start time, but are slower under load.
        kept += ["-XX:+UseG1GC"] if self.durable else ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        (self.folder / "config" / "jvm.options").write_text("\n".join(kept) + "\n")

    def launch(self) -> None:
        heap = os.environ.get(HEAP_VARIABLE, HEAP)
        environ = {
            "HOME": str(self.folder / "data"),
            "OPENSEARCH_JAVA_HOME": str(_java()),
            "OPENSEARCH_PATH_CONF": str(self.folder / "config"),
            "OPENSEARCH_TMPDIR": str(self.folder / "tmp"),
            "OPENSEARCH_JAVA_OPTS": f"-Xms{heap} -Xmx{heap}",
        }
        give_to_nobody(*(self.folder / name for name in ("config", "data", "logs", "tmp")))
        program = provision(RECIPE) / "opensearch" / "bin" / "opensearch"
        self.spawn("opensearch", [*as_nobody(), program], environ=environ, cwd=self.folder)
        wait_ready("OpenSearch", lambda: BACKEND.answers(self.address), self.processes, self.log("opensearch"), START_MAX)


class OpenSearchBackend(Backend[OpenSearchServer]):
    name = "opensearch"
    variables = ("DECKLOG_TEST_OPENSEARCH_URL",)
    address_type = OpenSearchServer
    measurable = True

    def from_environment(self, environ: Mapping[str, str]) -> OpenSearchServer | None:
        url = environ.get(self.variables[0])
        return OpenSearchServer(url.rstrip("/")) if url else None

    def from_compose(self, compose: Compose) -> OpenSearchServer:
        host, port = compose.up(self.name, 9200)
        return OpenSearchServer(f"http://{host}:{port}")

    def check(self) -> None:
        as_nobody()
        if not provisioned(RECIPE):
            obtainable("mvn")

    def recipes(self) -> list[Recipe]:
        return [RECIPE]

    def provision(self) -> None:
        super().provision()
        _java()

    def local(self, folder: Path, *, durable: bool = False) -> LocalOpenSearch:
        return LocalOpenSearch(folder, durable=durable)

    def answers(self, address: OpenSearchServer) -> bool:
        try:
            with urllib.request.urlopen(
                f"{address.url}/_cluster/health?wait_for_status=yellow&timeout=1s", timeout=5
            ) as response:
                return bool(json.load(response)["status"] in ("yellow", "green"))
        except (OSError, ValueError, KeyError):
            return False

    def exports(self, address: OpenSearchServer) -> dict[str, str]:
        return {self.variables[0]: address.url}


BACKEND = OpenSearchBackend()
