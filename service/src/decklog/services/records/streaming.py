"""Watching a log grow: one shared reader for each log, and as many subscribers as are allowed, each at its own pace.

What is new is read from the store once and kept in a bounded ring. A subscriber takes from the ring, or from the store
where it is behind the ring, so a slow one is neither dropped nor buffered for, and none misses or doubles a record.
Announcements only wake the reader; the numbers they carry are not believed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence

import msgspec
import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, RequestContext
from decklog.domain.log import Head, LogName, Position, Span
from decklog.domain.records.record import Outcome, StoredRecord
from decklog.domain.search.query import Query, matches, parse
from decklog.domain.search.terms import Terms
from decklog.domain.store import Announcements, RecordStore
from decklog.domain.tenant import State, Tenant
from decklog.services.records.access_log import STREAM_CLOSE, STREAM_OPEN, AccessLog, filters
from decklog.services.search.matching import Matcher, terms_of

RING_RECORDS_MAX = 2_000
RINGS_CHARS_MAX = 64 * 1024 * 1024
"""Characters of content in all rings of a process together; each log gets its share."""
_TERMS_CHARS_MAX = 4 * 1024 * 1024
"""Characters of content whose terms are kept; terms are about ten times as big."""
_READ_ROWS = 250
"""Rows that a shared reader takes at once."""
_BACKLOG_ROWS = 100
"""Rows that a subscriber behind the ring holds at most."""
_BACKLOG_SEQS = 100_000
"""Numbers that one statement for such a subscriber spans, so that a rare match cannot make it long."""
_BACKLOG_READS_MAX = _POLLS_MAX = 4
"""Readings for subscribers behind their rings at once, and looks at heads, so that a crowd of them leaves connections for others."""
_READ_TIMEOUT = 30.0
_RETRY_SECONDS = 1.0
"""Between readings of a store that does not answer. Streams wait for it; they are not ended."""
_TURN = 64
"""Records that a subscriber looks at without waiting before others get a turn."""
_NO_END = 2**62

_log = structlog.get_logger("decklog.streaming")


class Limits(msgspec.Struct, frozen=True):
    """Open streams of one process; seconds between heartbeats and between looks at what may have been lost or withdrawn."""

    streams_max: int = 1_000
    heartbeat: float = 15.0
    poll: float = 1.0


class Event(msgspec.Struct, frozen=True):
    """A record, or a heartbeat where `record` is None. Everything up to `position` that matches has been given; a
    stream opened with `after` set to it goes on from there. Its `seq` is -1 where the log is empty."""

    position: Position
    record: StoredRecord | None


class _RecentTerms:
    """Terms of the newest records, made once for all subscribers that filter; bounded by what they are made of."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, LogName, int], tuple[Terms, int]] = {}
        self._size = 0

    def of(self, feed: _Feed, record: StoredRecord) -> Terms:
        key = (feed.tenant.id, feed.log, record.seq)
        if (known := self._kept.get(key)) is not None:
            return known[0]
        found = terms_of(record)
        self._kept[key] = (found, len(record.content))
        self._size += len(record.content)
        while self._size > _TERMS_CHARS_MAX and len(self._kept) > 1:
            _, size = self._kept.pop(next(iter(self._kept)))
            self._size -= size
        return found


def _position(record: StoredRecord) -> Position:
    return Position(record.epoch, record.received_at, record.seq)


class _Feed:
    """The shared reader of one log: a ring of its newest records, `first <= seq < end`."""

    def __init__(self, tenant: Tenant, log: LogName, head: Head) -> None:
        self.tenant = tenant
        self.log = log
        self.epoch = head.epoch
        self.end = head.next_seq
        self.last = Position(head.epoch, head.received_at, head.next_seq - 1)
        self.ring: deque[StoredRecord] = deque()
        self.size = 0
        self.subscribers: set[Subscription] = set()
        self.wake = asyncio.Event()
        self.polling = False
        self.task: asyncio.Task[None] | None = None

    @property
    def key(self) -> tuple[int, LogName]:
        return self.tenant.id, self.log

    @property
    def first(self) -> int:
        return self.end - len(self.ring)

    def add(self, records: Sequence[StoredRecord]) -> None:
        """Put what follows into the ring and wake the subscribers."""
        for record in records:
            if record.seq != self.end:
                # Not what follows: whoever needs what is between reads it from the store.
                self.ring.clear()
                self.size = 0
            self.ring.append(record)
            self.size += len(record.content)
            self.end = record.seq + 1
            self.last = _position(record)
        for subscription in self.subscribers:
            subscription.changed.set()

    def trim(self, size_max: int) -> None:
        """Let go of the oldest records beyond the bounds."""
        while len(self.ring) > RING_RECORDS_MAX or (self.size > size_max and len(self.ring) > 1):
            self.size -= len(self.ring.popleft().content)


