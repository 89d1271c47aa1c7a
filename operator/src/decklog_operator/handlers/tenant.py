"""Kopf's handlers of Tenant: news of it lead to `Visits`, its deletion to `Reconciler.release`.

Kopf's change handlers would do less: one that is retried does not see a further edit before its pause is over.
"""

from __future__ import annotations

from typing import Any

import kopf

from decklog_operator.metrics import Census
from decklog_operator.names import GROUP, PLURAL, VERSION
from decklog_operator.reconcile import Reconciler
from decklog_operator.visits import FAULT_PAUSE, Visits


def register(registry: kopf.OperatorRegistry, reconciler: Reconciler, visits: Visits, census: Census) -> None:
    """Put the handlers into a registry of Kopf."""

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id="notice")
    async def notice(*, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002  # Kopf's name
        seen = dict(body)
        # Who wrote which field: the greater part of an object. Nobody here reads it, and Kopf copies and compares whole ones.
        seen["metadata"].pop("managedFields", None)
        census.notice(seen, gone=type == "DELETED")
        visits.notice(seen, gone=type == "DELETED", listed=type is None)

    @kopf.on.delete(GROUP, VERSION, PLURAL, registry=registry, id="release", backoff=FAULT_PAUSE)
    async def release(*, body: kopf.Body, **_: Any) -> None:
        if (pause := await reconciler.release(dict(body))) is not None:
            raise kopf.TemporaryError("not removed yet; its status says why", delay=pause)
