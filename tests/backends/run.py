"""Share the servers of one test run between its processes, and stop them at its end.

A run has a folder in the cache. Its owner (pytest's controlling process, a benchmark, `python -m tests.backends up`) holds a
lock in that folder. The first process that needs a server starts it under a lock of that server and stores the address; the
others read the address. When the owner ends, it stops all servers and removes the folder. If the owner was killed, its lock is
free: the next run stops the processes that the pid files name, and only those, and removes the folder.

With DECKLOG_TEST_KEEP=1, shared servers have a folder without an owner and stay after the run. The next such run of the same
version of this package uses them again if they answer. They keep their contents, so tests must choose unique names, as always.
`python -m tests.backends down` stops them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.backends import progress
from tests.backends.backend import Address, Backend, LocalServer
from tests.backends.cache import UnavailableError, cache_folder, locked, make_folder, remove
from tests.backends.compose import Compose
from tests.backends.resolve import BadAddressError, Found, Source, resolve
from tests.backends.server import Process, boot_mark, stop_all

RUN_VARIABLE = "DECKLOG_TEST_RUN"  # the run's folder, for the processes that a run starts
KEEP_VARIABLE = "DECKLOG_TEST_KEEP"
UNFINISHED_MAX = timedelta(minutes=1)  # for a new run to create its lock

Server = TypeVar("Server", bound=LocalServer[Any])


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome for one backend in one run: its address, or the reason why it has none."""

    source: Source | None = None
    address: msgspec.Raw = msgspec.Raw(b"null")
    unavailable: str | None = None
    bad_address: str | None = None
    boot: str = ""