class Streams:
    """The open streams of one process. `tenant_now` gives a tenant as the registry knows it now, to say why a stream ends."""

    def __init__(
        self,
        store: RecordStore,
        announcements: Announcements,
        access_log: AccessLog,
        *,
        still_valid: Callable[[Principal], bool],
        tenant_now: Callable[[int], Tenant | None] = lambda _: None,
        limits: Limits | None = None,
    ) -> None:
        self._store = store
        self._announcements = announcements
        self._access_log = access_log
        self._still_valid = still_valid
        self._tenant_now = tenant_now
        self._limits = limits or Limits()
        self._feeds: dict[tuple[int, LogName], _Feed] = {}
        self._open: set[Subscription] = set()
        self._reserved: Counter[int] = Counter()
        self._backlog = asyncio.Semaphore(_BACKLOG_READS_MAX)
        self._polls = asyncio.Semaphore(_POLLS_MAX)
        self.recent_terms = _RecentTerms()
        self._watch: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._stopping = False

    async def start(self) -> None:
        self._unsubscribe = self._announcements.subscribe(self._hear)
        self._watch = asyncio.create_task(self._look_after(), name="streams")

    async def stop(self) -> None:
        """End every stream; clients come back to another process."""
        self._stopping = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        for subscription in tuple(self._open):
            subscription.end(_stopping())
        tasks = [task for task in (self._watch, *(feed.task for feed in self._feeds.values())) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def count(self) -> int:
        """Streams that are open."""
        return len(self._open)

    async def open(
        self, principal: Principal, request: RequestContext, parameters: Sequence[tuple[str, str]], after: str | None = None
    ) -> Subscription:
        """Follow a log from after a position or number (-1 is before the first), else from now on. Recorded before it
        returns; `aclose` the subscription, which is recorded too.

        Raises `invalid-parameter` for a place that the log does not have any more or not yet, and `too-many-streams`.
        """
        tenant = self._access_log.admit(principal)
        log, query = parse(parameters, others=("after",))
        place = None if after is None else Position.parse(after)
        self._reserve(tenant)
        try:
            head = await self._store.head(tenant, log)
            start = await self._start(tenant, log, head, place)
            await self._access_log.write(
                principal,
                request,
                STREAM_OPEN,
                resource=("log", log.text),
                details={"filter": filters(query), "after": str(start)},
            )
            if self._stopping:
                raise _stopping()
            feed = self._feed(tenant, log, head)
        except BaseException:
            self._release(tenant.id)
            raise
        subscription = Subscription(self, feed, principal, request, query=query, start=start)
        feed.subscribers.add(subscription)
        self._open.add(subscription)
        return subscription

    def _reserve(self, tenant: Tenant) -> None:
        mine, all_ = tenant.limits.streams, self._limits.streams_max
        if self._reserved[tenant.id] >= mine:
            why = f"The tenant {tenant.name!r} may have {mine} streams open in each process, and has {self._reserved[tenant.id]} here."
        elif self._reserved.total() >= all_:
            why = f"This process has {all_} streams open already."
        else:
            self._reserved[tenant.id] += 1
            return
        raise DecklogError(Code.TOO_MANY_STREAMS, f"{why} Close one, or try again later.", retry_after=5)

    def _release(self, tenant_id: int) -> None:
        self._reserved[tenant_id] -= 1
        if not self._reserved[tenant_id]:
            del self._reserved[tenant_id]

    # -- where to begin

    async def _start(self, tenant: Tenant, log: LogName, head: Head, after: Position | int | None) -> Position:
        """The exact position to begin after. Raises `invalid-parameter` where something would be missed or mistaken."""
        newest = Position(head.epoch, head.received_at, head.next_seq - 1)
        if after is None:
            return newest
        seq = after if isinstance(after, int) else after.seq
        if seq > newest.seq:
            why = f"the log {log.text!r} has no record {seq}; its newest is {newest.seq}."
            if isinstance(after, Position) and after.epoch != head.epoch:
                why += f" It has been restored since (epoch {head.epoch}, not {after.epoch})."
            raise _misplaced(why)
        for record in await self._store.fetch(tenant, log, [seq]) if seq >= 0 else ():
            if isinstance(after, Position) and (record.epoch, record.received_at) != (after.epoch, after.received_at):
                raise _misplaced(
                    f"record {seq} is not the one that this position means, as the log has been restored since: it is "
                    f"{_position(record)} now. Compare what you have, and go on after that."
                )
            return _position(record)
        return await self._start_of_retention(tenant, log, newest, seq)

    async def _start_of_retention(self, tenant: Tenant, log: LogName, newest: Position, seq: int) -> Position:
        """The position before the oldest record there is, where that is what follows `seq` or all is wanted (-1)."""
        records, _ = await self._store.read(
            tenant, log, Span(0, newest.seq + 1), query=Query(), limit=1, newest_first=False, timeout=_READ_TIMEOUT
        )
        start = _position(records[0]) if records else Position(newest.epoch, newest.received_at, newest.seq + 1)
        start = msgspec.structs.replace(start, seq=start.seq - 1)
        if seq not in (-1, start.seq):
            raise _misplaced(
                f"the records after {seq} are not within retention any more. Go on after {start.seq}, or after -1 for all there is."
            )
        return start

    # -- the shared readers

    def _feed(self, tenant: Tenant, log: LogName, head: Head) -> _Feed:
        feed = self._feeds.get((tenant.id, log))
        if feed is None:
            feed = self._feeds[tenant.id, log] = _Feed(tenant, log, head)
            feed.wake.set()  # something may have come since the head was read
            feed.task = asyncio.create_task(self._keep_reading(feed), name=f"stream reader {tenant.name} {log.text}")
            for other in self._feeds.values():
                other.trim(RINGS_CHARS_MAX // len(self._feeds))
        return feed

    def _hear(self, tenant_id: int, log: LogName, next_seq: int) -> None:
        feed = self._feeds.get((tenant_id, log))
        if feed is not None and next_seq > feed.end:
            feed.wake.set()

    async def _keep_reading(self, feed: _Feed) -> None:
        while self._feeds.get(feed.key) is feed:
            await feed.wake.wait()
            feed.wake.clear()
            try:
                await self._read_new(feed)
            except Exception as error:  # noqa: BLE001 - a reader that ended would leave its streams silent for ever
                _log.warning(
                    "a stream's log cannot be read", tenant=feed.tenant.name, log=feed.log.text, reason=repr(error)[:300]
                )
                await asyncio.sleep(_RETRY_SECONDS)
                feed.wake.set()

    async def _read_new(self, feed: _Feed) -> None:
        onwards: int | None = feed.end
        while onwards is not None:
            records, onwards = await self._store.read(
                feed.tenant,
                feed.log,
                Span(feed.end, _NO_END),
                query=Query(),
                limit=_READ_ROWS,
                newest_first=False,
                timeout=_READ_TIMEOUT,
            )
            if any(record.epoch != feed.epoch for record in records):
                self._restored(feed)
                return
            feed.add(records)
            feed.trim(RINGS_CHARS_MAX // len(self._feeds))

    def _restored(self, feed: _Feed) -> None:
        for subscription in tuple(feed.subscribers):
            subscription.end(
                DecklogError(
                    Code.STORAGE_UNAVAILABLE,
                    "The log has been restored, and its numbers are used again. Connect again.",
                    retry_after=1,
                )
            )
        self._drop(feed)

    def _drop(self, feed: _Feed) -> None:
        if self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]
        if feed.task is not None and feed.task is not asyncio.current_task():
            feed.task.cancel()

    # -- what may have been lost or withdrawn

    async def _look_after(self) -> None:
        """Every second at least: end what is no longer allowed, wake for heartbeats, look at heads in case news was lost."""
        period = min(self._limits.poll, self._limits.heartbeat, 1.0)
        polls: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(period)
            now = asyncio.get_running_loop().time()
            for subscription in tuple(self._open):
                if (refusal := self._refusal(subscription.principal)) is not None:
                    subscription.end(refusal)
                elif now >= subscription.heartbeat_at:
                    subscription.changed.set()
            for feed in self._feeds.values():
                if not feed.polling:
                    feed.polling = True
                    task = asyncio.create_task(self._poll(feed))
                    polls.add(task)
                    task.add_done_callback(polls.discard)

    def _refusal(self, principal: Principal) -> DecklogError | None:
        """Why this principal's streams must end, or None."""
        try:
            if self._still_valid(principal):
                return None
            tenant = None if principal.tenant is None else self._tenant_now(principal.tenant.id)
        except DecklogError as error:
            return error  # it cannot be known: the registry is stale
        if tenant is not None and tenant.state is State.SUSPENDED:
            return DecklogError(Code.TENANT_SUSPENDED, f"The tenant {tenant.name!r} was suspended. Its data is kept.")
        return DecklogError(Code.UNAUTHENTICATED, "The credential was revoked or has expired.")

    async def _poll(self, feed: _Feed) -> None:
        try:
            async with self._polls:
                head = await self._store.head(feed.tenant, feed.log)
        except DecklogError:
            return  # the next look may succeed; the store has logged why
        finally:
            feed.polling = False
        if head.epoch != feed.epoch:
            self._restored(feed)
        elif head.next_seq > feed.end:
            feed.wake.set()

    # -- for subscriptions

    async def read_backlog(self, subscription: Subscription) -> tuple[list[StoredRecord], int]:
        """Records behind the ring that columns let through, and the number from which to go on."""
        feed, first = subscription.feed, subscription.next_seq
        end = min(feed.end, first + _BACKLOG_SEQS)
        try:
            async with self._backlog:
                records, onwards = await self._store.read(
                    feed.tenant,
                    feed.log,
                    Span(first, end),
                    query=subscription.matcher.query,
                    limit=_BACKLOG_ROWS,
                    newest_first=False,
                    timeout=_READ_TIMEOUT,
                )
        except DecklogError as error:
            _log.warning("a stream waits for the store", tenant=feed.tenant.name, log=feed.log.text, code=error.code.value)
            await asyncio.sleep(_RETRY_SECONDS)
            return [], first
        return records, end if onwards is None else onwards

    async def close(self, subscription: Subscription, outcome: Outcome) -> None:
        """Forget a subscription and record its end."""
        if subscription not in self._open:
            return
        self._open.discard(subscription)
        feed = subscription.feed
        feed.subscribers.discard(subscription)
        if not feed.subscribers:
            self._drop(feed)
        self._release(feed.tenant.id)
        await self._access_log.write_late(
            subscription.principal,
            subscription.request,
            STREAM_CLOSE,
            resource=("log", feed.log.text),
            details={"filter": filters(subscription.matcher.query), "records": subscription.given},
            outcome=outcome,
        )

    def next_heartbeat(self) -> float:
        return asyncio.get_running_loop().time() + self._limits.heartbeat


def _misplaced(why: str) -> DecklogError:
    return DecklogError(Code.INVALID_PARAMETER, f"after: {why}", extra={"parameter": "after"})


def _stopping() -> DecklogError:
    return DecklogError(Code.OVERLOADED, "This process is stopping. Connect again.", retry_after=1)


class Subscription:
    """One stream: an async iterator of events that never ends by itself. For one task at a time.

    Iterating raises why the stream ends: `unauthenticated`, `tenant-suspended`, `registry-stale`, `overloaded` (this
    process stops) or `storage-unavailable` (the log was restored). `ended` is set at that moment, for an edge that is
    stuck in sending. Waiting may be cancelled and taken up again without losing anything.
    """

    def __init__(
        self, streams: Streams, feed: _Feed, principal: Principal, request: RequestContext, *, query: Query, start: Position
    ) -> None:
        self.tenant = feed.tenant
        self.log = feed.log
        self.principal = principal
        self.request = request
        self.feed = feed
        self.matcher = Matcher(query)
        self.next_seq = start.seq + 1
        self.reached = start
        self.given = 0
        self.changed = asyncio.Event()
        self.ended = asyncio.Event()
        self.heartbeat_at = streams.next_heartbeat()
        self._streams = streams
        self._held: deque[StoredRecord] = deque()
        self._looked_at = 0
        self._error: DecklogError | None = None

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while True:
            if self._error is not None:
                raise self._error
            self.changed.clear()
            if self._looked_at >= _TURN:
                self._looked_at = 0
                await asyncio.sleep(0)
                event = self._heartbeat(self.reached)
            elif self._held:
                event = self._consider(self._held.popleft())
            elif self.next_seq >= self.feed.end:
                event = self._heartbeat(self.feed.last if self.next_seq == self.feed.end else self.reached)
                if event is None and self._error is None:
                    await self.changed.wait()
            elif self.next_seq < self.feed.first:
                records, self.next_seq = await self._streams.read_backlog(self)
                self._held.extend(records)
                event = self._heartbeat(self.reached) if not records else None
            else:
                record = self.feed.ring[self.next_seq - self.feed.first]
                self.next_seq += 1
                event = self._consider(record)
            if event is not None:
                self.heartbeat_at = self._streams.next_heartbeat()
                return event

    def _consider(self, record: StoredRecord) -> Event | None:
        self._looked_at += 1
        self.reached = _position(record)
        if not self._matches(record):
            return None
        self.given += 1
        return Event(self.reached, record)

    def _matches(self, record: StoredRecord) -> bool:
        if self.matcher.query.empty:
            return True
        return self.matcher.possible(record) and matches(self.matcher.query, self._streams.recent_terms.of(self.feed, record))

    def _heartbeat(self, reached: Position) -> Event | None:
        self.reached = reached
        return Event(reached, None) if asyncio.get_running_loop().time() >= self.heartbeat_at else None

    def end(self, error: DecklogError) -> None:
        """Let the stream end with this refusal, the first one that is given."""
        if self._error is None:
            self._error = error
            self.ended.set()
            self.changed.set()

    async def aclose(self) -> None:
        """Close the stream and record its end with the number of records given; may be called again."""
        refused = self._error is not None and self._error.code in (Code.UNAUTHENTICATED, Code.TENANT_SUSPENDED)
        outcome = Outcome.DENIED if refused else Outcome.SUCCESS if self._error is None else Outcome.FAILURE
        await self._streams.close(self, outcome)
