"""Terms of stored records, for the consumers that make records findable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from decklog.domain.log import LogName
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.terms import Terms, terms
from decklog.domain.tenant import Tenant
from decklog.services.records.integrity import Read, damaged_of

YIELD_CHARS = 64 * 1024
"""Characters of content between two yields to other tasks, as terms are pure computation: a few milliseconds of work."""
IN_THREAD_CHARS = 16 * 1024
"""Characters of a content from which a thread computes: a large record with very many leaves takes a few hundred milliseconds."""

# msgspec itself may take 40 microseconds for one number (`1.5e300`); Python never does.
_decode = msgspec.json.Decoder(dict, float_hook=float).decode

_Made = TypeVar("_Made")


async def record_terms(
    tenant: Tenant, log: LogName, records: Sequence[StoredRecord], work: Callable[[Terms], _Made]
) -> AsyncIterator[tuple[StoredRecord, _Made]]:
    """Yield each record with what `work` returns for its terms.

    A damaged record without terms is left out: it must not stop the records after it.
    """

    def made(record: StoredRecord) -> _Made:
        decoded: dict[str, Any] = _decode(record.content)
        return work(terms(decoded, seq=record.seq, received_at=record.received_at))

    damaged = set(await damaged_of(records, tenant, log, Read.INDEX))
    chars = 0
    for record in records:
        try:
            large = len(record.content) > IN_THREAD_CHARS
            found = await asyncio.to_thread(made, record) if large else made(record)
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError):
            if record.seq not in damaged:
                raise
            continue
        yield record, found
        chars += len(record.content)
        if chars >= YIELD_CHARS:
            chars = 0
            await asyncio.sleep(0)
