"""The part that a consumer of logs provides: the effect of records, over the logs of one place at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from decklog.domain.consumers import LogRecords
from decklog.domain.tenant import Tenant


class Effect(Protocol):
    """The effect of records on what a consumer keeps. Both methods may be called again with the same records."""

    @property
    def parallel(self) -> int:
        """Batches of one place that may be applied at once; 1 where the order of a log's records matters."""
        ...

    async def apply(self, batch: Sequence[LogRecords]) -> None:
        """Apply records of several logs of one place: of a class, or of one Dedicated tenant. No log is in a batch twice.

        After any error the same records are given again, also in smaller batches: what fails must not depend on the other logs.
        """
        ...

    async def settle(self, tenants: Sequence[Tenant]) -> None:
        """Return when everything that was applied of these tenants of one place is done. Runs beside later `apply` calls."""
        ...


class BatchTrace(Protocol):
    """The trace of one batch. Exactly one of the methods is called, once."""

    def done(self) -> None:
        """End the trace: the cursors have moved over the batch."""
        ...

    def broken_off(self) -> None:
        """End the trace as failed: records of the batch will be applied again."""
        ...


class BatchTraces(Protocol):
    """Traces of batches, where traces are sent."""

    def batch(self, consumer: str, batch: Sequence[LogRecords]) -> BatchTrace:
        """Begin the trace of a batch."""
        ...
