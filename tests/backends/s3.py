"""Run versitygw as a test server for S3: object lock, legal hold, versions, multipart and presigned URLs over a plain folder.

It is a Go program, built once from its published module.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.backends.backend import Backend, LocalServer
from tests.backends.cache import Building, Recipe, make_folder, provision, provisioned
from tests.backends.compose import Compose
from tests.backends.packages import command
from tests.backends.server import LOOPBACK, free_ports, http_status, wait_ready

MODULE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
START_MAX = timedelta(seconds=30)
REGION = "us-east-1"


@dataclass(frozen=True)
class S3Server:
    url: str
    region: str
    access_key: str
    secret_key: str


def _build(building: Building) -> None:
    building.run(
        [command("go"), "install", MODULE], environ={"GOBIN": str(building.folder), "GOFLAGS": "-buildvcs=false -trimpath"}
    )


RECIPE = Recipe("versitygw", (MODULE,), _build)


class LocalS3(LocalServer[S3Server]):
    def prepare(self) -> None:
        [port] = free_ports(1)
        self.address = S3Server(f"http://{LOOPBACK}:{port}", REGION, "test", secrets.token_hex(12))
        for name in ("objects", "versions"):
            make_folder(self.folder / name)

    def launch(self) -> None:
        listen = self.address.url.removeprefix("http://")
        # The folder of versions must be outside the folder of objects. Without it, an object lock has no versions to protect.
        posix: list[str | Path] = ["posix", "--versioning-dir", self.folder / "versions", self.folder / "objects"]
        keys = {"ROOT_ACCESS_KEY": self.address.access_key, "ROOT_SECRET_KEY": self.address.secret_key}
        program = provision(RECIPE) / "versitygw"
        self.spawn("versitygw", [program, "--port", listen, "--region", REGION, *posix], environ=keys, cwd=self.folder)
        wait_ready("versitygw", lambda: BACKEND.answers(self.address), self.processes, self.log("versitygw"), START_MAX)


class S3Backend(Backend[S3Server]):
    name = "s3"
    variables = ("DECKLOG_TEST_S3_URL", "DECKLOG_TEST_S3_REGION", "DECKLOG_TEST_S3_ACCESS_KEY", "DECKLOG_TEST_S3_SECRET_KEY")
    address_type = S3Server

    def from_environment(self, environ: Mapping[str, str]) -> S3Server | None:
        url, region, key, secret = (environ.get(variable) for variable in self.variables)
        if not url:
            return None
        if not key or not secret:
            raise ValueError(f"{self.variables[0]} is set, but {self.variables[2]} or {self.variables[3]} is not")
        return S3Server(url.rstrip("/"), region or REGION, key, secret)

    def from_compose(self, compose: Compose) -> S3Server:
        host, port = compose.up(self.name, 7070)
        return S3Server(f"http://{host}:{port}", REGION, "test", compose.password)

    def check(self) -> None:
        if not provisioned(RECIPE):
            command("go")

    def recipes(self) -> list[Recipe]:
        return [RECIPE]

    def local(self, folder: Path, *, durable: bool = False) -> LocalS3:
        return LocalS3(folder)

    def answers(self, address: S3Server) -> bool:
        return http_status(address.url + "/") is not None

    def exports(self, address: S3Server) -> dict[str, str]:
        return dict(zip(self.variables, (address.url, address.region, address.access_key, address.secret_key), strict=True))


BACKEND = S3Backend()
