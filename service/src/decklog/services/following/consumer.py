"""A consumer in one process: what it does, where it reads and where it keeps its cursors."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

from decklog.domain.consumers import Cursors
from decklog.domain.store import FollowedStore
from decklog.services.following.effects import BatchTraces, Effect
from decklog.services.following.leases import LEASE_SECONDS

BATCH_RECORDS_MAX = 1_000


class Consumer:
    """One consumer of one process, and what all of its advances share.

    Args:
        name: Name of the consumer.
        store: Where records are.
        cursors: Where cursors and leases are.
        effect: What the consumer does with records.
        slots: Batches that are read and applied at once; waiting for an effect to settle takes no slot.
        lease_seconds: How long a lease lasts without a renewal.
        records_max: Records of a batch.
        clock: Seconds by which advances end.
        traces: Where traces are sent.
    """

    def __init__(
        self,
        name: str,
        store: FollowedStore,
        cursors: Cursors,
        effect: Effect,
        *,
        slots: int = 4,
        lease_seconds: float = LEASE_SECONDS,
        records_max: int = BATCH_RECORDS_MAX,
        clock: Callable[[], float] = time.monotonic,
        traces: BatchTraces | None = None,
    ) -> None:
        self.name = name
        self.store = store
        self.cursors = cursors
        self.effect = effect
        self.owner = uuid.uuid4().hex
        """Name of this process in leases."""
        self.slots = asyncio.Semaphore(slots)
        self.lease_seconds = lease_seconds
        self.records_max = records_max
        self.clock = clock
        self.traces = traces
        self.stopping = False
        """True if advances end after their batches in hand."""
