"""Reads the logs that are streamed: one shared reader for each log, and readings for subscribers that fell behind it.

New records are read from the store once and kept in a bounded ring. A subscriber takes records from the ring, or from
the store where it is behind the ring, so a slow subscriber is neither dropped nor buffered for, and none misses or
doubles a record. Announcements only wake the reader; the numbers they carry are not used as facts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Span
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.query import Query
from decklog.domain.search.terms import Terms
from decklog.domain.store import RecordStore
from decklog.domain.tenant import Tenant
from decklog.services.processor import Processor
from decklog.services.records.integrity import Read, damaged_of, record_damaged
from decklog.services.records.starting import newest_of, position_of
from decklog.services.search.matching import chars, terms_of
from decklog.services.search.page import memory_of

RING_RECORDS_MAX = 2_000
RINGS_BYTES_MAX = 48 * 1024 * 1024
"""Memory of the records in all rings of a process together; each log gets an equal share."""
TERMS_CHARS_MAX = 2 * 1024 * 1024
"""Characters of content whose terms are kept; terms take about ten times as much memory."""
LEAF_CHARS = 16
"""Characters that a leaf or a number counts beside the content: a short one takes as much memory as a long one."""
READ_ROWS, READ_BYTES = 250, 1024 * 1024
"""Rows and content that a shared reader reads at once."""
BACKLOG_ROWS, BACKLOG_BYTES = 100, 256 * 1024
"""Rows and content that a subscriber behind the ring holds at most, besides the record that exceeds it."""
BACKLOG_SEQS = 100_000
"""Sequence numbers that one statement for such a subscriber spans, which bounds its time where matches are rare."""
READ_SECONDS_MAX = 30.0
RETRY_SECONDS = 1.0
"""Between readings of a store that does not answer. Streams wait for it; they are not ended."""

LIGHT_CHARS = 4 * 1024
"""Characters up to which a record is matched at once, in far less than a millisecond."""
_NO_END = 2**62

_log = structlog.get_logger("decklog.streaming")


class Subscriber(Protocol):
    """What a feed does with a stream that follows it."""

    changed: asyncio.Event
    """Set when the feed has new records."""

    def end(self, error: DecklogError) -> None:
        """End the stream with this error."""
        ...


class RecentTerms:
    """The terms of the newest records, computed once for all subscribers that filter; bounded by `TERMS_CHARS_MAX`."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._kept: dict[tuple[int, LogName, int, bool], tuple[Terms, int]] = {}
        self._making: dict[tuple[int, LogName, int, bool], asyncio.Task[Terms]] = {}
        self._size = 0

    async def of(self, feed: Feed, record: StoredRecord, query: Query) -> Terms:
        """Return the terms of a record of this feed, as far as the query needs them.

        Those of a large record are made in a slice of the tenant's processor time, once for all who wait for them.
        """
        key = (feed.tenant.id, feed.log, record.seq, query.needs_content)
        if (known := self._kept.get(key)) is not None:
            return known[0]
        if len(record.content) < LIGHT_CHARS:
            return self._keep(key, record, _made(query, record))
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.create_task(self._make(key, record, query))
            making.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(making)

    async def _make(self, key: tuple[int, LogName, int, bool], record: StoredRecord, query: Query) -> Terms:
        [found] = await self._processor.map(key[0], partial(_made, query), [record], chars=chars)
        return self._keep(key, record, found)

    def _keep(self, key: tuple[int, LogName, int, bool], record: StoredRecord, found: Terms) -> Terms:
        size = len(record.content) + LEAF_CHARS * (len(found.leaves) + len(found.numbers))
        self._kept[key] = (found, size)
        self._size += size
        while self._size > TERMS_CHARS_MAX and len(self._kept) > 1:
            _, size = self._kept.pop(next(iter(self._kept)))
            self._size -= size
        return found


def _made(query: Query, record: StoredRecord) -> Terms:
    """Return all terms where a query needs the content, which other subscribers share; else those of the columns alone."""
    return terms_of(record) if query.needs_content else terms_of(record, query)


class Feed:
    """The shared reader of one log: a ring of its newest records, `first <= seq < end`."""

    def __init__(self, tenant: Tenant, log: LogName, head: Head) -> None:
        self.tenant = tenant
        self.log = log
        self.epoch = head.epoch
        self.end = head.next_seq
        self.last = newest_of(head)
        self.ring: deque[StoredRecord] = deque()
        self.size = 0
        self.subscribers: set[Subscriber] = set()
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def key(self) -> tuple[int, LogName]:
        """The key of the tenant and the log."""
        return self.tenant.id, self.log

    @property
    def first(self) -> int:
        """The number of the oldest record in the ring; `end` where the ring is empty."""
        return self.end - len(self.ring)

    def add(self, records: Sequence[StoredRecord]) -> None:
        """Put the next records into the ring and wake the subscribers."""
        for record in records:
            if record.seq != self.end:
                # A gap: subscribers that need records of it read them from the store.
                self.ring.clear()
                self.size = 0
            self.ring.append(record)
            self.size += memory_of([record])
            self.end = record.seq + 1
            self.last = position_of(record)
        for subscriber in self.subscribers:
            subscriber.changed.set()

    def trim(self, size_max: int) -> None:
        """Drop the oldest records until the ring is within `RING_RECORDS_MAX` and `size_max` bytes of memory."""
        while len(self.ring) > RING_RECORDS_MAX or (self.size > size_max and len(self.ring) > 1):
            self.size -= memory_of([self.ring.popleft()])


