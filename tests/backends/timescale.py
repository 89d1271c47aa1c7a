"""Run TimescaleDB (Apache edition) on PostgreSQL 17 as a test server, from Debian's packages.

Debian trixie is unpacked once into the cache. The server runs inside it by chroot in a private mount namespace, with the data
folder of the run, /dev and a private /dev/shm mounted. The kernel removes these mounts when the last process of the server ends.
All runs share the unpacked system, and none writes to it. Needs root on Linux and a Debian mirror.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.backends.cache import Building, Recipe, UnavailableError, provision, provisioned
from tests.backends.packages import command, command_or_package, debian_mirror, obtainable
from tests.backends.postgres import LocalPostgres, PostgresBackend

SUITE = "trixie"
PACKAGES = "postgresql-17,postgresql-17-timescaledb,postgresql-17-pgvector"
PROGRAMS = "/usr/lib/postgresql/17/bin"
DATA_SEEN = "/var/lib/decklog"  # mount point of a run's data folder inside the unpacked system

# Runs as root in a new mount namespace: only this process and its children see these mounts.
_ENTER = """
root=$1 data=$2 seen=$3; shift 3
mount --rbind /dev "$root/dev" && mount -t tmpfs -o size=1g,mode=1777 tmpfs "$root/dev/shm" && mount --bind "$data" "$root$seen" || exit 71
cd / && exec chroot --userspec=postgres:postgres "$root" /usr/bin/env -i PATH="$PATH" LC_ALL=C.UTF-8 "$@"
"""


def _build(building: Building) -> None:
    debootstrap = command_or_package(building, "debootstrap")
    root = building.folder / "root"
    building.run([debootstrap, "--variant=minbase", f"--include={PACKAGES}", SUITE, root, debian_mirror()])
    if not (root / PROGRAMS.lstrip("/") / "postgres").exists():
        raise UnavailableError(f"debootstrap installed no PostgreSQL; see {building.log}")
    (root / DATA_SEEN.lstrip("/")).mkdir(mode=0o755)
    (root / "dev" / "shm").mkdir(exist_ok=True)
    shutil.rmtree(root / "var" / "cache" / "apt", ignore_errors=True)


RECIPE = Recipe("timescale", (SUITE, PACKAGES, DATA_SEEN), _build)


class LocalTimescale(LocalPostgres):
    variant = "timescale"

    def command(self, program: str, *words: str) -> list[str | Path]:
        root = provision(RECIPE) / "root"
        enter = ["unshare", "--mount", "--propagation", "private", "env", f"PATH={PROGRAMS}:/usr/bin:/bin:/usr/sbin:/sbin"]
        return [*enter, "/bin/sh", "-c", _ENTER, "sh", root, self.data, DATA_SEEN, program, *words]

    def data_seen(self) -> str:
        return DATA_SEEN

    def own_data(self) -> None:
        owner = (provision(RECIPE) / "root" / "var" / "lib" / "postgresql").stat()
        for path in (self.data, *self.data.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)

    def extra_settings(self) -> dict[str, str]:
        return {
            "shared_preload_libraries": "timescaledb",
            "timescaledb.telemetry_level": "off",
            "dynamic_shared_memory_type": "posix",  # /dev/shm is the server's own
            # No scheduler per database: tests use no jobs, and its connection would block copies of a template database.
            "timescaledb.max_background_workers": "0",
        }


class TimescaleBackend(PostgresBackend):
    name = "timescale"
    variables = ("DECKLOG_TEST_TIMESCALE_DSN",)
    variant = "timescale"

    def check(self) -> None:
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            raise UnavailableError("the server runs by chroot, which needs root on Linux")
        for name in ("unshare", "chroot", "mount"):
            command(name)
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
            raise UnavailableError("mount namespaces are not allowed on this system (`unshare --mount` failed)")
        if not provisioned(RECIPE):
            obtainable("debootstrap")
            debian_mirror()

    def recipes(self) -> list[Recipe]:
        return [RECIPE]

    def local(self, folder: Path, *, durable: bool = False, changes: Mapping[str, str] | None = None) -> LocalTimescale:
        return LocalTimescale(folder, durable=durable, changes=changes)


BACKEND = TimescaleBackend()
