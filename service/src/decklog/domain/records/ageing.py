"""The end of partitions beyond retention: the result of one step, and the ranges of logs that went with them. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from decklog.domain.log import LogName
from decklog.domain.tenant import Tenant


class Aged(msgspec.Struct, frozen=True):
    """The result of one step over a schema.

    `since` and `until` bound the partition that was dropped, with its `bytes`; `since` is None where none may go. The numbers count partitions
    beyond retention that stay: `waiting` for the rest of their day, `held` under a legal hold, `archiving` until an archive is complete.
    """

    since: datetime | None
    until: datetime | None
    bytes: int
    waiting: int
    held: int
    archiving: int


class DroppedRange(msgspec.Struct, frozen=True):
    """Records of a log that went with their partition: `since <= received_at < until`, from `first_seq` to below `end_seq`."""

    tenant_id: int
    log: LogName
    since: datetime
    until: datetime
    first_seq: int
    end_seq: int
    dropped_at: datetime


class Drops(Protocol):
    """Where the ranges that went are noted."""

    async def unrecorded(self, limit: int) -> Sequence[DroppedRange]:
        """Return ranges that no access log has a record of, those that went first first. Raises `storage-unavailable`."""
        ...

    async def note_recorded(self, ranges: Sequence[DroppedRange]) -> None:
        """Note that access logs have a record of these ranges. It may run again. Raises `storage-unavailable`."""
        ...

    async def of_log(self, tenant: Tenant, log: LogName, limit: int) -> Sequence[DroppedRange]:
        """Return ranges of a log that went in the last 400 days, newest first. Raises `storage-unavailable`."""
        ...
