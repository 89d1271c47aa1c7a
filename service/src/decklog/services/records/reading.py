"""The reads of an auditor: lists, single records, statistics and exports.

Each call checks the permission, parses its own parameters, rejects unknown ones, and writes its access record before it
returns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import compress
from typing import Any
from weakref import WeakSet

import msgspec

from decklog.domain.errors import Code, DecklogError, unknown_parameter
from decklog.domain.identity.access import Principal, RequestContext
from decklog.domain.log import Head, LogName, Position, Span
from decklog.domain.records import projection
from decklog.domain.records.record import Outcome, StoredRecord
from decklog.domain.search.coverage import Coverage
from decklog.domain.search.order import NEWEST_FIRST, OLDEST_FIRST, Order
from decklog.domain.search.query import Query, describe
from decklog.domain.search.stats import BUCKETS_MAX, Bucket, Facet, Grouping, zero_filled
from decklog.domain.store import RecordStore
from decklog.domain.tenant import Tenant
from decklog.services.budget import Budget, Held
from decklog.services.processor import Processor
from decklog.services.records.access_log import EXPORT_OPEN, READ, SEARCH, STATS, AccessLog
from decklog.services.records.count_options import COUNT_PARAMETERS, CountOptions
from decklog.services.records.export import Export, Reader
from decklog.services.records.export_form import CONTENT_TYPES, EXPORT_PARAMETERS, Form
from decklog.services.records.integrity import LISTED_SHARE, NAMED_MAX, Read, damaged_of, record_damaged
from decklog.services.records.list_options import COUNTS, LIST_PARAMETERS, ListOptions, Parameters, choice, one, waited_for
from decklog.services.records.starting import newest_of, position_of, start_after
from decklog.services.records.views import View, Views
from decklog.services.sealing import Sealing
from decklog.services.search.highlighting import Highlighting
from decklog.services.search.matching import chars
from decklog.services.search.page import READING, READING_BYTES_MAX, ListQuery, Start, read_cursor, write_cursor
from decklog.services.search.search import Found, Search

EXPORTS_MAX, EXPORTS_PER_TENANT_MAX = 50, 8
"""Exports that one process serves at once; each holds a few batches of records."""

_SEQ_END = 2**63
_NO_TENANT = 0
_READ_SECONDS_MAX = 5.0


class Page(msgspec.Struct, frozen=True):
    """One page of a list.

    `next` is the cursor of the following page, or None after the last. `total` is the number of all matching records below the head
    of the coverage, where it was asked for. `position` is where an ascending list has got to, for `after`. `view` writes the records.
    `highlighted` is the query whose highlights were asked for, or None.
    """

    items: list[StoredRecord]
    next: str | None
    coverage: Coverage
    view: View
    total: int | None = None
    position: Position | None = None
    highlighted: Query | None = None


class Stats(msgspec.Struct, frozen=True):
    """Exact counts by a grouping, and by each facet alone, of what `view` shows."""

    view: View
    grouping: Grouping
    buckets: list[Bucket]
    total: int
    coverage: Coverage
    facets: list[Facet] = []


def _form(view: View) -> Form:
    """Return the form that an export is asked for. Raises `invalid-parameter`, and `invalid-query` for a hidden field."""
    parameters = view.parameters
    name = choice(parameters, "format", tuple(CONTENT_TYPES)) or next(iter(CONTENT_TYPES))
    named, bom = one(parameters, "fields"), choice(parameters, "bom", ("true", "false"))
    fields = () if named is None else projection.paths(named)
    view.require_fields(fields)
    return Form(name, fields or (view.fields if name == "csv" else ()), bom == "true")


def _asked(query: Query, options: ListOptions, start: Start | None) -> dict[str, Any]:
    """Return the details of a list's access record: what is the default is left out."""
    asked: dict[str, Any] = {"filter": describe(query), "limit": options.limit}
    if options.order != NEWEST_FIRST:
        asked["sort"] = str(options.order)
    if options.after is not None:
        asked["after"] = options.begins_after
    if options.counted:
        asked["count"] = "exact"
    if start is not None:
        asked["start"] = str(Position(start.epoch, start.time, start.seq))
    return asked


def _reached(found: Found, order: Order) -> Position | None:
    """Return the position up to which an ascending list has read the log."""
    if order != OLDEST_FIRST:
        return None
    return newest_of(found.coverage.head) if found.next is None else position_of(found.items[-1])


def _given(count: int, damaged: Sequence[int]) -> tuple[dict[str, Any], Outcome]:
    """Return details and outcome of a read: nothing is given where a record is damaged."""
    if damaged:
        return {"records": 0, "damaged": damaged[:NAMED_MAX]}, Outcome.FAILURE
    return {"records": count}, Outcome.SUCCESS


