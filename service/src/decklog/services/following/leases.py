"""Leases on logs: acquired, renewed in the background and released around a block of work.

A lease keeps two workers from doing the same work; it protects nothing by itself. What must not be undone is protected
by the compare-and-set of `Cursors.move`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from decklog.domain.consumers import Cursor, Cursors
from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.tenant import Tenant

LEASE_SECONDS = 30.0
"""A worker that dies keeps its logs from the others no longer than this."""
RENEWALS_PER_LEASE = 3
"""Attempts to renew a lease before it expires, so that one failed attempt loses nothing."""

_log = structlog.get_logger("decklog.lease")

Held = dict[LogName, Cursor]
"""The cursors under a lease, by log."""


class LeaseLostError(Exception):
    """Another worker holds the lease, or moved the cursor."""


@asynccontextmanager
async def leased(
    cursors: Cursors,
    consumer: str,
    tenant: Tenant,
    logs: Sequence[LogName],
    *,
    owner: str,
    seconds: float = LEASE_SECONDS,
    release_on_success: bool = True,
) -> AsyncIterator[Held | None]:
    """Hold the leases of a consumer on these logs of one tenant while the block runs.

    Yields the cursors, or None where another worker holds one of the leases. When a lease is lost, the block is cancelled
    at its next await. A block that fails releases its leases.

    Args:
        cursors: Where leases are kept.
        consumer: Name of the consumer.
        tenant: Tenant whose logs these are.
        logs: Logs to lease, in this order: all or none.
        owner: Name of this worker; the same owner may take its own lease again.
        seconds: How long a lease lasts without a renewal.
        release_on_success: False leaves the leases to expire after a block that succeeds, which spaces periodic work.

    Raises:
        LeaseLostError: A lease was lost, or expired while it could not be renewed.
        DecklogError: `storage-unavailable` where the leases cannot be acquired.
    """
    held: Held = {}
    succeeded = False
    try:
        for log in logs:
            cursor = await cursors.lease(consumer, tenant.id, log, owner=owner, seconds=seconds)
            if cursor is None:
                break
            held[log] = cursor
        if len(held) < len(logs):
            yield None
            return
        async with _cancelled_when_lost(cursors, tuple(held.values()), seconds):
            yield held
        succeeded = True
    except LeaseLostError:
        _log.info("a lease was lost", consumer=consumer, tenant=tenant.name)
        raise
    finally:
        if release_on_success or not succeeded:
            for cursor in held.values():
                # A release that fails costs the next worker a wait until the lease expires, nothing else.
                with suppress(DecklogError):
                    await cursors.release(cursor)


@asynccontextmanager
async def _cancelled_when_lost(cursors: Cursors, held: Sequence[Cursor], seconds: float) -> AsyncIterator[None]:
    """Renew leases while the block runs. Raises `LeaseLostError`, and what a renewal raises that must not happen."""
    loop = asyncio.get_running_loop()
    renewal = asyncio.create_task(_renew(cursors, held, seconds), name=f"leases {held[0].consumer} {held[0].tenant_id}")
    try:
        async with asyncio.timeout(None) as work:
            # The renewal ends when a lease is lost; the timeout is how it ends the block.
            renewal.add_done_callback(lambda _: None if renewal.cancelled() else work.reschedule(loop.time()))
            try:
                yield
            finally:
                renewal.cancel()
                await asyncio.wait((renewal,))
    except TimeoutError:
        if not work.expired():
            raise
        renewal.result()
        raise LeaseLostError from None


async def _renew(cursors: Cursors, held: Sequence[Cursor], seconds: float) -> None:
    """Renew leases until one is lost, or has expired while the database could not be asked."""
    loop = asyncio.get_running_loop()
    expires_at = loop.time() + seconds
    while True:
        await asyncio.sleep(seconds / RENEWALS_PER_LEASE)
        asked_at = loop.time()
        try:
            for each in held:
                if not await cursors.lease(each.consumer, each.tenant_id, each.log, owner=each.owner, seconds=seconds):
                    return
        except DecklogError:
            if loop.time() >= expires_at:
                return
        else:
            expires_at = asked_at + seconds
