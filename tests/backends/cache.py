"""Builds or unpacks what a test server needs, once per machine.

A recipe is keyed by everything its result depends on, so a changed recipe makes a new folder and never meets an old one. It is built in a
folder beside its final place and renamed when complete: a folder under its final name is whole. A file lock makes parallel runs do it once.
The commands of a build inherit the lock: should this process be killed, the lock goes with the last of them, and nobody builds beside an
orphan. What an older recipe made is removed once nobody has used it for `UNUSED_MAX`. This module must not know any particular server.
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
"""Other checkouts may have other recipes of the same name. The folder's time tells when it was used last."""


class UnavailableError(Exception):
    """A server cannot be had on this machine; the text says why, in words for the person who runs the tests."""


@dataclass(frozen=True)
class Recipe:
    """How to make one folder of the cache.

    `parts` are all the inputs that decide the result (versions, sources, options); `build` fills `Building.folder`.
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
    """A folder being made; `run` executes one command of the recipe, with its output in `log`."""

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
            except BaseException:  # an interrupt too: what we started must not go on without us
                _end_group(child)
                raise
        if code:
            raise UnavailableError(
                f"`{' '.join(map(str, argv[:4]))} ...` ended with {code}: {last_lines(self.log)} (all of it in {self.log})"
            )


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Kills a command with all that it started, and waits: they write into the folder that is to be removed."""
    deadline = time.monotonic() + 2
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        while time.monotonic() < deadline:
            os.killpg(child.pid, 0)
            time.sleep(0.02)


def cache_folder() -> Path:
    """$DECKLOG_CACHE, or ~/.cache/decklog/backends.

    Root's home is mostly closed to others, but some servers refuse to run as root and must reach their files: then it is below /var/cache.
    """
    if given := os.environ.get("DECKLOG_CACHE"):
        return Path(given).expanduser().resolve()
    home = Path.home()
    if os.geteuid() == 0 and not home.stat().st_mode & 0o001:
        return Path("/var/cache/decklog/backends")
    return home / ".cache" / "decklog" / "backends"


def provisioned(recipe: Recipe) -> Path | None:
    """The finished folder of `recipe`, if it is there already."""
    folder = cache_folder() / recipe.key
    try:
        os.utime(folder)
    except FileNotFoundError:
        return None
    except PermissionError:  # somebody else's cache, who looks after it
        pass
    return folder


def provision(recipe: Recipe) -> Path:
    """The finished folder of `recipe`, made now if need be. Raises `UnavailableError` with the reason when that fails."""
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
    """What other recipes of this name made, and nobody used for long."""
    oldest = time.time() - UNUSED_MAX.total_seconds()
    for folder in root.glob(f"{name}-*"):
        if re.fullmatch(r"[0-9a-f]{12}", folder.name.removeprefix(f"{name}-")) and folder.stat().st_mtime < oldest:
            remove(folder)
            folder.with_name(f"{folder.name}.log").unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, waiting_for: str) -> Iterator[int]:
    """Holds an exclusive lock on `path`, saying so when it has to wait; gives the descriptor that carries the lock."""
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
    """Makes `folder` and its parents so that servers which run as another user can pass through, whatever the umask is."""
    for path in [*reversed(folder.parents), folder]:
        if not path.exists():
            path.mkdir(exist_ok=True)
            path.chmod(0o755)


def remove(folder: Path) -> None:
    """Removes a folder tree, but nothing that is mounted below it: a file system left there by a killed build is detached first."""
    if not folder.exists():
        return
    for mount in mounts_below(folder):
        subprocess.run(["umount", "--lazy", str(mount)], check=False, capture_output=True)
    if left := mounts_below(folder):
        raise UnavailableError(f"{left[0]} is still mounted; unmount it by hand")
    shutil.rmtree(folder)


def mounts_below(folder: Path) -> list[Path]:
    """What is mounted inside `folder`, innermost first; empty where the system does not tell."""
    table = Path("/proc/self/mountinfo")
    if not table.exists():
        return []
    points = [Path(line.split()[4].replace("\\040", " ")) for line in table.read_text().splitlines()]
    inside = [point for point in points if point.is_relative_to(folder.resolve())]
    return sorted(inside, key=lambda point: len(point.parts), reverse=True)


def last_lines(log: Path, count: int = 3) -> str:
    """The end of a log on one line, for a reason."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError:
        return "no output"
    telling = [line for line in lines if line and not line.startswith("at ")]  # stack traces are not
    return " | ".join(telling[-count:])[-600:] or "no output"
