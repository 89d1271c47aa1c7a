"""Comparison of records with their digests when they are read.

The digest covers the content of a record. It says nothing about `seq`, `received_at` and epoch, and whoever can write to the
database can replace content and digest together.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from enum import StrEnum

import structlog
from prometheus_client import Counter

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.canonical import digest
from decklog.domain.records.record import StoredRecord
from decklog.domain.tenant import Tenant
from decklog.services.processor import Processor

LISTED_SHARE = 0.1
"""Share of the records of lists that are checked. A check costs 3 to 5 µs for 600 bytes, a page of 100 records 5 ms."""
NAMED_MAX = 20
"""Damaged records that one error or access record names."""

_damaged = Counter(
    "decklog_records_damaged_total",
    "Records read whose content does not match their digest, by the read that found them.",
    ["read"],
)
_log = structlog.get_logger("decklog.integrity")


class Read(StrEnum):
    """Readers of records that were checked."""

    SINGLE = "single"
    LIST = "list"
    EXPORT = "export"
    STREAM = "stream"
    INDEX = "index"


_by_read = {read: _damaged.labels(read.value) for read in Read}


def is_damaged(record: StoredRecord) -> bool:
    """Return whether the content of a record differs from its digest."""
    return digest(record.content.encode()) != record.digest


async def damaged_of(
    records: Sequence[StoredRecord],
    tenant: Tenant,
    log: LogName,
    read: Read,
    *,
    share: float = 1.0,
    processor: Processor | None = None,
) -> list[int]:
    """Return the numbers of the damaged records among those checked, which are counted and logged.

    Args:
        records: Records of one log.
        tenant: Owner of the log, for the log line.
        log: The log.
        read: What read them, the label of the metric.
        share: Share of the records that are checked, chosen at random.
        processor: The slices in which they are hashed; None where no other tenant waits for the event loop.
    """
    if share < 1:
        records = [record for record in records if random.random() < share]  # noqa: S311 - a sample, not a secret
    damaged = await (processor or Processor()).map(tenant.id, is_damaged, records)
    found = [record.seq for record in itertools.compress(records, damaged)]
    if found:
        _by_read[read].inc(len(found))
        _log.error(
            "records are damaged", tenant=tenant.name, log=log.text, read=read.value, seqs=found[:NAMED_MAX], count=len(found)
        )
    return found


def record_damaged(log: LogName, seqs: Sequence[int]) -> DecklogError:
    """Return the refusal to give records whose content does not match their digest."""
    shown = ", ".join(map(str, seqs[:NAMED_MAX]))
    some = f"record {shown}" if len(seqs) == 1 else f"{len(seqs)} records ({shown}{', …' if len(seqs) > NAMED_MAX else ''})"
    return DecklogError(
        Code.RECORD_DAMAGED,
        f"The content of {some} of the log {log.text!r} does not match its digest: it was changed in the database. It is not given as "
        "evidence. Tell the operators of this service; read around it with the filters from and to.",
        extra={"seq": seqs[0]},
    )
