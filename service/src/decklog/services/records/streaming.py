"""Streams of a log as it grows: who may open one, where it begins, what it delivers and why it ends.

Records come from the shared readers of `feeds`; each stream has its own pace.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, RequestContext
from decklog.domain.log import Head, Position
from decklog.domain.records.record import Outcome, StoredRecord
from decklog.domain.search.query import describe, matches
from decklog.domain.store import Announcements, RecordStore
from decklog.domain.tenant import State, Tenant
from decklog.services.budget import Budget
from decklog.services.processor import Processor
from decklog.services.records.access_log import STREAM_CLOSE, STREAM_OPEN, AccessLog
from decklog.services.records.feeds import (
    BACKLOG_BYTES,
    LIGHT_CHARS,
    READ_SECONDS_MAX,
    RETRY_SECONDS,
    Feed,
    Feeds,
    RecentTerms,
)
from decklog.services.records.list_options import one
from decklog.services.records.starting import position_of, start_after
from decklog.services.records.views import AFTER, View, Views
from decklog.services.sealing import Sealing
from decklog.services.search.matching import Matcher, chars
from decklog.services.search.page import READING, READING_BYTES_MAX

TURN_RECORDS = 64
"""Records that a stream examines without waiting before other streams get a turn."""


class Limits(msgspec.Struct, frozen=True):
    """Limits of one process: open streams, seconds between heartbeats, and seconds between polls of heads and credentials."""

    streams_max: int = 1_000
    heartbeat: float = 15.0
    poll: float = 1.0


class Event(msgspec.Struct, frozen=True):
    """A record, or a heartbeat where `record` is None.

    Every match up to `position` has been delivered; a stream opened with `after` set to it continues there. The `seq` of
    the position is -1 where the log is empty.
    """

    position: Position
    record: StoredRecord | None


class Streams:
    """The open streams of one process.

    Args:
        store: Holds the records.
        announcements: Wake the readers.
        access_log: Records the opening and the end of each stream.
        still_valid: Returns whether a credential would still be accepted; raises `registry-stale`.
        tenant_now: Returns a tenant by its key as the registry has it now, to explain why a stream ends.
        limits: Limits of this process.
        processor: The slices in which records are matched; None for ones of its own.
        budget: Accounts for the records that streams hold; None for one of its own.
        sealing: Seals the positions of viewers; None for one of its own.
    """

    def __init__(
        self,
        store: RecordStore,
        announcements: Announcements,
        access_log: AccessLog,
        *,
        still_valid: Callable[[Principal], Awaitable[bool]],
        tenant_now: Callable[[int], Awaitable[Tenant | None]],
        limits: Limits | None = None,
        processor: Processor | None = None,
        budget: Budget | None = None,
        sealing: Sealing | None = None,
    ) -> None:
        self._views = Views(access_log, sealing)
        self._store = store
        self._announcements = announcements
        self._access_log = access_log
        self._still_valid = still_valid
        self._tenant_now = tenant_now
        self._limits = limits or Limits()
        self._open: set[Subscription] = set()
        self._reserved: Counter[int] = Counter()
        self._watch: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._stopping = False
        self.processor = processor or Processor()
        self.feeds = Feeds(store, self.processor)
        self.budget = budget or Budget(READING_BYTES_MAX, of=READING)
        self.recent_terms = RecentTerms(self.processor)

    async def start(self) -> None:
        """Begin to receive announcements and to watch over open streams."""
        self._unsubscribe = self._announcements.subscribe(self.feeds.announced)
        self._watch = asyncio.create_task(self._keep_watch(), name="streams")

    async def stop(self) -> None:
        """End every stream with `overloaded`; clients connect again to another process."""
        self._stopping = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        for subscription in tuple(self._open):
            subscription.end(_stopping())
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self.feeds.stop()

    @property
    def count(self) -> int:
        """Number of open streams."""
        return len(self._open)

    async def open(
        self, principal: Principal, request: RequestContext, parameters: Sequence[tuple[str, str]], after: str | None = None
    ) -> Subscription:
        """Open a stream, which is recorded before this returns. The caller must `aclose` it.

        Args:
            principal: Whose credential was verified.
            request: Goes into the access record.
            parameters: Filters of a search, and `log`.
            after: Position or number to begin after (-1 is before the first record); None begins with what is stored from
                now on.

        Raises:
            DecklogError: `invalid-parameter` for a position that is not in the log any more or not yet,
                `too-many-streams`, and what the access log raises.
        """
        view = self._views.open(principal, [*parameters, *([] if after is None else [(AFTER, after)])], (AFTER,))
        tenant, log, query, after = view.tenant, view.log, view.query, one(view.parameters, AFTER)
        place = None if after is None else Position.parse(after)
        self._reserve(tenant)
        try:
            head = await self._store.head(tenant, log)
            start = await self._start(view, head, place)
            await self._access_log.write(
                principal,
                request,
                STREAM_OPEN,
                resource=("log", log.text),
                details={"filter": describe(query), "after": str(start)},
            )
            if self._stopping:
                raise _stopping()
            feed = self.feeds.of(tenant, log, head)
        except BaseException:
            self._release(tenant.id)
            raise
        subscription = Subscription(self, feed, principal, request, view=view, start=start)
        feed.subscribers.add(subscription)
        self._open.add(subscription)
        return subscription

    async def _start(self, view: View, head: Head, place: Position | int | None) -> Position:
        """Return the position that a stream begins after. Raises `invalid-parameter` as the view shows it."""
        try:
            return await start_after(self._store, view.tenant, view.log, head, place, seconds=READ_SECONDS_MAX)
        except DecklogError as error:
            view.raise_refusal(error)
            raise

    async def close(self, subscription: Subscription, outcome: Outcome) -> None:
        """Forget a stream and record its end. Does nothing for a stream that is closed already."""
        if subscription not in self._open:
            return
        self._open.discard(subscription)
        feed = subscription.feed
        self.feeds.leave(feed, subscription)
        self._release(feed.tenant.id)
        subscription.held.give(subscription.held.held)
        await self._access_log.write_late(
            subscription.principal,
            subscription.request,
            STREAM_CLOSE,
            resource=("log", feed.log.text),
            details={
                "filter": describe(subscription.matcher.query),
                "records": subscription.given,
                **subscription.ending,
            },
            outcome=outcome,
        )

    def next_heartbeat(self) -> float:
        """Return when a stream that delivers something now needs a heartbeat, by the event loop's clock."""
        return asyncio.get_running_loop().time() + self._limits.heartbeat

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

    async def _keep_watch(self) -> None:
        """End streams that are no longer allowed, wake those that need a heartbeat, and poll heads; every second at least."""
        period = min(self._limits.poll, self._limits.heartbeat, 1.0)
        while True:
            await asyncio.sleep(period)
            now = asyncio.get_running_loop().time()
            for subscription in tuple(self._open):
                if (refusal := await self._refusal(subscription.principal)) is not None:
                    subscription.end(refusal)
                elif now >= subscription.heartbeat_at:
                    subscription.changed.set()
            self.feeds.poll()

    async def _refusal(self, principal: Principal) -> DecklogError | None:
        """Return why this principal's streams must end, or None."""
        try:
            if await self._still_valid(principal):
                return None
            tenant = None if principal.tenant is None else await self._tenant_now(principal.tenant.id)
        except DecklogError as error:
            return error  # the registry is stale, so permissions are unknown
        if tenant is not None and tenant.state is State.SUSPENDED:
            return DecklogError(Code.TENANT_SUSPENDED, f"The tenant {tenant.name!r} was suspended. Its data is kept.")
        return DecklogError(Code.UNAUTHENTICATED, "The credential was revoked or has expired.")


