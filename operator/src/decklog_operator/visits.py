"""Schedule visits: one timer per Tenant, and one task only while its visit runs.

Kopf's daemons keep a task, a body and handler state for each Tenant, and its timers cannot fire early. With five thousand
Tenants and a few visits per second, this module keeps only each Tenant's body as JSON.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import structlog

from decklog_operator.reconcile import Reconciler

_STOP_MAX = 2.0
"""Seconds for cancelled visits to end."""
FAULT_PAUSE = 10.0
"""Seconds until the next visit after a fault of this program, which is logged with its traceback."""

_log = structlog.get_logger(__name__)


class _Visited:
    """An existing Tenant, which either is being visited or waits. `again`: it changed since the current visit began."""

    def __init__(self) -> None:
        self.body = b""
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[float] | None = None
        self.again = False

    def unplan(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def stop(self) -> None:
        self.unplan()
        if self.task is not None:
            self.task.cancel()


class Visits:
    """Every Tenant that the watch has shown. Each is visited when it is new, after an edit and after a pause."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler
        self._visited: dict[str, _Visited] = {}
        # The context of a Kopf handler references Kopf's current state, and every timer would keep it alive.
        self._context = contextvars.copy_context()

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Allow visits while the block runs, then cancel the running ones."""
        try:
            yield
        finally:
            left, self._visited = self._visited, {}
            for each in left.values():
                each.stop()
            if running := [each.task for each in left.values() if each.task is not None]:
                await asyncio.wait(running, timeout=_STOP_MAX)

    def notice(self, body: Mapping[str, Any], *, gone: bool, listed: bool) -> None:
        """Note a change. Call in the order of changes. `listed`: the object came from a list, not from the watch."""
        wanted, uid = self._reconciler.notice(body, gone=gone, listed=listed), body["metadata"]["uid"]
        if gone:
            if (left := self._visited.pop(uid, None)) is not None:
                left.stop()
            return
        tenant = self._visited.setdefault(uid, _Visited())
        tenant.body = msgspec.json.encode(body)
        if body["metadata"].get("deletionTimestamp"):
            tenant.stop()  # its release starts now, and a visit would delay it
        elif wanted:
            self._plan(uid, tenant, 0)

    def _plan(self, uid: str, tenant: _Visited, seconds: float) -> None:
        tenant.unplan()
        if tenant.task is not None:
            tenant.again = True
        elif seconds > 0:
            tenant.timer = asyncio.get_running_loop().call_later(seconds, self._plan, uid, tenant, 0, context=self._context)
        else:
            tenant.again = False
            body = msgspec.json.decode(tenant.body)
            tenant.task = asyncio.create_task(self._reconciler.visit(body), context=self._context.copy())
            tenant.task.add_done_callback(partial(self._ended, tenant, body["metadata"]), context=self._context)

    def _ended(self, tenant: _Visited, metadata: Mapping[str, Any], visit: asyncio.Task[float]) -> None:
        """Plan the next visit, also after a fault. A cancelled visit has no successor."""
        tenant.task = None
        if visit.cancelled():
            return
        fault = visit.exception()
        if fault is not None:
            _log.error("visit failed", exc_info=fault, tenant=metadata["name"], generation=metadata["generation"])
        if self._visited.get(metadata["uid"]) is tenant:
            pause = visit.result() if fault is None else FAULT_PAUSE
            self._plan(metadata["uid"], tenant, 0 if tenant.again else pause)
