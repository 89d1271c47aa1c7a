"""Define the interface of a test server.

Each kind of server has a module with one `Backend`; each server that runs on this machine is a `LocalServer`. Tests see only
address objects, so they are the same for servers from the environment, from containers and from the cache.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

from tests.backends.cache import Recipe, make_folder, provision, remove
from tests.backends.compose import Compose
from tests.backends.server import STOP_MAX, PortTakenError, Process, descendants, spawn, stop_all

Address = TypeVar("Address")

START_ATTEMPTS_MAX = 3  # each attempt uses other ports


class LocalServer(ABC, Generic[Address]):
    """One server on this machine, with its data, its logs and its pid files in one folder.

    `start` may be called again after `stop` or `kill9`: the server uses the same data and ports again.
    """

    address: Address
    polite: ClassVar[signal.Signals] = signal.SIGTERM  # requests a clean shutdown

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids = folder / "pids"
        self.processes: list[Process] = []
        make_folder(self.pids)

    @abstractmethod
    def prepare(self) -> None:
        """Choose ports, set `address` and create the data. Called once, and again only after another process took a port."""

    @abstractmethod
    def launch(self) -> None:
        """Start the processes, and return when they serve requests."""

    def start(self) -> None:
        if self.running:
            return
        attempts = 1 if hasattr(self, "address") else START_ATTEMPTS_MAX  # ports must not change after `address` is published
        for left in reversed(range(attempts)):
            if attempts > 1:
                self.prepare()
            self.processes.clear()
            try:
                self._launch_or_kill()
                return
            except PortTakenError:
                if not left:
                    raise

    def _launch_or_kill(self) -> None:
        try:
            self.launch()
        except BaseException:
            stop_all(reversed(self.processes))
            raise

    @property
    def running(self) -> bool:
        return bool(self.processes) and all(process.alive for process in self.processes)

    def stop(self) -> None:
        """Shut the server down cleanly; its data stays."""
        for process in reversed(self.processes):
            process.send(self.polite)
            if not process.wait(STOP_MAX):
                process.kill()

    def discard(self) -> None:
        """Stop the server and remove its folder with all data."""
        stop_all(reversed(self.processes))
        remove(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def kill9(self) -> None:
        """Kill all processes of the server at once. Unlike a crash of the machine, the kernel's buffered writes are kept."""
        workers = [child for process in self.processes for child in descendants(process.pid)]
        for process in (*self.processes, *workers):
            process.send(signal.SIGKILL)
        for process in (*self.processes, *workers):
            process.kill()

    def spawn(
        self,
        name: str,
        argv: list[str | Path],
        *,
        end: signal.Signals = signal.SIGKILL,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Process:
        process = spawn(argv, pid_file=self.pids / f"{name}.pid", log=self.log(name), end=end, cwd=cwd, environ=environ)
        self.processes.append(process)
        return process

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


class Backend(ABC, Generic[Address]):
    """One kind of server: how to find a running one, and how to start one."""

    name: ClassVar[str]
    variables: ClassVar[tuple[str, ...]]  # environment variables; an address is set if the first one is
    address_type: type[Address]

    measurable: ClassVar[bool] = False  # whether `durable` makes any difference

    @abstractmethod
    def from_environment(self, environ: Mapping[str, str]) -> Address | None:
        """Return the address in `variables`, or None if it is not set. Raises `ValueError` if it is malformed."""

    @abstractmethod
    def from_compose(self, compose: Compose) -> Address:
        """Start the service of this name from compose.yaml and return its address."""

    @abstractmethod
    def check(self) -> None:
        """Raise `UnavailableError` if this machine cannot provision or run the server. Must be quick and change nothing."""

    @abstractmethod
    def recipes(self) -> list[Recipe]:
        """Return the recipes that must be in the cache before a server of `local` starts."""

    @abstractmethod
    def local(self, folder: Path, *, durable: bool = False) -> LocalServer[Address]:
        """Return a server that is not started. `durable` selects production settings, for crash tests and benchmarks."""

    @abstractmethod
    def answers(self, address: Address) -> bool:
        """Return whether a server at this address serves requests now."""

    @abstractmethod
    def exports(self, address: Address) -> dict[str, str]:
        """Return the environment variables from which `from_environment` reads this address."""

    def provision(self) -> None:
        self.check()
        for recipe in self.recipes():
            provision(recipe)
