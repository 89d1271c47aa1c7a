"""What an admin does with rejected records: list them, read one, replay it after a fix, delete it. Each is in the access log."""

from __future__ import annotations

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, Principal, RequestContext, acting_tenant
from decklog.domain.records.append import Rate, Receipt
from decklog.domain.records.record import Outcome
from decklog.domain.records.rejected import RejectedRecord, RejectedStore, Rejections
from decklog.domain.tenant import Tenant
from decklog.services.records.access_log import REJECTED_DELETE, REJECTED_LIST, REJECTED_READ, REJECTED_REPLAY, AccessLog
from decklog.services.records.bulk import Sender
from decklog.services.records.ingest import Ingest

LIMIT_DEFAULT = 100
LIMIT_MAX = 1_000
"""Rejected records of one page; more than a tenant may have."""


class RejectedPage(msgspec.Struct, frozen=True):
    """Rejected records, newest first; `next` is the number to continue before, None after the last."""

    items: list[RejectedRecord]
    next: int | None
    counts: Rejections


class Rejected:
    """The rejected records of the tenants of one cell, as their admins see them."""

    def __init__(self, store: RejectedStore, ingest: Ingest, access_log: AccessLog) -> None:
        self._store = store
        self._ingest = ingest
        self._access_log = access_log

    async def list(
        self, principal: Principal, request: RequestContext, *, before: int | None = None, limit: int = LIMIT_DEFAULT
    ) -> RejectedPage:
        """Return rejected records without their content. Raises `forbidden`, and what the store and the access log raise."""
        tenant = self._admit(principal)
        found = await self._store.list(tenant.id, before=before, limit=limit + 1)
        items, more = found[:limit], found[limit:]
        page = RejectedPage(items, items[-1].id if more else None, await self._store.counts(tenant.id))
        details = {"records": len(items), "before": before, "limit": limit}
        await self._access_log.write(principal, request, REJECTED_LIST, resource=("rejected", None), details=details)
        return page

    async def get(self, principal: Principal, request: RequestContext, number: int) -> RejectedRecord:
        """Return a rejected record with its content. The request is recorded also where it fails. Raises `not-found`."""
        tenant = self._admit(principal)
        found = await self._store.get(tenant.id, number)
        await self._access_log.write(
            principal,
            request,
            REJECTED_READ,
            resource=("rejected", str(number)),
            details={"records": 0 if found is None else 1},
            outcome=Outcome.FAILURE if found is None else Outcome.SUCCESS,
        )
        return _there(found, number)

    async def replay(
        self, principal: Principal, request: RequestContext, number: int, sender: Sender, mended: bytes, *, trims: bool | None
    ) -> tuple[Receipt, Rate | None]:
        """Store a rejected record and forget its rejection.

        Args:
            principal: An admin.
            request: Where the request came from.
            number: Number of the rejected record.
            sender: The credential that stores the record, which is the admin's.
            mended: The record to store in its place; empty for what is kept of it.
            trims: As for `Ingest.append`.

        Raises:
            DecklogError: `not-found`, `conflict` where its content is not kept and none is given, and what `Ingest.append` raises. The
                rejected record stays then. The id of a record without one is made of this number, so a replay may be repeated.
        """
        tenant = acting_tenant(principal, Permission.MANAGE)
        found = _there(await self._store.get(tenant.id, number), number)
        raw = mended or (found.content or "").encode()
        if not raw:
            raise DecklogError(
                Code.CONFLICT,
                f"The content of the rejected record {number} is not kept: it was no JSON, or too large. Send the mended record as the body.",
            )
        details = {"mended": bool(mended), "requestId": found.request_id}
        await self._access_log.write(principal, request, REJECTED_REPLAY, resource=("rejected", str(number)), details=details)
        key = found.record_id or f"rejected/{number}"
        receipt, rate = await self._ingest.append(tenant, raw, key=key, sender=sender, trims=trims, keeps=False)
        await self._store.delete(tenant.id, number)
        return receipt, rate

    async def delete(self, principal: Principal, request: RequestContext, number: int) -> None:
        """Delete a rejected record. Raises `not-found`."""
        tenant = acting_tenant(principal, Permission.MANAGE)
        found = _there(await self._store.get(tenant.id, number), number)
        details = {"code": found.code, "requestId": found.request_id}
        await self._access_log.write(principal, request, REJECTED_DELETE, resource=("rejected", str(number)), details=details)
        await self._store.delete(tenant.id, number)

    def _admit(self, principal: Principal) -> Tenant:
        tenant = acting_tenant(principal, Permission.MANAGE)
        self._ingest.refuse_query(tenant)
        return tenant


def _there(found: RejectedRecord | None, number: int) -> RejectedRecord:
    if found is None:
        raise DecklogError(
            Code.NOT_FOUND, f"There is no rejected record {number}. It may have been replayed, deleted or dropped."
        )
    return found
