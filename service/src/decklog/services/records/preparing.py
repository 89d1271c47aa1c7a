"""Preparing of records: small ones on the event loop, large ones and bulks in a process beside it, in turns by tenant.

Decoding holds the interpreter's lock, so a thread would not do: other requests would wait for it. One process prepares one job at a
time; a job is so small that another tenant's never waits long.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from decklog.domain.errors import Code, DecklogError
from decklog.services.records.preparer import LENGTH_BYTES, Handling, Job, Preparation, Result, framed
from decklog.services.records.queue import overloaded

INLINE_BYTES_MAX: Final = 16 * 1024
"""Bytes of records that the event loop prepares itself: at most about 5 ms of work, whatever the records contain."""
INLINE_RECORDS_MAX: Final = 200
"""Records of a bulk that the event loop prepares itself: to explain why a tiny one is refused takes as long as to prepare a usual one."""
_JOB_BYTES: Final = 64 * 1024
_JOB_RECORDS_MAX: Final = 200
_JOB_SECONDS_MAX: Final = 30
"""Seconds after which the process is taken for stuck. The slowest record takes less than one."""
_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")
"""Variables that the process inherits. Others may hold credentials."""

_log = structlog.get_logger("decklog.ingest")
_waiting = Gauge("decklog_preparing_waiting_jobs", "Jobs of large records that wait for the preparing process.")
_failed = Counter(
    "decklog_preparing_failed_total", "Jobs of large records that failed because the preparing process ended or hung."
)

_Jobs = deque[tuple[Job, "asyncio.Future[Result]"]]


class Preparing:
    """Prepares what is too large for the event loop.

    The process starts with the first job. Jobs are taken from one tenant after the other, one each; a tenant has as many jobs as
    requests under way, so their number is bounded by the account of bodies.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._process: asyncio.subprocess.Process | None = None
        self._jobs: dict[int, _Jobs] = {}
        self._count = 0
        self._runner: asyncio.Task[None] | None = None
        self._results = msgspec.msgpack.Decoder(Result)

    async def prepare(
        self, tenant_id: int, raws: Sequence[bytes | msgspec.Raw], ids: Sequence[str | None], handling: Handling
    ) -> Preparation:
        """Return the records prepared, each or why it is not valid. Raises `overloaded` where the process ended or hangs."""
        found = Preparation([], [], {})
        first = 0
        while first < len(raws):
            end, size = first, 0
            while end < len(raws) and (
                end == first or (size + len(memoryview(raws[end])) <= _JOB_BYTES and end - first < _JOB_RECORDS_MAX)
            ):
                size += len(memoryview(raws[end]))
                end += 1
            job = Job([bytes(raw) for raw in raws[first:end]], list(ids[first:end]), handling)
            result = await self._submit(tenant_id, job)
            for index, prepared in enumerate(result.prepared):
                found.records.append(prepared if prepared is not None else _refusal(*result.errors[index]))
            found.forms.extend(result.forms)
            found.kept.update((first + index, content) for index, content in result.kept.items())
            first = end
        return found

    async def stop(self) -> None:
        """End the process. Jobs under way fail with `overloaded`."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
        for jobs in self._jobs.values():
            for _, future in jobs:
                if not future.done():
                    future.set_exception(overloaded("This process is stopping"))
        self._jobs.clear()
        await self._end()

    async def _submit(self, tenant_id: int, job: Job) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._jobs.setdefault(tenant_id, deque()).append((job, future))
        self._count += 1
        _waiting.set(self._count)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name="preparing")
        return await future

    async def _run(self) -> None:
        while self._jobs:
            tenant_id, jobs = next(iter(self._jobs.items()))
            del self._jobs[tenant_id]
            job, future = jobs.popleft()
            if jobs:
                self._jobs[tenant_id] = jobs  # at the end of the line
            self._count -= 1
            if not future.done():
                await self._do(job, future)

    async def _do(self, job: Job, future: asyncio.Future[Result]) -> None:
        try:
            async with asyncio.timeout(_JOB_SECONDS_MAX):
                result = self._results.decode(await self._exchange(framed(job)))
        except (OSError, EOFError, TimeoutError, msgspec.DecodeError) as error:
            _failed.inc()
            _log.warning("the preparing process failed", error=type(error).__name__, records=len(job.raws))
            await self._end()
            if not future.done():
                future.set_exception(overloaded("The records could not be prepared"))
        except asyncio.CancelledError:
            if not future.done():
                future.set_exception(overloaded("This process is stopping"))
            raise
        else:
            if not future.done():
                future.set_result(result)

    async def _exchange(self, message: bytes) -> bytes:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await self._start()
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101 - both are pipes
        process.stdin.write(message)
        await process.stdin.drain()
        length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
        return await process.stdout.readexactly(length)

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # else a file in the working directory could take the place of any module
            "-m",
            "decklog.services.records.preparer",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,  # a signal to the group of this process ends it through its input alone
        )
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        process.stdin.write(len(self._key).to_bytes(LENGTH_BYTES, "big") + self._key)
        return process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


def _refusal(code: Code, detail: str, faults: list[dict[str, Any]]) -> DecklogError:
    return DecklogError(code, detail, extra={"errors": faults} if faults else None)
