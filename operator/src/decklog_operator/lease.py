"""Leadership: of all replicas the one that holds a Lease of Kubernetes works; the others wait until it is free.

No clock is compared with that of another machine. A replica takes a Lease that somebody holds only when it has itself
seen it unchanged for as long as the Lease says; the holder stops working earlier than that after the start of its last
renewal. Every write names the version it is based on, so of two replicas that try at once one fails.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from decklog.domain.errors import DecklogError

_DEADLINE_SHARE = 2 / 3
"""Of the Lease's duration: a holder that could not renew it for so long stops working."""
_EXIT_SHARE = 14 / 15
"""Of the duration: a holder that has not stopped by then is ended, since at its end another one may begin."""
_RENEW_SHARE = 2 / 15
"""Of the duration: the pause between two renewals."""
_ATTEMPT_SHARE = 1 / 3
"""Of the duration: for one attempt, so that a connection that hangs does not use up the deadline."""
_LOOK_EVERY = 0.5
"""Seconds between two looks of those who wait, so that a Lease that was given back is taken within two seconds; and after
an attempt that failed."""
_RELEASE_MAX, _RELEASE_ATTEMPT_MAX = 10.0, 4.0
"""Seconds to give the Lease back, and for one attempt at it: a server that is slow, or that was still at a renewal of ours,
is asked again. After that it is left to run out; a pod has 30 s to stop, unless told otherwise."""

Json = dict[str, Any]

_log = structlog.get_logger(__name__)


class Leases(Protocol):
    """What is used of `decklog_operator.cluster.Cluster`. Both raise DecklogError."""

    async def read_lease(self, namespace: str, name: str) -> Json | None: ...

    async def write_lease(self, lease: Json) -> Json:
        """Create it where it has no version, else replace that very version. Raises `conflict` where it is not so."""
        ...


def _leave() -> None:
    sys.stderr.flush()
    os._exit(1)  # whatever still runs must not go on; a pod is started again


