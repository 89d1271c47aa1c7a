"""Kopf's handlers of Tenant: all of them lead to `Reconciler.visit`, deletion to `Reconciler.release`.

A daemon per Tenant visits it: at once when it is new or the operator has just started, when its spec was edited, and
when a pause is over, a short one while it is not ready. Kopf's change handlers and timers would do less: a change handler
that is retried does not see a further edit before its pause is over, and a timer cannot be called earlier.
"""

from __future__ import annotations

import asyncio
from typing import Any

import kopf

from decklog_operator.metrics import Census
from decklog_operator.names import GROUP, PLURAL, VERSION
from decklog_operator.reconcile import Reconciler

_STOP_MAX = 2.0
"""Seconds that a visit gets to end after its cancellation. A deletion waits for the visit's lock in any case."""
_FAULT_PAUSE = 10.0
"""Seconds after a fault of ours, which is logged with its traceback."""


def register(registry: kopf.OperatorRegistry, reconciler: Reconciler, census: Census) -> None:
    """Put the handlers into a registry of Kopf."""

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id="notice")
    async def notice(*, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002  # Kopf's name
        census.notice(body, gone=type == "DELETED")
        reconciler.notice(body, gone=type == "DELETED", listed=type is None)

    @kopf.daemon(GROUP, VERSION, PLURAL, registry=registry, id="visit", cancellation_timeout=_STOP_MAX, backoff=_FAULT_PAUSE)
    async def visit(*, body: kopf.Body, uid: str, stopped: kopf.DaemonStopped, **_: Any) -> None:
        ours = reconciler.ours(uid)  # Kopf does not stop the daemon of a Tenant that has left the selector
        try:
            while ours() and not stopped:
                # A copy: Kopf replaces what is in `body` when news arrive, and a visit must see one generation.
                await reconciler.pause(uid, await reconciler.visit(dict(body)))
        except asyncio.CancelledError:
            if not stopped:
                raise

    @kopf.on.delete(GROUP, VERSION, PLURAL, registry=registry, id="release", backoff=_FAULT_PAUSE)
    async def release(*, body: kopf.Body, **_: Any) -> None:
        if (pause := await reconciler.release(dict(body))) is not None:
            raise kopf.TemporaryError("not removed yet; its status says why", delay=pause)
