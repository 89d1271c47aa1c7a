"""Elect one working replica by a Kubernetes Lease. The other replicas wait until the Lease is free.

Clocks of different machines are never compared. A replica takes a held Lease only after it has seen the Lease unchanged for the
Lease's own duration. The holder stops working earlier than that, counted from the start of its last renewal. Every write names
the resource version it is based on, so one of two concurrent writers fails.
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
"""Share of the Lease's duration after which a holder that cannot renew stops working."""
_EXIT_SHARE = 14 / 15
"""Share of the duration after which a holder that still works is killed. At the end of the duration, another may start."""
_RENEW_SHARE = 2 / 15
"""Share of the duration between two renewals."""
_ATTEMPT_SHARE = 1 / 3
"""Share of the duration for one attempt, so that a hanging connection does not use up the deadline."""
_LOOK_EVERY = 0.5
"""Seconds between two checks of a waiting replica, and after a failed attempt. A released Lease is taken within two seconds."""
_RELEASE_MAX, _RELEASE_ATTEMPT_MAX = 10.0, 4.0
"""Seconds to release the Lease, and for one attempt. A slow server, or one still busy with a renewal, is asked again.

After that the Lease expires. By default, a pod has 30 s to stop.
"""

Json = dict[str, Any]

_log = structlog.get_logger(__name__)


class Leases(Protocol):
    """The used part of `decklog_operator.cluster.Cluster`. Both methods raise DecklogError."""

    async def read_lease(self, namespace: str, name: str) -> Json | None:
        """Return the Lease; None when it does not exist."""
        ...

    async def write_lease(self, lease: Json) -> Json:
        """Create the Lease without a version, else replace that version. Raises `conflict` when the version differs."""
        ...


def _leave() -> None:
    sys.stderr.flush()
    os._exit(1)  # no running work may continue; Kubernetes restarts the pod


class Lease:
    """One replica's view of a Lease. `seconds` is the validity after the holder's last renewal."""

    def __init__(self, leases: Leases, namespace: str, name: str, *, seconds: int, leave: Callable[[], None] = _leave) -> None:
        self._leases, self._namespace, self._name, self._seconds, self._leave = leases, namespace, name, seconds, leave
        # The host name identifies the pod, the suffix the process.
        self.identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._last: Json | None = None
        self._existed = False
        self._unchanged_since = 0.0
        """Loop time since which `_last` has not changed."""
        self._renewed = 0.0
        """Loop time at the start of the last successful write."""
        self._reached_for = False
        """Whether this replica may hold the Lease, even if the response to its write was lost."""

    @asynccontextmanager
    async def held(self) -> AsyncIterator[asyncio.Event]:
        """Wait for the Lease, keep it while the block runs, then release it.

        The event is set when the Lease may be lost. The block must end then. If it does not end in time, `leave` is called,
        which ends the process.
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
        logged = ""
        while True:
            try:
                async with asyncio.timeout(self._seconds * _ATTEMPT_SHARE):
                    await self._look()
                    if self._free():
                        await self._write(self.identity)
                        _log.info("leading", lease=self._name, identity=self.identity)
                        return
                    log, detail = _log.info, f"{_holder(self._last)} leads."
            except (TimeoutError, DecklogError) as error:
                log, detail = _log.warning, _detail(error)
            if detail != logged:
                log("standing by", lease=self._name, detail=detail)
                logged = detail
            await asyncio.sleep(_LOOK_EVERY)

    async def _keep(self, lost: asyncio.Event) -> None:
        """Renew until that fails for good, then make sure that the work ends in time."""
        loop = asyncio.get_running_loop()
        try:
            pause = self._seconds * _RENEW_SHARE
            while (left := self._deadline() - loop.time()) > 0:
                await asyncio.sleep(min(pause, left))
                renewed = await self._renew()
                if _holder(self._last) not in (self.identity, ""):
                    break
                pause = self._seconds * _RENEW_SHARE if renewed else _LOOK_EVERY
        except Exception:  # noqa: BLE001 - after any fault the work must end in time
            _log.exception("renewing the Lease failed", lease=self._name)
        lost.set()
        _log.error("leadership lost", lease=self._name, holder=_holder(self._last))
        await asyncio.sleep(self._renewed + self._seconds * _EXIT_SHARE - loop.time())
        _log.error("work did not end in time", lease=self._name)
        self._leave()

    def _deadline(self) -> float:
        return self._renewed + self._seconds * _DEADLINE_SHARE

    async def _renew(self) -> bool:
        """Try to renew once and return whether it succeeded. It fails when another replica holds the Lease."""
        try:
            latest = asyncio.get_running_loop().time() + self._seconds * _ATTEMPT_SHARE
            async with asyncio.timeout_at(min(latest, self._deadline())):
                await self._look()
                if _holder(self._last) in (self.identity, ""):
                    await self._write(self.identity)  # also after the Lease was deleted or emptied by hand
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
                        _log.warning("Lease not released", lease=self._name, detail=_detail(error))
                    await asyncio.sleep(_LOOK_EVERY)

    def _free(self) -> bool:
        """Return whether the Lease read last may be taken: it has no holder, is ours, or was not renewed for its duration."""
        if _holder(self._last) in ("", self.identity) and not (self._last is None and self._existed):
            return True
        # A Lease that vanished may still have a holder, which creates it again.
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
    """Return the holder; empty without a holder or a Lease."""
    return _spec(lease).get("holderIdentity") or ""


def _version(lease: Json | None) -> str | None:
    return None if lease is None else str(lease["metadata"]["resourceVersion"])


def _detail(error: TimeoutError | DecklogError) -> str:
    return error.detail if isinstance(error, DecklogError) else "The Kubernetes API did not answer in time."