class Lease:
    """One replica's view of a Lease. `seconds` is how long it stays taken after the holder's last renewal."""

    def __init__(self, leases: Leases, namespace: str, name: str, *, seconds: int, leave: Callable[[], None] = _leave) -> None:
        self._leases, self._namespace, self._name, self._seconds, self._leave = leases, namespace, name, seconds, leave
        # A pod's host name is its own; the rest tells a process from the one before it.
        self.identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._last: Json | None = None
        self._existed = False
        self._unchanged_since = 0.0
        """By this process's clock, since when `_last` is what is read."""
        self._renewed = 0.0
        """By this process's clock, when the last write that succeeded was begun."""
        self._reached_for = False
        """Whether it may be ours, also where the answer to our write was never seen."""

    @asynccontextmanager
    async def held(self) -> AsyncIterator[asyncio.Event]:
        """Waits for the Lease, keeps it while the block runs and gives it back.

        The event is set when it cannot be relied on any more: the block is to end then, and where it does not in time,
        `leave` is called, which ends the process.
        """
        lost = asyncio.Event()
        try:
            await self._acquire()
            keeping = asyncio.create_task(self._keep(lost))
            try:
                yield lost
            finally:
                keeping.cancel()
                with suppress(asyncio.CancelledError):
                    await keeping
        finally:
            await self._release()

    async def _acquire(self) -> None:
        told = ""
        while True:
            try:
                async with asyncio.timeout(self._seconds * _ATTEMPT_SHARE):
                    await self._look()
                    if self._free():
                        await self._write(self.identity)
                        _log.info("leading", lease=self._name, identity=self.identity)
                        return
                    tell, detail = _log.info, f"{_holder(self._last)} leads."
            except (TimeoutError, DecklogError) as error:
                tell, detail = _log.warning, _detail(error)
            if detail != told:
                tell("standing by", lease=self._name, detail=detail)
                told = detail
            await asyncio.sleep(_LOOK_EVERY)

    async def _keep(self, lost: asyncio.Event) -> None:
        """Renews until that fails for good; then sees to it that the work ends in time."""
        loop = asyncio.get_running_loop()
        try:
            pause = self._seconds * _RENEW_SHARE
            while (left := self._deadline() - loop.time()) > 0:
                await asyncio.sleep(min(pause, left))
                renewed = await self._renew()
                if _holder(self._last) not in (self.identity, ""):
                    break
                pause = self._seconds * _RENEW_SHARE if renewed else _LOOK_EVERY
        except Exception:  # noqa: BLE001 - whatever it was, the work must end in time
            _log.exception("renewing the Lease failed", lease=self._name)
        lost.set()
        _log.error("leadership lost", lease=self._name, holder=_holder(self._last))
        await asyncio.sleep(self._renewed + self._seconds * _EXIT_SHARE - loop.time())
        _log.error("work did not end in time", lease=self._name)
        self._leave()

    def _deadline(self) -> float:
        return self._renewed + self._seconds * _DEADLINE_SHARE

    async def _renew(self) -> bool:
        """One attempt; whether it succeeded. It does not where somebody else has the Lease."""
        try:
            latest = asyncio.get_running_loop().time() + self._seconds * _ATTEMPT_SHARE
            async with asyncio.timeout_at(min(latest, self._deadline())):
                await self._look()
                if _holder(self._last) in (self.identity, ""):
                    await self._write(self.identity)  # also where it was deleted or emptied by hand
                    return True
        except (TimeoutError, DecklogError) as error:
            _log.warning("Lease not renewed", lease=self._name, detail=_detail(error))
        return False

    async def _release(self) -> None:
        if not self._reached_for:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_RELEASE_MAX):
                while True:
                    try:
                        async with asyncio.timeout(_RELEASE_ATTEMPT_MAX):
                            await self._look()
                            if _holder(self._last) == self.identity:
                                await self._write("")
                            return
                    except (TimeoutError, DecklogError) as error:
                        _log.warning("Lease not given back", lease=self._name, detail=_detail(error))
                    await asyncio.sleep(_LOOK_EVERY)

    def _free(self) -> bool:
        """Whether what was read last may be taken: it is nobody's, or ours, or was not renewed for its whole duration."""
        if _holder(self._last) in ("", self.identity) and not (self._last is None and self._existed):
            return True
        # One that vanished may still be relied on by its holder, who makes it anew.
        duration = _spec(self._last).get("leaseDurationSeconds") or self._seconds
        return asyncio.get_running_loop().time() - self._unchanged_since >= duration

    async def _look(self) -> None:
        found = await self._leases.read_lease(self._namespace, self._name)
        if _version(found) != _version(self._last):
            self._unchanged_since = asyncio.get_running_loop().time()
        self._existed |= found is not None
        self._last = found

    async def _write(self, holder: str) -> None:
        self._reached_for = True
        begun, before = asyncio.get_running_loop().time(), _spec(self._last)
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        new = holder not in ("", before.get("holderIdentity"))
        self._last = await self._leases.write_lease(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": (self._last or {}).get("metadata") or {"name": self._name, "namespace": self._namespace},
                "spec": {
                    "holderIdentity": holder,
                    "leaseDurationSeconds": self._seconds,
                    "acquireTime": now if new else before.get("acquireTime", now),
                    "renewTime": now,
                    "leaseTransitions": (before.get("leaseTransitions") or 0) + new,
                },
            }
        )
        self._renewed = begun


def _spec(lease: Json | None) -> Json:
    return (lease or {}).get("spec") or {}


def _holder(lease: Json | None) -> str:
    """Who has it; empty where nobody does, or there is none."""
    return _spec(lease).get("holderIdentity") or ""


def _version(lease: Json | None) -> str | None:
    return None if lease is None else str(lease["metadata"]["resourceVersion"])


def _detail(error: TimeoutError | DecklogError) -> str:
    return error.detail if isinstance(error, DecklogError) else "The Kubernetes API does not answer in time."
