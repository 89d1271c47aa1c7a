"""Start, watch and stop the processes of test servers.

Each process has its own session, and writes its pid file before it executes the server: no server runs without a pid file. The
kernel reuses pids, so the file also has the start time. A process with another start time is never signalled. This module must
not depend on how addresses are found or shared.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.backends.cache import UnavailableError, cache_folder, last_lines, locked, make_folder

LOOPBACK = "127.0.0.1"
STOP_MAX = timedelta(seconds=10)  # for a clean shutdown, before SIGKILL
GONE_MAX = timedelta(seconds=10)  # for a killed process to disappear
PORT_KEPT = timedelta(minutes=5)  # longer than any server takes to start
POLL_EVERY = timedelta(milliseconds=50)

# The process that becomes the server writes its pid file: the signal that stops it, its pid and its start time.
_WRAPPER = """
file=$1 signal=$2; shift 2
if [ -r /proc/$$/stat ]; then read -r mark < /proc/$$/stat; else mark="$$ $(ps -o lstart= -p $$)"; fi
printf '%s %s\\n' "$signal" "$mark" > "$file.new" && mv "$file.new" "$file" && exec "$@"
"""

_children: dict[int, subprocess.Popen[bytes]] = {}  # children of this process, which it must reap


class PortTakenError(UnavailableError):
    """Another process took the port between its choice and the server's start. Callers retry with another port."""


@dataclass(frozen=True)
class Process:
    """One process of a server, identified by pid and start time (`mark`)."""

    name: str
    pid: int
    mark: str
    end: signal.Signals

    @classmethod
    def read(cls, file: Path) -> Process | None:
        """Return the process of a pid file, dead or alive, or None if the file is missing or incomplete."""
        try:
            end, text = file.read_text().strip().split(" ", 1)
            pid = text.split(" ", 1)[0]
            mark = _mark_in(text)
            return cls(file.stem, int(pid), mark, signal.Signals[end]) if mark else None
        except (OSError, ValueError, KeyError):
            return None

    @property
    def alive(self) -> bool:
        if child := _children.get(self.pid):
            child.poll()
        return start_mark(self.pid) == self.mark

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process and, if it leads one, its process group; wait at most 10 s until it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                leader = os.getpgid(self.pid) == self.pid
                (os.killpg if leader else os.kill)(self.pid, signal.SIGKILL)
        self.wait(GONE_MAX)

    def wait(self, longest: timedelta) -> bool:
        deadline = time.monotonic() + longest.total_seconds()
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_EVERY.total_seconds())
        return True