def _stopping() -> DecklogError:
    return DecklogError(Code.OVERLOADED, "This process is stopping. Connect again.", retry_after=1)


class Subscription:
    """One stream: an async iterator of events without an end of its own. One task at a time may iterate.

    Iterating raises the reason of the end: `unauthenticated`, `tenant-suspended`, `registry-stale`, `overloaded` (the
    process stops) or `storage-unavailable` (the log was restored). `ended` is set at that moment, for an edge that is
    blocked in sending. An iteration may be cancelled and repeated without losing an event.
    """

    def __init__(
        self, streams: Streams, feed: Feed, principal: Principal, request: RequestContext, *, view: View, start: Position
    ) -> None:
        self.view = view
        self.tenant = feed.tenant
        self.log = feed.log
        self.principal = principal
        self.request = request
        self.feed = feed
        self.matcher = Matcher(view.query)
        self.next_seq = start.seq + 1
        self.reached = start
        self.given = 0
        self.changed = asyncio.Event()
        self.ended = asyncio.Event()
        self.heartbeat_at = streams.next_heartbeat()
        self._streams = streams
        self.held = streams.budget.account(feed.tenant.id)
        self._write = view.writer()
        self._backlog: deque[StoredRecord] = deque()
        self._examined = 0
        self._error: DecklogError | None = None

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while True:
            if self._error is not None:
                raise self.view.refusal(self._error)
            event = await self._step()
            if event is not None:
                self.heartbeat_at = self._streams.next_heartbeat()
                return event

    async def rendered(self, record: StoredRecord) -> str:
        """Return a record as this stream gives it: a JSON object on one line."""
        if self.view.fields and len(record.content) >= LIGHT_CHARS:
            [written] = await self._streams.processor.map(self.tenant.id, self._write, [record], chars=chars)
            return written
        return self._write(record)

    async def _step(self) -> Event | None:
        """Examine the next record, read the backlog, or wait; return an event where there is one to deliver."""
        self.changed.clear()
        if self._examined >= TURN_RECORDS:
            self._examined = 0
            await asyncio.sleep(0)
            return self._heartbeat(self.reached)
        if self._backlog:
            return await self._examine_backlog()
        if self.next_seq >= self.feed.end:
            event = self._heartbeat(self.feed.last if self.next_seq == self.feed.end else self.reached)
            if event is None and self._error is None:
                await self.changed.wait()
            return event
        if self.next_seq < self.feed.first:
            await self._read_backlog()
            return None if self._backlog else self._heartbeat(self.reached)
        record = self.feed.ring[self.next_seq - self.feed.first]
        matched = await self._matches(record)
        self.next_seq = record.seq + 1
        return self._examined_one(record, matched=matched)

    async def _read_backlog(self) -> None:
        """Read what follows behind the ring; nothing, after a pause, where the tenant holds too many bytes already."""
        if not self.held.fits(BACKLOG_BYTES):
            await asyncio.sleep(RETRY_SECONDS)
            return
        self.held.take(BACKLOG_BYTES)
        try:
            query = self.matcher.query
            records, self.next_seq = await self._streams.feeds.read_backlog(self.feed, query, self.next_seq)
            self._backlog.extend(records)
        except DecklogError as error:
            self.end(error)
        finally:
            if not self._backlog:
                self.held.give(BACKLOG_BYTES)

    async def _examine_backlog(self) -> Event | None:
        record = self._backlog[0]
        matched = await self._matches(record)
        self._backlog.popleft()
        if not self._backlog:
            self.held.give(BACKLOG_BYTES)
        return self._examined_one(record, matched=matched)

    def _examined_one(self, record: StoredRecord, *, matched: bool) -> Event | None:
        self._examined += 1
        self.reached = position_of(record)
        if not matched:
            return None
        self.given += 1
        return Event(self.reached, record)

    async def _matches(self, record: StoredRecord) -> bool:
        """Return whether a record matches. It may be cancelled and repeated: nothing has moved on meanwhile."""
        matcher, streams = self.matcher, self._streams
        if matcher.query.empty:
            return True
        if len(record.content) < LIGHT_CHARS:
            possible = matcher.possible(record)
        else:
            [possible] = await streams.processor.map(self.tenant.id, matcher.possible, [record])
        return possible and matches(matcher.query, await streams.recent_terms.of(self.feed, record, matcher.query))

    def _heartbeat(self, reached: Position) -> Event | None:
        self.reached = reached
        return Event(reached, None) if asyncio.get_running_loop().time() >= self.heartbeat_at else None

    @property
    def ending(self) -> dict[str, str]:
        """The code of the error that ended the stream, as its access record has it; nothing where its client left."""
        return {} if self._error is None else {"code": self._error.code.value}

    def end(self, error: DecklogError) -> None:
        """End the stream with this error. The first error wins."""
        if self._error is None:
            self._error = error
            self.ended.set()
            self.changed.set()

    async def aclose(self) -> None:
        """Close the stream and record its end with the number of records delivered; may be repeated."""
        refused = self._error is not None and self._error.code in (Code.UNAUTHENTICATED, Code.TENANT_SUSPENDED)
        outcome = Outcome.DENIED if refused else Outcome.SUCCESS if self._error is None else Outcome.FAILURE
        await self._streams.close(self, outcome)