class Run:
    """One test run; see the module docstring. Use `Run.open` and `close`."""

    def __init__(self, folder: Path, owner: int | None, *, keep: bool) -> None:
        self.folder = folder
        self.shared = cache_folder() / f"kept-{version()}" if keep else folder
        self._owner = owner  # file descriptor of the owner's lock; None in other processes
        self._private: list[LocalServer[Any]] = []
        make_folder(self.shared)

    @classmethod
    def open(cls, environ: Mapping[str, str]) -> Run:
        """Join the run that the environment names. Without one, clean up after killed runs and begin a new run."""
        keep = environ.get(KEEP_VARIABLE) == "1"
        joined = environ.get(RUN_VARIABLE)
        if joined and Path(joined).is_dir():
            return cls(Path(joined), None, keep=keep)
        sweep()
        make_folder(runs := cache_folder() / "runs")
        new = runs / f".new-{os.getpid()}-{secrets.token_hex(4)}"
        make_folder(new)
        owner = os.open(new / "owner.lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(owner, fcntl.LOCK_EX)
        folder = new.with_name(f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}")
        new.rename(folder)  # locked already, so that no other run takes it for a killed one
        return cls(folder, owner, keep=keep)

    @property
    def owned(self) -> bool:
        return self._owner is not None

    def address(self, backend: Backend[Address], *, durable: bool = False) -> Address:
        """Return the address of the run's server of this kind; start the server at the first call.

        Raises `UnavailableError` or `BadAddressError`; all processes of the run get the same reason.
        """
        durable = durable and backend.measurable
        name = f"{backend.name}-durable" if durable else backend.name
        failed, found = self.folder / f"{name}.unavailable.json", self.shared / f"{name}.json"
        with locked(self.shared / f"{name}.lock", f"another process to start {backend.name}"):
            _raise_again(_read(failed))
            if (address := self._noted(backend, found)) is not None:
                return address
            try:
                fresh = self._resolve(backend, self.shared / name, durable=durable)
            except UnavailableError as unavailable:
                _write(failed, Note(unavailable=str(unavailable)))
                raise
            except BadAddressError as bad:
                _write(failed, Note(bad_address=str(bad)))
                raise
            raw = msgspec.Raw(msgspec.json.encode(fresh.address, enc_hook=str))
            _write(found, Note(source=fresh.source, address=raw, boot=boot_mark()))
            return fresh.address

    def _noted(self, backend: Backend[Address], file: Path) -> Address | None:
        note = _read(file)
        if note.source is None:
            return None
        address = msgspec.json.decode(note.address, type=backend.address_type, dec_hook=lambda kind, text: kind(text))
        if self.shared == self.folder or (note.boot == boot_mark() and backend.answers(address)):
            return address
        return None  # kept by an earlier run, but no longer running

    def _resolve(self, backend: Backend[Address], folder: Path, *, durable: bool) -> Found[Address]:
        stop_all(processes_in(folder))
        remove(folder)
        return resolve(backend, folder, os.environ, durable=durable)

    def private(self, backend: Backend[Any], make: Callable[[Path], Server]) -> Server:
        """Start a server for the caller alone, in a separate folder. `close` discards it if the caller has not."""
        try:
            backend.provision()
            server = make(self.folder / f"private-{backend.name}-{secrets.token_hex(4)}")
            self._private.append(server)
            with progress.doing(f"starting a private {backend.name}"):
                server.start()
        except UnavailableError as unavailable:
            _write(self.folder / f"private {backend.name}.unavailable.json", Note(unavailable=str(unavailable)))
            raise
        return server

    def notes(self) -> Iterator[tuple[str, Note]]:
        """Yield the outcome for each requested backend, by name."""
        for file in sorted({*self.folder.glob("*.json"), *self.shared.glob("*.json")}):
            yield file.name.split(".")[0], _read(file)

    def close(self) -> None:
        """Stop the private servers of this process; in the owner, stop all servers of the run."""
        for server in self._private:
            server.discard()
        self._private.clear()
        if self._owner is not None:
            end(self.folder)
            os.close(self._owner)
            self._owner = None


def version() -> str:
    """Return a digest of the files of this package, so that a run never uses servers that another version started."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith("test_"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def processes_in(folder: Path) -> list[Process]:
    """Return the processes of a server's folder, by its pid files."""
    found = [Process.read(file) for file in folder.glob("pids/*.pid")]
    return [process for process in found if process]


def end(folder: Path) -> None:
    """Stop all processes and containers of a run folder, by its pid files and compose projects, and remove the folder."""
    stop_all(process for server in folder.iterdir() if server.is_dir() for process in processes_in(server))
    for compose in Compose.all_of(folder):
        with contextlib.suppress(UnavailableError):  # a stopped engine runs no containers
            compose.down()
    remove(folder)


def sweep() -> None:
    """Stop the servers of killed runs and remove their folders. Live runs are untouched: their owners hold their locks."""
    for folder in sorted((cache_folder() / "runs").glob("*")) + sorted((cache_folder() / "runs").glob(".new-*")):
        with contextlib.suppress(OSError):  # another run may be sweeping the same folder
            _sweep(folder)


def _sweep(folder: Path) -> None:
    lock = folder / "owner.lock"
    if not lock.exists():
        if time.time() - folder.stat().st_mtime > UNFINISHED_MAX.total_seconds():
            end(folder)
        return
    owner = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        progress.say(f"cleaning up after a killed run ({folder.name})")
        end(folder)
    finally:
        os.close(owner)


def down() -> list[str]:
    """Stop the servers that DECKLOG_TEST_KEEP left running, of all versions; return the names of the removed folders."""
    kept = sorted(cache_folder().glob("kept-*"))
    for folder in kept:
        end(folder)
    return [folder.name for folder in kept]


def _raise_again(note: Note) -> None:
    if note.unavailable:
        raise UnavailableError(note.unavailable)
    if note.bad_address:
        raise BadAddressError(note.bad_address)


def _read(file: Path) -> Note:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Note)
    except FileNotFoundError:
        return Note()


def _write(file: Path, note: Note) -> None:
    new = file.with_suffix(".new")
    new.touch(mode=0o600)  # it holds passwords
    new.write_bytes(msgspec.json.encode(note))
    new.rename(file)