class Reading:
    """The reads of one process.

    `still_valid` returns, during an export, whether its credential is still valid. `checked_share` is the share of listed records
    that are compared with their digests. `processor` gives the slices in which answers are written, and `budget` accounts for the
    records that are held meanwhile; None for ones of its own. `sealing` seals the positions of viewers.
    """

    def __init__(
        self,
        search: Search,
        store: RecordStore,
        access_log: AccessLog,
        *,
        still_valid: Callable[[Principal], Awaitable[bool]] | None = None,
        checked_share: float = LISTED_SHARE,
        processor: Processor | None = None,
        budget: Budget | None = None,
        sealing: Sealing | None = None,
    ) -> None:
        self._views = Views(access_log, sealing)
        self._processor = processor or Processor()
        self.budget = budget or Budget(READING_BYTES_MAX, of=READING)
        self._checked_share = checked_share
        self._search = search
        self._store = store
        self._access_log = access_log
        self._still_valid = still_valid
        self._exports: WeakSet[Export] = WeakSet()

    def account(self, principal: Principal) -> Held:
        """Return an account for the bytes that one request of this principal holds. Use it as a context manager."""
        return self.budget.account(_NO_TENANT if principal.tenant is None else principal.tenant.id)

    async def rendered(
        self, tenant: Tenant, write: Callable[[StoredRecord], bytes], records: Sequence[StoredRecord]
    ) -> Sequence[bytes]:
        """Return records as `write` writes them, in slices of the tenant's processor time."""
        return await self._processor.map(tenant.id, write, records)

    async def highlights(self, tenant: Tenant, page: Page) -> Sequence[bytes] | None:
        """Return the highlights of each record of a page as JSON, None where they were not asked for. Raises `record-damaged`."""
        if page.highlighted is None:
            return None
        return await self._processor.map(tenant.id, Highlighting(page.highlighted), page.items, chars=chars)

    async def list(
        self, principal: Principal, request: RequestContext, parameters: Parameters, held: Held | None = None
    ) -> tuple[Tenant, LogName, Page]:
        """Return one page of the matching records. `held` accounts for them until its caller has sent them.

        Raises `search-unavailable`, `record-damaged`, `overloaded` and the errors of invalid parameters.
        """
        view = self._views.open(principal, parameters, LIST_PARAMETERS)
        tenant, log, query, parameters = view.tenant, view.log, view.query, view.parameters
        options = ListOptions.parse(parameters)
        view.require_order(options.order)
        listed = ListQuery(tenant, log, query, options.order, options.begins_after)
        start = None if options.cursor is None else read_cursor(options.cursor, listed)
        asked = _asked(query, options, start)
        async with self._failure_recorded(principal, request, SEARCH, view, asked):
            await self._wait(tenant, log, parameters)
            start = start or await self._start(tenant, log, options)
            found = await self._search.page(tenant, log, query, limit=options.limit, order=options.order, start=start, held=held)
            total = await self._total(tenant, log, query, found.coverage) if options.counted else None
            damaged = await damaged_of(found.items, tenant, log, Read.LIST, share=self._checked_share, processor=self._processor)
        given, outcome = _given(len(found.items), damaged)
        details = {**asked, **given, "engine": found.coverage.engine}
        await self._access_log.write(principal, request, SEARCH, resource=("log", log.text), details=details, outcome=outcome)
        if damaged:
            raise view.refusal(record_damaged(log, damaged))
        onwards = None if found.next is None else view.mark(write_cursor(found.next, listed))
        highlighted = query if options.highlighted else None
        page = Page(found.items, onwards, found.coverage, view, total, _reached(found, options.order), highlighted)
        return tenant, log, page

    async def _wait(self, tenant: Tenant, log: LogName, parameters: Parameters) -> None:
        """Wait as `wait` asks for. The answer is whole without it. Raises `invalid-parameter`."""
        seq = waited_for(parameters)
        if seq is not None:
            await self._search.wait(tenant, log, seq)

    async def _start(self, tenant: Tenant, log: LogName, options: ListOptions) -> Start | None:
        """Return where a list without a cursor begins, None for its beginning. Raises `invalid-parameter`."""
        if options.after is None:
            return None
        head = await self._store.head(tenant, log)
        position = await self._position(tenant, log, head, options.after)
        return Start(position.epoch, position.received_at, position.seq)

    async def _position(self, tenant: Tenant, log: LogName, head: Head, after: Position | int) -> Position:
        return await start_after(self._store, tenant, log, head, after, seconds=_READ_SECONDS_MAX)

    async def _between(self, tenant: Tenant, log: LogName, query: Query, span: Span) -> int:
        """Return how many records of a span match."""
        below = (await self._search.count(tenant, log, query, end=span.first)).total if span.first else 0
        return (await self._search.count(tenant, log, query, end=span.end)).total - below

    async def _total(self, tenant: Tenant, log: LogName, query: Query, coverage: Coverage) -> int:
        return (await self._search.count(tenant, log, query, end=coverage.head.next_seq)).total

    async def get(
        self, principal: Principal, request: RequestContext, seq: int, parameters: Parameters
    ) -> tuple[View, StoredRecord]:
        """Return the record with this number, and the view that writes it.

        Raises:
            DecklogError: `not-found` and `record-damaged`, after the request was recorded; `invalid-query` where `seq` is hidden.
        """
        view = self._views.open(principal, parameters)
        tenant, log = view.tenant, view.log
        for name, _ in parameters:
            if name != "log":
                raise unknown_parameter(name, "log")
        view.require_fields(("seq",))
        asked = {"seq": str(seq)[:40]}
        async with self._failure_recorded(principal, request, READ, view, asked):
            found = await self._fetched(view, seq)
            damaged = await damaged_of(found, tenant, log, Read.SINGLE, processor=self._processor)
        given, outcome = _given(len(found), damaged)
        outcome = outcome if found else Outcome.FAILURE
        await self._access_log.write(
            principal, request, READ, resource=("log", log.text), details={**asked, **given}, outcome=outcome
        )
        if damaged:
            raise view.refusal(record_damaged(log, damaged))
        if not found:
            raise DecklogError(
                Code.NOT_FOUND,
                f"The log {log.text!r} has no record {str(seq)[:40]}: not yet, or not within its retention any more.",
            )
        return view, found[0]

    async def _fetched(self, view: View, seq: int) -> Sequence[StoredRecord]:
        """Return the record with this number if it satisfies the query of the view."""
        found = await self._store.fetch(view.tenant, view.log, [seq]) if 0 <= seq < _SEQ_END else []
        if view.query.empty:
            return found
        visible = await self._processor.map(view.tenant.id, view.has, found, chars=chars)
        return list(compress(found, visible))

    async def stats(self, principal: Principal, request: RequestContext, parameters: Parameters) -> Stats:
        """Return counts by `by` and `interval`, and by each of `facets`. Raises `too-many-buckets` and `search-unavailable`."""
        view = self._views.open(principal, parameters, COUNT_PARAMETERS)
        tenant, log, query = view.tenant, view.log, view.query
        options = CountOptions.parse(parameters)
        grouping, facets = options.grouping, options.facets
        view.require_countable((*grouping.by, *facets), grouping.interval)
        asked: dict[str, Any] = {"filter": describe(query), "by": list(grouping.by), "interval": grouping.interval}
        if facets:
            asked["facets"] = list(facets)
        async with self._failure_recorded(principal, request, STATS, view, asked):
            await self._wait(tenant, log, parameters)
            counted = await self._search.count(tenant, log, query, grouping, facets=facets, top=options.top)
            buckets = counted.buckets
            if options.zero_filled:
                buckets = zero_filled(buckets, grouping, query.since, query.until, limit=BUCKETS_MAX)
        details = {**asked, "buckets": len(buckets), "engine": counted.coverage.engine}
        await self._access_log.write(principal, request, STATS, resource=("log", log.text), details=details)
        return Stats(view, grouping, buckets, counted.total, counted.coverage, counted.facets)

    async def export(self, principal: Principal, request: RequestContext, parameters: Parameters) -> Export:
        """Begin an export of the matching records that are stored now. Its opening is recorded before this returns.

        Raises `overloaded` where too many exports run, or where they would hold too many bytes.
        """
        view = self._views.open(principal, parameters, EXPORT_PARAMETERS)
        tenant, log, query, parameters = view.tenant, view.log, view.query, view.parameters
        form, after = _form(view), one(parameters, "after")
        place = None if after is None else Position.parse(after)
        counted = choice(parameters, "count", COUNTS) == "exact"
        asked = {"filter": describe(query), "format": form.format, **({} if after is None else {"after": str(place)})}
        async with self._failure_recorded(principal, request, EXPORT_OPEN, view, asked):
            await self._wait(tenant, log, parameters)
            head = await self._store.head(tenant, log)
            first = 0 if place is None else (await self._position(tenant, log, head, place)).seq + 1
            total = await self._between(tenant, log, query, Span(first, head.next_seq)) if counted else None
        running = [export for export in self._exports if not export.finished]
        if len(running) >= EXPORTS_MAX or sum(export.tenant.id == tenant.id for export in running) >= EXPORTS_PER_TENANT_MAX:
            raise DecklogError(Code.OVERLOADED, "Too many exports run at once. Try again when one has ended.", retry_after=5)
        reader = Reader(principal, request, view, form, head, first, asked, total)
        export = Export(
            self._search,
            self._access_log,
            reader,
            processor=self._processor,
            held=self.account(principal),
            still_valid=self._still_valid,
        )
        self._exports.add(export)
        try:
            await self._access_log.write(principal, request, EXPORT_OPEN, resource=("log", log.text), details=reader.details())
        except BaseException:
            export.finished = True  # nothing was delivered, so there is no end to record
            await export.aclose()
            raise
        return export

    @asynccontextmanager
    async def _failure_recorded(
        self, principal: Principal, request: RequestContext, action: str, view: View, asked: dict[str, Any]
    ) -> AsyncIterator[None]:
        """Write an access record where a query fails after it began to read, so that no attempt goes unrecorded.

        Raises the error as the view shows it.
        """
        try:
            yield
        except BaseException as error:
            code = error.code.value if isinstance(error, DecklogError) else Code.INTERNAL.value
            await self._access_log.write_late(
                principal,
                request,
                action,
                resource=("log", view.log.text),
                details={**asked, "records": 0, "code": code},
                outcome=Outcome.FAILURE,
            )
            view.raise_refusal(error)
            raise
