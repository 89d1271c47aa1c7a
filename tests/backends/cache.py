"""Build or unpack the programs of test servers into a cache, once per machine.

The key of a recipe covers all of its inputs, so a changed recipe creates a new folder. A build runs in a temporary folder, which
is renamed when the build is complete: a folder with its final name is never partial. A file lock prevents parallel builds of one
recipe. The commands of a build inherit the lock. If this process is killed, the lock is held until the last command ends, so two
builds never overlap. Folders of older recipes are removed after `UNUSED_MAX` without use. This module must not depend on a
particular server.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.backends import progress

UNUSED_MAX = timedelta(days=14)
"""Age at which an unused folder is removed. Other checkouts may use other recipes of the same name. The mtime is the last use."""


class UnavailableError(Exception):
    """This machine cannot provide a server; the message is the reason, for the person who runs the tests."""


@dataclass(frozen=True)
class Recipe:
    """The inputs and the build function of one folder in the cache.

    `parts` are all inputs of the result (versions, sources, options); `build` fills `Building.folder`.
    """

    name: str
    parts: tuple[str, ...]
    build: Callable[[Building], None]

    @property
    def key(self) -> str:
        digest = hashlib.sha256("\0".join((sys.platform, platform.machine(), *self.parts)).encode())
        return f"{self.name}-{digest.hexdigest()[:12]}"


@dataclass(frozen=True)
class Building:
    """A build in progress; `run` executes one command of the recipe and appends its output to `log`."""

    folder: Path
    log: Path
    lock: int

    def run(self, argv: Sequence[str | Path], *, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> None:
        words = [*(["nice", "-n", "10"] if shutil.which("nice") else []), *map(str, argv)]
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(words)}\n".encode())
            log.flush()
            child = subprocess.Popen(
                words, cwd=cwd, env={**os.environ, **(environ or {})}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, pass_fds=(self.lock,),
            )  # fmt: skip
            try:
                code = child.wait()
            except BaseException:  # also on an interrupt: the command must not outlive this process
                _end_group(child)
                raise
        if code:
            raise UnavailableError(
                f"`{' '.join(map(str, argv[:4]))} ...` exited with {code}: {last_lines(self.log)} (full log: {self.log})"
            )


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a command and its children, and wait for at most 2 s, because they write into the folder that is removed next."""
    deadline = time.monotonic() + 2
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        while time.monotonic() < deadline:
            os.killpg(child.pid, 0)
            time.sleep(0.02)


def cache_folder() -> Path:
    """Return $DECKLOG_CACHE, or ~/.cache/decklog/backends.

    For root, return /var/cache/decklog/backends if other users cannot enter root's home: some servers refuse to run as root.
    """
    if given := os.environ.get("DECKLOG_CACHE"):
        return Path(given).expanduser().resolve()
    home = Path.home()
    if os.geteuid() == 0 and not home.stat().st_mode & 0o001:
        return Path("/var/cache/decklog/backends")
    return home / ".cache" / "decklog" / "backends"


def provisioned(recipe: Recipe) -> Path | None:
    """Return the complete folder of `recipe` and record its use, or None if the folder does not exist."""
    folder = cache_folder() / recipe.key
    try:
        os.utime(folder)
    except FileNotFoundError:
        return None
    except PermissionError:  # another user owns the cache and removes unused folders
        pass
    return folder


def provision(recipe: Recipe) -> Path:
    """Return the complete folder of `recipe`; build it if it is missing. Raises `UnavailableError` if the build fails."""
    if done := provisioned(recipe):
        return done
    root = cache_folder()
    make_folder(root)
    with locked(root / f"{recipe.key}.lock", f"another run to provision {recipe.name}") as lock:
        if done := provisioned(recipe):
            return done
        folder = root / f".building-{recipe.key}"
        log = root / f"{recipe.key}.log"
        remove(folder)
        log.unlink(missing_ok=True)
        make_folder(folder)
        try:
            with progress.doing(f"provisioning {recipe.name} (once)"):
                recipe.build(Building(folder, log, lock))
        except BaseException:
            remove(folder)
            raise
        folder.rename(root / recipe.key)
    _remove_unused(root, recipe.name)
    return root / recipe.key


def _remove_unused(root: Path, name: str) -> None:
    """Remove the folders of other recipes of this name that were not used for `UNUSED_MAX`."""
    oldest = time.time() - UNUSED_MAX.total_seconds()
    for folder in root.glob(f"{name}-*"):
        if re.fullmatch(r"[0-9a-f]{12}", folder.name.removeprefix(f"{name}-")) and folder.stat().st_mtime < oldest:
            remove(folder)
            folder.with_name(f"{folder.name}.log").unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, waiting_for: str) -> Iterator[int]:
    """Hold an exclusive lock on `path` and yield its file descriptor. Show progress while another process holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.doing(f"waiting for {waiting_for}"):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents with mode 0755, so that servers under another user can enter them under any umask."""
    for path in [*reversed(folder.parents), folder]:
        if not path.exists():
            path.mkdir(exist_ok=True)
            path.chmod(0o755)


def remove(folder: Path) -> None:
    """Remove a folder tree. Detach file systems that a killed build left mounted in it first, so that their files stay."""
    if not folder.exists():
        return
    for mount in mounts_below(folder):
        subprocess.run(["umount", "--lazy", str(mount)], check=False, capture_output=True)
    if left := mounts_below(folder):
        raise UnavailableError(f"{left[0]} is still mounted; unmount it by hand")
    shutil.rmtree(folder)


def mounts_below(folder: Path) -> list[Path]:
    """Return the mount points inside `folder`, innermost first; empty on systems without /proc/self/mountinfo."""
    table = Path("/proc/self/mountinfo")
    if not table.exists():
        return []
    points = [Path(line.split()[4].replace("\\040", " ")) for line in table.read_text().splitlines()]
    inside = [point for point in points if point.is_relative_to(folder.resolve())]
    return sorted(inside, key=lambda point: len(point.parts), reverse=True)


def last_lines(log: Path, count: int = 3) -> str:
    """Return the end of a log as one line of at most 600 characters, for an error message."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError:
        return "no output"
    telling = [line for line in lines if line and not line.startswith("at ")]  # without stack traces
    return " | ".join(telling[-count:])[-600:] or "no output"
