"""Processes of a benchmark: started for one measurement and stopped after it."""

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
from typing import TypeVar

import msgspec

HOST = "127.0.0.1"
_START_SECONDS_MAX = 30.0
_STOP_SECONDS_MAX = 15.0
_POLL_SECONDS = 0.02
TICKS = os.sysconf("SC_CLK_TCK")
Result = TypeVar("Result")


def processor_of(pid: int) -> float:
    """Return the processor time of a process of this machine in seconds, 0 of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass(frozen=True)
class Server:
    """A process that serves HTTP on loopback."""

    pid: int
    port: int

    def processor_seconds(self) -> float:
        """Return the processor time since the start, in seconds of one core."""
        return processor_of(self.pid)

    def resident_mib(self) -> float:
        """Return the resident memory in MiB, without file pages."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"process {self.pid} has no RssAnon")


class Usage:
    """The share of a core that a process used while a block ran."""

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
    """Run `python -m argv…` during the block, which starts when `ready` answers. Raise RuntimeError with the log if it ends."""
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


async def apart(module: str, job: msgspec.Struct, result: type[Result]) -> Result:
    """Run `python -m module` with the job as JSON on standard input, and return what it writes.

    Raise RuntimeError with its output if it fails.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    written, errors = await process.communicate(msgspec.json.encode(job))
    if process.returncode:
        raise RuntimeError(f"{module} failed: {errors.decode(errors='replace')[-1_000:]}")
    return msgspec.json.decode(written, type=result)
