"""Exports: all matching records as one file, up to the head of its start, oldest first, in constant memory.

A file that looks complete is complete: its last bytes follow every record, and the access record with their number.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, RequestContext
from decklog.domain.log import Head
from decklog.domain.records.record import Outcome, StoredRecord
from decklog.services.budget import Held
from decklog.services.processor import Processor
from decklog.services.records.access_log import EXPORT_CLOSE, AccessLog
from decklog.services.records.export_form import Form
from decklog.services.records.integrity import NAMED_MAX, Read, damaged_of, record_damaged
from decklog.services.records.starting import newest_of
from decklog.services.records.views import View
from decklog.services.search.search import Search

EXPORT_BYTES = 3 * 1024 * 1024 + 640 * 1024
"""Memory of an export: the batch that is read, the one that is written, the chunk that is sent, and its compression."""

_Item = TypeVar("_Item")


class Reader(msgspec.Struct, frozen=True):
    """The request for an export."""

    principal: Principal
    request: RequestContext
    view: View
    form: Form
    head: Head
    first: int
    """Number of the first record that may be given."""
    asked: dict[str, Any]
    """Details of its access records."""
    total: int | None = None
    """Number of the records that match, where it was asked for."""

    def details(self, **more: Any) -> dict[str, Any]:
        """Return the details of this export's access records."""
        chosen = {"fields": list(self.form.fields)} if self.form.fields else {}
        return {**self.asked, **chosen, "head": self.head.next_seq, **more}


async def _ahead(batches: AsyncGenerator[list[StoredRecord], None]) -> AsyncIterator[list[StoredRecord]]:
    """Yield the same batches, fetching the next one while the last is written."""

    async def following() -> list[StoredRecord] | None:
        return await anext(batches, None)

    pending = asyncio.create_task(following())
    try:
        while (batch := await pending) is not None:
            pending = asyncio.create_task(following())
            yield batch
    finally:
        pending.cancel()
        await asyncio.wait({pending})
        if not pending.cancelled():
            pending.exception()  # marks it as seen: no one waits for this batch any more
        await batches.aclose()


class Export:
    """An async iterator of bytes. The caller must `aclose` it however it ends, so that its end is recorded.

    It holds `EXPORT_BYTES` of its tenant's share until then, and raises `overloaded` if they do not fit.
    Iterating raises what reading raises, `record-damaged`, `unauthenticated` once the credential is withdrawn, and
    `access-log-unavailable`. The caller must then abort the transfer instead of ending it.
    """

    def __init__(
        self,
        search: Search,
        access_log: AccessLog,
        reader: Reader,
        *,
        processor: Processor,
        held: Held,
        still_valid: Callable[[Principal], Awaitable[bool]] | None = None,
    ) -> None:
        held.take(EXPORT_BYTES)
        self._release = weakref.finalize(self, held.give, EXPORT_BYTES)
        self._processor = processor
        self.tenant = reader.view.tenant
        self.log = reader.view.log
        self.form = reader.form
        self.total = reader.total
        self.position = reader.view.mark(newest_of(reader.head))
        """The position after which a later export has what is new, as its reader may see it."""
        number = f"-{reader.head.next_seq}" if reader.view.scope is None else ""
        self.filename = f"{self.tenant.name}-{self.log.text}{number}.{reader.form.format}"
        self._write = reader.form.writer(reader.view)
        self.finished = False
        self._search = search
        self._access_log = access_log
        self._reader = reader
        self._still_valid = still_valid
        self._given = 0
        self._failure: dict[str, Any] = {}
        self._chunks = self._generate()

    def __aiter__(self) -> Export:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._release()
            raise
        except BaseException as error:
            if isinstance(error, DecklogError):
                self.fail(error)
            await self._abandon()
            self._reader.view.raise_refusal(error)
            raise

    def fail(self, error: DecklogError) -> None:
        """Note for the access record why the caller abandons the export. The first error counts."""
        self._failure.setdefault("code", error.code.value)

    async def aclose(self, reason: str | None = None) -> None:
        """End the export, and record its end, with the reason where no error ended it, if it was not complete."""
        try:
            await self._chunks.aclose()
            if reason is not None and not self._failure:
                self._failure["reason"] = reason
            await self._abandon()
        finally:
            self._release()

    async def _abandon(self) -> None:
        if self.finished:
            return
        self.finished = True
        await self._access_log.write_late(
            self._reader.principal,
            self._reader.request,
            EXPORT_CLOSE,
            resource=("log", self.log.text),
            details=self._reader.details(records=self._given, **self._failure),
            outcome=Outcome.FAILURE,
        )

    async def _generate(self) -> AsyncGenerator[bytes, None]:
        """Yield chunks, always one behind, so that the last one follows the closing access record."""
        reader = self._reader
        held, count = self.form.opening, 0
        walk = self._search.walk(self.tenant, self.log, reader.view.query, start=reader.first, end=reader.head.next_seq)
        batches = _ahead(walk)
        async for batch in batches:
            if self._still_valid is not None and not await self._still_valid(reader.principal):
                raise DecklogError(Code.UNAUTHENTICATED, "The credential was withdrawn during the export.")
            self._given = count
            if damaged := await damaged_of(batch, self.tenant, self.log, Read.EXPORT, processor=self._processor):
                self._failure["damaged"] = damaged[:NAMED_MAX]
                raise record_damaged(self.log, damaged)
            if held:
                yield held
            held = await self._written(batch, first=count == 0)
            count += len(batch)
        await self._access_log.write(
            reader.principal,
            reader.request,
            EXPORT_CLOSE,
            resource=("log", self.log.text),
            details=reader.details(records=count),
        )
        self._given, self.finished = count, True
        held += self.form.closing
        if held:
            yield held

    async def _written(self, batch: Sequence[StoredRecord], *, first: bool) -> bytes:
        """Return a batch as bytes, written in slices of the tenant's processor time."""
        return self.form.joined(await self.processed(self._write, batch), first=first)

    async def processed(self, work: Callable[[_Item], bytes], items: Sequence[_Item]) -> Sequence[bytes]:
        """Return `work` of each item, in slices of the tenant's processor time."""
        return await self._processor.map(self.tenant.id, work, items)