class Feeds:
    """The feeds of one process. A feed exists while it has a subscriber."""

    def __init__(self, store: RecordStore, processor: Processor) -> None:
        self._store = store
        self._processor = processor
        self._feeds: dict[tuple[int, LogName], Feed] = {}
        self._polling: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._feeds)

    def of(self, tenant: Tenant, log: LogName, head: Head) -> Feed:
        """Return the feed of a log, which a new one begins at `head`. The caller adds its subscriber at once."""
        feed = self._feeds.get((tenant.id, log))
        if feed is None:
            feed = self._feeds[tenant.id, log] = Feed(tenant, log, head)
            feed.wake.set()  # records may have been stored since the head was read
            feed.task = asyncio.create_task(self._keep_reading(feed), name=f"stream reader {tenant.name} {log.text}")
            for other in self._feeds.values():
                other.trim(RINGS_BYTES_MAX // len(self._feeds))
        return feed

    def leave(self, feed: Feed, subscriber: Subscriber) -> None:
        """Remove a subscriber, and the feed with its last one."""
        feed.subscribers.discard(subscriber)
        if not feed.subscribers:
            self._drop(feed)

    def announced(self, tenant_id: int, log: LogName, next_seq: int) -> None:
        """Wake the reader of a log that has reached `next_seq`."""
        feed = self._feeds.get((tenant_id, log))
        if feed is not None and next_seq > feed.end:
            feed.wake.set()

    def poll(self) -> None:
        """Start to compare all feeds with their heads, in case an announcement was lost, unless that goes on already."""
        if self._feeds and (self._polling is None or self._polling.done()):
            self._polling = asyncio.create_task(self._poll(), name="poll of streamed logs")

    async def stop(self) -> None:
        """End all readers."""
        tasks = [task for task in (self._polling, *(feed.task for feed in self._feeds.values())) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def read_backlog(self, feed: Feed, query: Query, first: int) -> tuple[list[StoredRecord], int]:
        """Read records from `first` on that the columns of the store let through, up to the feed's end.

        Raises `record-damaged` where the first of them is damaged; from a later one on, records are left for the next call.
        Return the records, and the number to go on from. Where the store does not answer: none, and `first`, after a pause.
        """
        span = Span(first, min(feed.end, first + BACKLOG_SEQS))
        try:
            records, onwards = await self._store.read(
                feed.tenant,
                feed.log,
                span,
                query=query,
                limit=BACKLOG_ROWS,
                newest_first=False,
                timeout=READ_SECONDS_MAX,
                bytes_max=BACKLOG_BYTES,
            )
        except DecklogError as error:
            _log.warning("a stream waits for the store", tenant=feed.tenant.name, log=feed.log.text, code=error.code.value)
            await asyncio.sleep(RETRY_SECONDS)
            return [], first
        if damaged := await damaged_of(records, feed.tenant, feed.log, Read.STREAM, processor=self._processor):
            if damaged[0] == records[0].seq:
                raise record_damaged(feed.log, damaged)
            return [record for record in records if record.seq < damaged[0]], damaged[0]
        return records, span.end if onwards is None else onwards

    async def _keep_reading(self, feed: Feed) -> None:
        while self._feeds.get(feed.key) is feed:
            await feed.wake.wait()
            feed.wake.clear()
            try:
                await self._read_new(feed)
            except Exception as error:  # noqa: BLE001 - a reader that ended would leave its streams silent for ever
                reason = repr(error)[:300]
                _log.warning("a streamed log cannot be read", tenant=feed.tenant.name, log=feed.log.text, reason=reason)
                await asyncio.sleep(RETRY_SECONDS)
                feed.wake.set()

    async def _read_new(self, feed: Feed) -> None:
        onwards: int | None = feed.end
        while onwards is not None:
            records, onwards = await self._store.read(
                feed.tenant,
                feed.log,
                Span(feed.end, _NO_END),
                query=Query(),
                limit=READ_ROWS,
                newest_first=False,
                timeout=READ_SECONDS_MAX,
                bytes_max=READ_BYTES,
            )
            if any(record.epoch != feed.epoch for record in records):
                self._restored(feed)
                return
            if damaged := await damaged_of(records, feed.tenant, feed.log, Read.STREAM, processor=self._processor):
                self._end(feed, record_damaged(feed.log, damaged))
                return
            feed.add(records)
            feed.trim(RINGS_BYTES_MAX // len(self._feeds))

    async def _poll(self) -> None:
        feeds = dict(self._feeds)
        try:
            heads = await self._store.heads(tuple(feeds))
        except DecklogError:
            return  # the next poll may succeed; the store has logged why
        for key, head in heads.items():
            feed = feeds[key]
            if self._feeds.get(key) is not feed:
                continue
            if head.epoch != feed.epoch:
                self._restored(feed)
            elif head.next_seq > feed.end:
                feed.wake.set()

    def _restored(self, feed: Feed) -> None:
        """End the streams of a log that was restored: its numbers are used again for other records."""
        self._end(
            feed,
            DecklogError(
                Code.STORAGE_UNAVAILABLE,
                "The log has been restored, and its numbers are used again. Connect again.",
                retry_after=1,
            ),
        )

    def _end(self, feed: Feed, error: DecklogError) -> None:
        """End the streams of a log, and its reader."""
        for subscriber in tuple(feed.subscribers):
            subscriber.end(error)
        self._drop(feed)

    def _drop(self, feed: Feed) -> None:
        if self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]
        if feed.task is not None and feed.task is not asyncio.current_task():
            feed.task.cancel()