def spawn(
    argv: Sequence[str | Path],
    *,
    pid_file: Path,
    log: Path,
    end: signal.Signals = signal.SIGKILL,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Process:
    """Start a server process that outlives this one. `stop_all` stops it with the signal `end`."""
    pid_file.unlink(missing_ok=True)
    words = ["/bin/sh", "-c", _WRAPPER, "sh", str(pid_file), end.name, *map(str, argv)]
    with log.open("ab") as out:
        child = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    _children[child.pid] = child
    deadline = time.monotonic() + STOP_MAX.total_seconds()
    while not (process := Process.read(pid_file)):
        if child.poll() is not None or time.monotonic() > deadline:
            raise UnavailableError(f"{pid_file.stem} could not be started: {last_lines(log)}")
        time.sleep(0.005)
    return process


def stop_all(processes: Iterable[Process]) -> None:
    """Stop processes whose data is not needed: signal all of them, each with its own signal, then kill those that remain."""
    running = [process for process in processes if process.alive]
    for process in running:
        children = descendants(process.pid) if process.end is signal.SIGKILL else []
        process.send(process.end)
        for child in children:
            child.send(signal.SIGKILL)
    for process in running:
        if not process.wait(STOP_MAX):
            process.kill()


def descendants(pid: int) -> list[Process]:
    """Return all descendants of `pid`, also those that left its process group; empty on systems without /proc."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = stat.read_text()
            parents.setdefault(int(text[text.rindex(")") + 2 :].split()[1]), []).append(int(stat.parent.name))
    found: list[Process] = []
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            waiting.append(child)
            if mark := start_mark(child):
                found.append(Process("child", child, mark, signal.SIGKILL))
    return found


def start_mark(pid: int) -> str | None:
    """Return the start time of the process `pid` in the system's format, or None for a dead process or a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            return _mark_in(stat.read_text())
        except (OSError, ValueError):
            return None
    run = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return run.stdout.strip() or None


def _mark_in(text: str) -> str | None:
    if ")" not in text:  # `PID DATE`, on systems without /proc
        return text.split(" ", 1)[1].strip()
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields[19]


@functools.cache
def boot_mark() -> str:
    """Return an identifier of this boot of the machine. Start times of different boots must not be compared."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        run = subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=False)
        return run.stdout.strip()


def free_ports(count: int) -> list[int]:
    """Return distinct free ports on loopback that no run on this machine got within `PORT_KEPT`.

    Otherwise two servers that start at the same time could get the same port, and a test could reach the wrong server.
    """
    make_folder(cache_folder())
    record = cache_folder() / "ports"
    with locked(cache_folder() / "ports.lock", "another run to choose ports"), contextlib.ExitStack() as held:
        now = time.time()
        lines = [line.split() for line in record.read_text().splitlines()] if record.exists() else []
        recent = {int(port): float(given) for port, given in lines if now - float(given) < PORT_KEPT.total_seconds()}
        chosen: list[int] = []
        while len(chosen) < count:
            candidate = held.enter_context(socket.socket())
            candidate.bind((LOOPBACK, 0))
            if (port := candidate.getsockname()[1]) not in recent:
                chosen.append(port)
                recent[port] = now
        record.write_text("".join(f"{port} {given}\n" for port, given in recent.items()))
        return chosen


def wait_ready(what: str, ready: Callable[[], bool], processes: Sequence[Process], log: Path, longest: timedelta) -> None:
    """Wait until `ready` returns true.

    Raises `PortTakenError` or `UnavailableError` when one of the processes exits or after the time `longest`.
    """
    deadline = time.monotonic() + longest.total_seconds()
    while not ready():
        dead = [process for process in processes if not process.alive]
        if dead or time.monotonic() > deadline:
            reason = f"{dead[0].name} exited" if dead else f"not ready after {longest.total_seconds():.0f} s"
            raised = PortTakenError if dead and _names_a_taken_port(log) else UnavailableError
            raise raised(f"{what} did not start ({reason}): {last_lines(log)}")
        time.sleep(POLL_EVERY.total_seconds())


def _names_a_taken_port(log: Path) -> bool:
    text = log.read_text(errors="replace").lower()
    return "address already in use" in text or "failed to bind" in text or "bindexception" in text


def http_status(url: str, timeout: timedelta = timedelta(seconds=2)) -> int | None:
    """Return the status of a GET, or None if no server answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout.total_seconds()) as response:
            return int(response.status)
    except urllib.error.HTTPError as refused:
        return int(refused.code)
    except OSError:
        return None


def as_nobody() -> list[str]:
    """Return the command prefix that switches from root to the user nobody; empty for other users.

    Raises `UnavailableError` if the switch is impossible, or if nobody cannot enter the cache.
    """
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        raise UnavailableError(
            "the server refuses to run as root, and `setpriv` (util-linux), which starts it as nobody, is not installed"
        )
    for folder in (cache_folder(), *cache_folder().parents):
        if folder.exists() and not folder.stat().st_mode & 0o001:
            raise UnavailableError(
                f"the server refuses to run as root, and other users cannot enter {folder}; set DECKLOG_CACHE to another folder"
            )
    return ["setpriv", "--reuid=nobody", f"--regid={nobody()[1]}", "--clear-groups"]


def nobody() -> tuple[int, int]:
    """Return user id and group id of the user nobody, which runs servers that root starts."""
    import pwd  # not on every platform

    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def give_to_nobody(*paths: Path) -> None:
    """Change the owner of files and folder trees to the user nobody. Does nothing unless this process is root."""
    if os.geteuid() != 0:
        return
    for path in paths:
        for each in [path, *path.rglob("*")]:
            os.chown(each, *nobody())
