"""Run a Docker engine as a test server, with stand-ins for public images, built from packages alone.

The engine comes from Debian's packages, unpacked into the cache without installation. It does not change the machine's network:
it has no default bridge and writes no iptables rules, and its own proxy serves published ports. The cache keeps its images
between runs, so a lock admits one engine at a time. Needs root on Linux.

The engine pulls no image. Stand-ins for the public images of docker-compose.yml and the Dockerfiles are built from other recipes
in the cache. Each has the parts of its original that these files use: entry point, environment, user, volumes and the programs
of probes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.backends import images, opensearch, s3, sqs, timescale
from tests.backends.backend import LocalServer
from tests.backends.cache import (
    Building,
    Recipe,
    UnavailableError,
    cache_folder,
    locked,
    make_folder,
    mounts_below,
    provision,
    remove,
)
from tests.backends.java import java_home
from tests.backends.packages import command, from_debian, from_debian_suite
from tests.backends.server import wait_ready

PACKAGES = (
    *("docker.io", "containerd", "runc", "libdevmapper1.02.1", "iptables"),
    *("libip4tc2", "libip6tc2", "libxtables12", "libmnl0", "libnetfilter-conntrack3", "libnfnetlink0", "libnftnl11"),
)
"""The engine, the iptables with which it redirects DNS queries of containers to itself, and the libraries of both."""
COMPOSE_SUITE, COMPOSE_PACKAGE = "trixie", "docker-compose"
"""Debian suite and package of Compose. Its program is static, so a program from a newer suite runs here."""
IMAGES = "docker-images"
"""Folder of the cache that keeps the engine's images between runs."""
RUNNING = Path("/run/decklog-docker")
"""Folder of the engine's sockets. A path below the folder of a run would exceed the 108 bytes of a socket address."""
START_MAX = timedelta(seconds=60)
COMMAND_MAX = timedelta(minutes=10)
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
PYTHON = "python:3.11-slim-bookworm"


