"""The processes of a benchmark: the service's own and the references', each started for one measurement and ended with it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
_START_SECONDS_MAX = 30.0
_STOP_SECONDS_MAX = 15.0
_POLL_SECONDS = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A process that serves HTTP on loopback."""

    pid: int
    port: int

    def processor_seconds(self) -> float:
        """What it has used of the processor since it began, in seconds of one core."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_mib(self) -> float:
        """Resident memory in MiB, without pages shared with files."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"process {self.pid} has no RssAnon")


class Usage:
    """How much of a core a process used while a block ran."""

    share: float = 0.0


@contextmanager
def usage(server: Server) -> Iterator[Usage]:
    measured = Usage()
    began, used = time.perf_counter(), server.processor_seconds()
    yield measured
    measured.share = (server.processor_seconds() - used) / (time.perf_counter() - began)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=2):
            return True
    except urllib.error.HTTPError as refused:
        return refused.code < 500
    except (OSError, ValueError):
        return False


@asynccontextmanager
async def serving(
    argv: Sequence[str], port: int, *, environment: Mapping[str, str] | None = None, ready: str = "/"
) -> AsyncIterator[Server]:
    """`python -m argv…` for as long as the block lasts, from when `ready` answers. Raises RuntimeError with its log if it ends."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *argv,
            env={**inherited, **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

        def said() -> str:
            log.seek(0)
            return log.read()[-3_000:].decode(errors="replace")

        try:
            deadline = time.monotonic() + _START_SECONDS_MAX
            while port and not await asyncio.to_thread(_answers, port, ready):
                if process.returncode is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{' '.join(argv)} does not serve: {said()}")
                await asyncio.sleep(_POLL_SECONDS)
            yield Server(process.pid, port)
            if process.returncode is not None:
                raise RuntimeError(f"{' '.join(argv)} ended with {process.returncode}: {said()}")
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    await asyncio.wait_for(process.wait(), _STOP_SECONDS_MAX)
                except TimeoutError:
                    process.kill()
                    await process.wait()
