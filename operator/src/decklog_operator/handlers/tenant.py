"""Kopf handlers of Tenant. Changes go to `Visits`, deletions to `Reconciler.release`.

Kopf's own change handlers do not fit: while one waits for a retry, it does not see further edits.
"""

from __future__ import annotations

from typing import Any

import kopf

from decklog_operator.metrics import Census
from decklog_operator.names import GROUP, PLURAL, VERSION
from decklog_operator.reconcile import EDITORS, Reconciler, editors
from decklog_operator.visits import FAULT_PAUSE, Visits


def register(registry: kopf.OperatorRegistry, reconciler: Reconciler, visits: Visits, census: Census) -> None:
    """Register the handlers with Kopf."""

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id="notice")
    async def notice(*, body: kopf.Body, **event: Any) -> None:
        kind, seen = event["type"], dict(body)
        # managedFields is the largest part of an object, and Kopf copies and compares whole objects: only the names are kept.
        seen["metadata"][EDITORS] = editors(seen["metadata"])
        seen["metadata"].pop("managedFields", None)
        census.notice(seen, gone=kind == "DELETED")
        visits.notice(seen, gone=kind == "DELETED", listed=kind is None)

    @kopf.on.delete(GROUP, VERSION, PLURAL, registry=registry, id="release", backoff=FAULT_PAUSE)
    async def release(*, body: kopf.Body, **_: Any) -> None:
        if (pause := await reconciler.release(dict(body))) is not None:
            raise kopf.TemporaryError("not removed yet; the status has the reason", delay=pause)