@dataclass(frozen=True)
class DockerEngine:
    """An engine with the path and the environment of its client."""

    program: Path
    environment: Mapping[str, str]

    def run(self, *words: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `docker` and return the completed process, also if it failed."""
        return subprocess.run(
            [self.program, *words], cwd=cwd, env={**self.environment, **environment}, capture_output=True, text=True,
            check=False, timeout=COMMAND_MAX.total_seconds(),
        )  # fmt: skip

    def done(self, *words: str | Path, cwd: Path | None = None, **environment: str) -> str:
        """Run `docker` and return its standard output. Raises `UnavailableError` with the end of its output if it fails."""
        ran = self.run(*words, cwd=cwd, **environment)
        if ran.returncode:
            raise UnavailableError(f"`docker {' '.join(map(str, words[:3]))} …` failed: {(ran.stderr or ran.stdout)[-600:]}")
        return ran.stdout

    def has(self, image: str) -> bool:
        return self.run("image", "inspect", image).returncode == 0


def _build(building: Building) -> None:
    from_debian(building, PACKAGES, building.folder)
    for each in ("iptables", "ip6tables"):  # links that an installation of the package would create
        (building.folder / "usr/sbin" / each).symlink_to("xtables-nft-multi")
    from_debian_suite(building, COMPOSE_SUITE, COMPOSE_PACKAGE, building.folder / "compose")


RECIPE = Recipe("docker", (*PACKAGES, COMPOSE_SUITE, COMPOSE_PACKAGE), _build)


def check() -> None:
    """Raise `UnavailableError` if no engine can run on this machine. Quick, and changes nothing."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise UnavailableError("a Docker engine needs root on Linux")
    for name in ("unshare", "ip", "apt-get", "dpkg-deb"):
        command(name)
    if not AUTHORITIES.exists():
        raise UnavailableError(f"{AUTHORITIES} is missing: images need it to reach package registries")


def available() -> None:
    """Provision the recipes of the engine and its images. Raises `UnavailableError` if no engine can run here."""
    check()
    for recipe in (RECIPE, images.BASE, timescale.RECIPE, opensearch.RECIPE, sqs.RECIPE, s3.RECIPE):
        provision(recipe)


class LocalDocker(LocalServer[DockerEngine]):
    """One engine. The cache keeps its images; `discard` removes its containers, networks and volumes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lock = contextlib.ExitStack()

    def prepare(self) -> None:
        root = provision(RECIPE)
        [libraries] = (root / "usr/lib").glob("*-linux-gnu*")
        config = self.folder / "config"
        make_folder(config / "cli-plugins")
        compose = root / "compose/usr/libexec/docker/cli-plugins/docker-compose"
        (config / "cli-plugins/docker-compose").symlink_to(compose)
        self._lock.enter_context(locked(cache_folder() / "docker.lock", "another Docker engine on this machine to end"))
        self.address = DockerEngine(
            root / "usr/bin/docker",
            {
                "PATH": os.pathsep.join(
                    [*(str(root / each) for each in ("usr/sbin", "usr/bin")), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                ),
                "LD_LIBRARY_PATH": str(libraries),
                "XTABLES_LIBDIR": str(libraries / "xtables"),
                "HOME": str(self.folder),
                "DOCKER_HOST": f"unix://{RUNNING / 'docker.sock'}",
                "DOCKER_CONFIG": str(config),
            },
        )

    def launch(self) -> None:
        data = cache_folder() / IMAGES
        for each in (data, RUNNING):
            make_folder(each)
        words: list[str | Path] = [
            provision(RECIPE) / "usr/sbin/dockerd",
            "--data-root", data,
            "--exec-root", RUNNING,
            "--pidfile", RUNNING / "dockerd.pid",
            "--host", self.address.environment["DOCKER_HOST"],
            "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
        ]  # fmt: skip
        self.spawn("dockerd", words, environ=self.address.environment)
        wait_ready(
            "the Docker engine",
            lambda: self.address.run("version").returncode == 0,
            self.processes,
            self.log("dockerd"),
            START_MAX,
        )
        self._remove_leftovers()

    def discard(self) -> None:
        with contextlib.suppress(UnavailableError, subprocess.TimeoutExpired):
            self._remove_leftovers()
        self.stop()
        for mount in (
            *mounts_below(cache_folder() / IMAGES),
            *mounts_below(RUNNING),
        ):  # an engine does not unmount all of its own
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        super().discard()
        self._lock.close()

    def _remove_leftovers(self) -> None:
        """Remove containers, networks, volumes and untagged images, also those of a killed engine. Tagged images stay."""
        if containers := self.address.done("ps", "--all", "--quiet").split():
            self.address.done("rm", "--force", "--volumes", *containers)
        for kind in ("network", "volume"):
            self.address.run(kind, "prune", "--force")
        self.address.run("image", "prune", "--force")


def load_stand_ins(engine: DockerEngine, folder: Path) -> None:
    """Build the missing stand-in images; `folder` holds their build contexts."""
    wanted: dict[str, Callable[[DockerEngine, Path], None]] = {
        PYTHON: _python,
        "timescale/timescaledb:2.19.3-pg17-oss": _timescale,
        "opensearchproject/opensearch:3.8.0": _opensearch,
        "softwaremill/elasticmq-native:1.7.1": _elasticmq,
        "versity/versitygw:v1.8.0": _versitygw,
    }
    for name, make in wanted.items():
        if engine.has(name):
            continue
        context = folder / name.partition(":")[0].replace("/", "-")
        make_folder(context)
        make(engine, context)
        if name != PYTHON:
            engine.done("build", "--quiet", "--network", "none", "--tag", name, context, DOCKER_BUILDKIT="0")
        remove(context)


def _imported(engine: DockerEngine, name: str, root: Path, *changes: str) -> None:
    """Create an image of one layer from the system unpacked in `root`."""
    words = ["--numeric-owner", "--one-file-system", "--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*"]
    packed = subprocess.Popen(["tar", "--create", "--directory", root, *words, "."], stdout=subprocess.PIPE)
    imported = subprocess.run(
        [engine.program, "import", *(word for change in changes for word in ("--change", change)), "-", name],
        stdin=packed.stdout, env=dict(engine.environment), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if packed.wait() or imported.returncode:
        raise UnavailableError(f"`docker import` of {name} failed: {imported.stderr.strip()}")


def _python(engine: DockerEngine, context: Path) -> None:
    """Build Debian with Python and with the certificate authorities that this machine trusts for package registries."""
    _imported(engine, "stand-in/debian", provision(images.BASE) / "root")
    shutil.copy(AUTHORITIES, context / "authorities.crt")
    (context / "Dockerfile").write_text(
        "FROM stand-in/debian\n"
        f"COPY authorities.crt {AUTHORITIES}\n"
        f"ENV PATH={images.PROGRAMS} SSL_CERT_FILE={AUTHORITIES} PIP_CERT={AUTHORITIES}\n"
        'CMD ["python3"]\n'
    )
    engine.done("build", "--quiet", "--network", "none", "--tag", PYTHON, context, DOCKER_BUILDKIT="0")


_POSTGRES_ENTRY = """#!/bin/bash
# First as root, to own the volume; then as postgres, who makes the database once and serves it.
set -e
if [ "$(id -u)" = 0 ]; then
  chown postgres: "$PGDATA" && chmod 700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="${*:2} -clisten_addresses=''" start
  psql --username=postgres --command="CREATE DATABASE $POSTGRES_DB"
  psql --username=postgres --dbname="$POSTGRES_DB" --command='CREATE EXTENSION timescaledb'
  pg_ctl --wait --mode=fast stop
fi
exec "$@" '-clisten_addresses=*'
"""


def _timescale(engine: DockerEngine, context: Path) -> None:
    _imported(engine, "stand-in/postgres", provision(timescale.RECIPE) / "root")
    (context / "entry").write_text(_POSTGRES_ENTRY)
    (context / "entry").chmod(0o755)
    (context / "Dockerfile").write_text(
        "FROM stand-in/postgres\n"
        "COPY entry /entry\n"
        f"ENV PATH={timescale.PROGRAMS}:{images.PROGRAMS} PGDATA=/var/lib/postgresql/data LANG=C.UTF-8\n"
        "RUN mkdir -p $PGDATA /var/run/postgresql && chown -R postgres: $PGDATA /var/run/postgresql\n"
        "VOLUME /var/lib/postgresql/data\n"
        "STOPSIGNAL SIGINT\n"
        'ENTRYPOINT ["/entry"]\n'
        'CMD ["postgres"]\n'
    )


def _java(engine: DockerEngine) -> str:
    """Return the name of the image with a Java runtime; build the image if it is missing."""
    name = "stand-in/java"
    if not engine.has(name):
        context = cache_folder() / ".java-context"
        remove(context)
        make_folder(context)
        with tarfile.open(context / "java.tar", "w", dereference=True) as tar:
            tar.add(java_home(21), ".", filter=lambda entry: None if entry.name in ("./jmods", "./lib/src.zip") else entry)
        (context / "Dockerfile").write_text(f"FROM {PYTHON}\nADD java.tar /opt/java/\n")
        engine.done("build", "--quiet", "--network", "none", "--tag", name, context, DOCKER_BUILDKIT="0")
        remove(context)
    return name


def _opensearch(engine: DockerEngine, context: Path) -> None:
    shutil.copytree(provision(opensearch.RECIPE) / "opensearch", context / "opensearch", symlinks=True)
    home = "/usr/share/opensearch"
    (context / "Dockerfile").write_text(
        f"FROM {_java(engine)}\n"
        f"COPY --chown=1000:1000 opensearch {home}\n"
        f"RUN mkdir -p {home}/data && chown 1000:1000 {home} {home}/data\n"
        f"WORKDIR {home}\n"
        f"ENV OPENSEARCH_JAVA_HOME=/opt/java HOME={home}\n"
        "USER 1000\n"
        'ENTRYPOINT ["bin/opensearch", "-Ediscovery.type=single-node", "-Enetwork.host=0.0.0.0"]\n'
    )


def _elasticmq(engine: DockerEngine, context: Path) -> None:
    shutil.copytree(provision(sqs.RECIPE) / "lib", context / "lib")
    words = ["/opt/java/bin/java", "-Xmx128m", "-XX:+UseSerialGC", "-cp", "/opt/elasticmq/*", "org.elasticmq.server.Main"]
    (context / "Dockerfile").write_text(f"FROM {_java(engine)}\nCOPY lib /opt/elasticmq\nENTRYPOINT {json.dumps(words)}\n")


def _versitygw(engine: DockerEngine, context: Path) -> None:
    shutil.copy(provision(s3.RECIPE) / "versitygw", context / "versitygw")
    (context / "Dockerfile").write_text(
        f'FROM {PYTHON}\nCOPY versitygw /usr/local/bin/versitygw\nENTRYPOINT ["/usr/local/bin/versitygw"]\n'
    )
