"""Reads the logs that are streamed: one shared reader for each log, and readings for subscribers that fell behind it.

New records are read from the store once and kept in a bounded ring. A subscriber takes records from the ring, or from
the store where it is behind the ring, so a slow subscriber is neither dropped nor buffered for, and none misses or
doubles a record. Announcements only wake the reader; the numbers they carry are not used as facts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import Head, LogName, Position, Span
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.query import Query
from decklog.domain.search.terms import Terms
from decklog.domain.store import RecordStore
from decklog.domain.tenant import Tenant
from decklog.services.records.integrity import Read, damaged_of, record_damaged
from decklog.services.search.matching import terms_of

RING_RECORDS_MAX = 2_000
RINGS_CHARS_MAX = 64 * 1024 * 1024
"""Characters of content in all rings of a process together; each log gets an equal share."""
TERMS_CHARS_MAX = 4 * 1024 * 1024
"""Characters of content whose terms are kept; terms take about ten times as much memory."""
READ_ROWS = 250
"""Rows that a shared reader reads at once."""
BACKLOG_ROWS = 100
"""Rows that a subscriber behind the ring holds at most."""
BACKLOG_SEQS = 100_000
"""Sequence numbers that one statement for such a subscriber spans, which bounds its time where matches are rare."""
BACKLOG_READS_MAX = POLLS_MAX = 4
"""Readings behind rings at once, and polls of heads at once, so that many streams leave connections for other requests."""
READ_SECONDS_MAX = 30.0
RETRY_SECONDS = 1.0
"""Between readings of a store that does not answer. Streams wait for it; they are not ended."""

_NO_END = 2**62

_log = structlog.get_logger("decklog.streaming")


def position_of(record: StoredRecord) -> Position:
    """Return the position of a record."""
    return Position(record.epoch, record.received_at, record.seq)


class Subscriber(Protocol):
    """What a feed does with a stream that follows it."""

    changed: asyncio.Event
    """Set when the feed has new records."""

    def end(self, error: DecklogError) -> None:
        """End the stream with this error."""
        ...


class RecentTerms:
    """The terms of the newest records, computed once for all subscribers that filter; bounded by `TERMS_CHARS_MAX`."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, LogName, int], tuple[Terms, int]] = {}
        self._size = 0

    def of(self, feed: Feed, record: StoredRecord) -> Terms:
        """Return the terms of a record of this feed."""
        key = (feed.tenant.id, feed.log, record.seq)
        if (known := self._kept.get(key)) is not None:
            return known[0]
        found = terms_of(record)
        self._kept[key] = (found, len(record.content))
        self._size += len(record.content)
        while self._size > TERMS_CHARS_MAX and len(self._kept) > 1:
            _, size = self._kept.pop(next(iter(self._kept)))
            self._size -= size
        return found


class Feed:
    """The shared reader of one log: a ring of its newest records, `first <= seq < end`."""

    def __init__(self, tenant: Tenant, log: LogName, head: Head) -> None:
        self.tenant = tenant
        self.log = log
        self.epoch = head.epoch
        self.end = head.next_seq
        self.last = Position(head.epoch, head.received_at, head.next_seq - 1)
        self.ring: deque[StoredRecord] = deque()
        self.size = 0
        self.subscribers: set[Subscriber] = set()
        self.wake = asyncio.Event()
        self.polling = False
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
            self.size += len(record.content)
            self.end = record.seq + 1
            self.last = position_of(record)
        for subscriber in self.subscribers:
            subscriber.changed.set()

    def trim(self, size_max: int) -> None:
        """Drop the oldest records until the ring is within `RING_RECORDS_MAX` and `size_max` characters."""
        while len(self.ring) > RING_RECORDS_MAX or (self.size > size_max and len(self.ring) > 1):
            self.size -= len(self.ring.popleft().content)


class Feeds:
    """The feeds of one process. A feed exists while it has a subscriber."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._feeds: dict[tuple[int, LogName], Feed] = {}
        self._backlog = asyncio.Semaphore(BACKLOG_READS_MAX)
        self._polls = asyncio.Semaphore(POLLS_MAX)
        self._polling: set[asyncio.Task[None]] = set()

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
                other.trim(RINGS_CHARS_MAX // len(self._feeds))
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
        """Start to compare every feed with its head, in case an announcement was lost. Feeds still being polled are left out."""
        for feed in self._feeds.values():
            if not feed.polling:
                feed.polling = True
                task = asyncio.create_task(self._poll(feed))
                self._polling.add(task)
                task.add_done_callback(self._polling.discard)

    async def stop(self) -> None:
        """End all readers."""
        tasks = [feed.task for feed in self._feeds.values() if feed.task is not None]
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
            async with self._backlog:
                records, onwards = await self._store.read(
                    feed.tenant,
                    feed.log,
                    span,
                    query=query,
                    limit=BACKLOG_ROWS,
                    newest_first=False,
                    timeout=READ_SECONDS_MAX,
                )
        except DecklogError as error:
            _log.warning("a stream waits for the store", tenant=feed.tenant.name, log=feed.log.text, code=error.code.value)
            await asyncio.sleep(RETRY_SECONDS)
            return [], first
        if damaged := await damaged_of(records, feed.tenant, feed.log, Read.STREAM):
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
            )
            if any(record.epoch != feed.epoch for record in records):
                self._restored(feed)
                return
            if damaged := await damaged_of(records, feed.tenant, feed.log, Read.STREAM):
                self._end(feed, record_damaged(feed.log, damaged))
                return
            feed.add(records)
            feed.trim(RINGS_CHARS_MAX // len(self._feeds))

    async def _poll(self, feed: Feed) -> None:
        try:
            async with self._polls:
                head = await self._store.head(feed.tenant, feed.log)
        except DecklogError:
            return  # the next poll may succeed; the store has logged why
        finally:
            feed.polling = False
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
