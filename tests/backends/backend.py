"""What every kind of test server must be able to say about itself.

One `Backend` per kind (a module each) and one `LocalServer` per server that runs on this machine. The tests see only the plain address
objects that these hand out; whether they came from the environment, from containers or from here makes no difference to them.
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

START_ATTEMPTS_MAX = 3  # each with other ports


class LocalServer(ABC, Generic[Address]):
    """One server on this machine, with its data, its logs and its pid files in one folder.

    `start` may be called again after `stop` or `kill9`: it continues on the same data and the same ports.
    """

    address: Address
    polite: ClassVar[signal.Signals] = signal.SIGTERM  # asks for an end in good order

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids = folder / "pids"
        self.processes: list[Process] = []
        make_folder(self.pids)

    @abstractmethod
    def prepare(self) -> None:
        """Chooses ports, sets `address` and lays out the data; called once, and again only after a port was taken."""

    @abstractmethod
    def launch(self) -> None:
        """Starts the processes and returns when they serve."""

    def start(self) -> None:
        if self.running:
            return
        attempts = 1 if hasattr(self, "address") else START_ATTEMPTS_MAX  # ports may change only before anybody knows them
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
        """Ends the server in good order; its data stays."""
        for process in reversed(self.processes):
            process.send(self.polite)
            if not process.wait(STOP_MAX):
                process.kill()

    def discard(self) -> None:
        """Ends the server without care for its data, and removes its folder."""
        stop_all(reversed(self.processes))
        remove(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def kill9(self) -> None:
        """Ends every process of the server at once, as a crash of the machine would, but for what the kernel still holds."""
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
    """One kind of server: how to find one, how to make one."""

    name: ClassVar[str]
    variables: ClassVar[tuple[str, ...]]  # in the environment; the first one decides whether an address was given
    address_type: type[Address]

    measurable: ClassVar[bool] = False  # whether `durable` makes any difference

    @abstractmethod
    def from_environment(self, environ: Mapping[str, str]) -> Address | None:
        """The address given in `variables`, if one is."""

    @abstractmethod
    def from_compose(self, compose: Compose) -> Address:
        """Starts the service of this name from compose.yaml and says where it is."""

    @abstractmethod
    def check(self) -> None:
        """Raises `UnavailableError` with the reason if this machine could not provision or run it; must be quick and change nothing."""

    @abstractmethod
    def recipes(self) -> list[Recipe]:
        """What has to be in the cache before `local` can start."""

    @abstractmethod
    def local(self, folder: Path, *, durable: bool = False) -> LocalServer[Address]:
        """A server of this kind, not started yet. `durable` gives up nothing for quick tests: it is for crashing and measuring."""

    @abstractmethod
    def answers(self, address: Address) -> bool:
        """Whether a server serves there now."""

    @abstractmethod
    def exports(self, address: Address) -> dict[str, str]:
        """The environment that makes `from_environment` give this very address."""

    def provision(self) -> None:
        self.check()
        for recipe in self.recipes():
            provision(recipe)
