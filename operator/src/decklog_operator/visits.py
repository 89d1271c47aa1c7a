"""Who is visited when: a timer for each Tenant, and a task only while it is visited.

Kopf's daemons do that, too, but each keeps a task, a body and the state of a handler, five thousand of them for a few
visits in a second; and its timers cannot be called earlier. What is kept here of a Tenant is its body as JSON.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog

from decklog_operator.reconcile import Reconciler

_STOP_MAX = 2.0
"""Seconds that visits get to end after their cancellation."""
FAULT_PAUSE = 10.0
"""Seconds after a fault of ours, which is logged with its traceback."""

_log = structlog.get_logger(__name__)


class _Visited:
    """A Tenant that is there. Either it is visited or it waits; `again`: what a visit saw at its beginning is not true any
    more."""

    def __init__(self) -> None:
        self.body = b""
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
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
    """All Tenants that the watch has shown: visited when they are new, when they were edited, and when a pause is over."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler
        self._visited: dict[str, _Visited] = {}
        # That of whoever hears the news holds all of Kopf's affairs of the moment, and would be held by each timer.
        self._context = contextvars.copy_context()

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """As long as the block runs; then whatever still runs is cancelled."""
        try:
            yield
        finally:
            left, self._visited = self._visited, {}
            for each in left.values():
                each.stop()
            if running := [each.task for each in left.values() if each.task is not None]:
                await asyncio.wait(running, timeout=_STOP_MAX)

    def notice(self, body: Mapping[str, Any], *, gone: bool, listed: bool) -> None:
        """Hear of a change, in the order in which changes were made. `listed`: seen in a list, not as news."""
        wanted, uid = self._reconciler.notice(body, gone=gone, listed=listed), body["metadata"]["uid"]
        if gone:
            if (left := self._visited.pop(uid, None)) is not None:
                left.stop()
            return
        tenant = self._visited.setdefault(uid, _Visited())
        tenant.body = msgspec.json.encode(body)
        if body["metadata"].get("deletionTimestamp"):
            tenant.stop()  # it is released now, and a visit would hold that up
        elif wanted:
            self._plan(uid, tenant, 0)

    def _plan(self, uid: str, tenant: _Visited, seconds: float) -> None:
        tenant.unplan()
        if tenant.task is not None:
            tenant.again = True
        elif seconds > 0:
            tenant.timer = asyncio.get_running_loop().call_later(seconds, self._plan, uid, tenant, 0, context=self._context)
        else:
            tenant.task = asyncio.create_task(self._visit(uid, tenant), context=self._context.copy())

    async def _visit(self, uid: str, tenant: _Visited) -> None:
        body, tenant.again, pause = msgspec.json.decode(tenant.body), False, FAULT_PAUSE
        try:
            pause = await self._reconciler.visit(body)
        except Exception:  # noqa: BLE001 - one Tenant's fault must not end the others' visits, nor its own
            metadata = body["metadata"]
            _log.exception("a visit failed", tenant=metadata["name"], generation=metadata["generation"])
        finally:
            tenant.task = None
        if self._visited.get(uid) is tenant:
            self._plan(uid, tenant, 0 if tenant.again else pause)
