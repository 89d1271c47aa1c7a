"""Run ElasticMQ as a test server for SQS: queues with visibility, redrive and the limits of AWS, in one Java process.

Its jars come from the Maven repository; `elasticmq/pom.xml` names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from string import Template

from tests.backends.backend import Backend, LocalServer
from tests.backends.cache import Building, Recipe, provision, provisioned
from tests.backends.compose import Compose
from tests.backends.java import java_home
from tests.backends.packages import from_maven_project, obtainable
from tests.backends.server import LOOPBACK, free_ports, http_status, wait_ready

HERE = Path(__file__).parent
POM = HERE / "elasticmq" / "pom.xml"
CONFIGURATION = HERE / "elasticmq" / "elasticmq.conf.template"
HEAP = "256m"
JAVA_MIN = 17
START_MAX = timedelta(seconds=90)
REGION = "us-east-1"
KEY = SECRET = "test"  # ElasticMQ accepts any key


@dataclass(frozen=True)
class SqsServer:
    url: str
    region: str
    access_key: str
    secret_key: str


def _build(building: Building) -> None:
    from_maven_project(building, POM, building.folder / "lib")


RECIPE = Recipe("elasticmq", (POM.read_text(),), _build)


class LocalSqs(LocalServer[SqsServer]):
    """ElasticMQ on this machine. It keeps its queues in memory: after `stop` or `kill9` they do not exist any more."""

    def prepare(self) -> None:
        [port] = free_ports(1)
        self.address = SqsServer(f"http://{LOOPBACK}:{port}", REGION, KEY, SECRET)
        text = Template(CONFIGURATION.read_text()).substitute(host=LOOPBACK, port=port, region=REGION)
        (self.folder / "elasticmq.conf").write_text(text)

    def launch(self) -> None:
        options = [
            "-Xms64m",
            f"-Xmx{HEAP}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Dconfig.file={self.folder / 'elasticmq.conf'}",
        ]
        java = java_home(JAVA_MIN) / "bin" / "java"
        self.spawn(
            "elasticmq", [java, *options, "-cp", f"{provision(RECIPE) / 'lib'}/*", "org.elasticmq.server.Main"], cwd=self.folder
        )
        wait_ready("ElasticMQ", lambda: BACKEND.answers(self.address), self.processes, self.log("elasticmq"), START_MAX)


class SqsBackend(Backend[SqsServer]):
    name = "sqs"
    variables = ("DECKLOG_TEST_SQS_URL", "DECKLOG_TEST_SQS_REGION", "DECKLOG_TEST_SQS_ACCESS_KEY", "DECKLOG_TEST_SQS_SECRET_KEY")
    address_type = SqsServer

    def from_environment(self, environ: Mapping[str, str]) -> SqsServer | None:
        url, region, key, secret = (environ.get(variable) for variable in self.variables)
        return SqsServer(url.rstrip("/"), region or REGION, key or KEY, secret or SECRET) if url else None

    def from_compose(self, compose: Compose) -> SqsServer:
        host, port = compose.up(self.name, 9324)
        return SqsServer(f"http://{host}:{port}", REGION, KEY, SECRET)

    def check(self) -> None:
        if not provisioned(RECIPE):
            obtainable("mvn")

    def recipes(self) -> list[Recipe]:
        return [RECIPE]

    def provision(self) -> None:
        super().provision()
        java_home(JAVA_MIN)

    def local(self, folder: Path, *, durable: bool = False) -> LocalSqs:
        return LocalSqs(folder)

    def answers(self, address: SqsServer) -> bool:
        return http_status(f"{address.url}/?Action=ListQueues") is not None

    def exports(self, address: SqsServer) -> dict[str, str]:
        return dict(zip(self.variables, (address.url, address.region, address.access_key, address.secret_key), strict=True))


BACKEND = SqsBackend()
