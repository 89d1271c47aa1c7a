"""`SearchIndex` over OpenSearch: finds sequence numbers and counts, in one tenant's part of an index.

The filters are those of `domain/search/query.py` and the values those of `domain/search/terms.py`; this module only translates them.
Every request must use `_scope`, the one place that adds tenant and log, so a search in a shared index never leaves its tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from opensearchpy import AsyncOpenSearch

from decklog.domain.index_generation import IndexGeneration
from decklog.domain.log import LogName, Span, from_microseconds, microseconds
from decklog.domain.search.calendar import starts_from
from decklog.domain.search.decided import UndecidedError
from decklog.domain.search.fields import COUNTABLE
from decklog.domain.search.order import Place
from decklog.domain.search.query import Query
from decklog.domain.search.stats import Bucket, Grouping, too_many_buckets
from decklog.domain.store import SearchDocument
from decklog.domain.tenant import Isolation, Tenant
from decklog.opensearch import index
from decklog.opensearch.clauses import REFUSED, Clause, clauses, term, undecided, with_refused
from decklog.opensearch.client import translated, unavailable
from decklog.opensearch.mapping import VERSION

PAGE_MAX = 10_000
"""Numbers in one answer: `index.max_result_window` of an index."""
COMPOSITE_PAGE_MAX = 10_000
"""Buckets in one answer."""
INTERVALS_MAX = 3_000
"""Intervals of one question by their bounds: so many ranges OpenSearch counts by its index (`search.max_aggregation_rewrite_filters`)."""
SEARCH_TIME_MAX = timedelta(seconds=5)
"""OpenSearch stops collecting after this; a partial answer is then refused."""
ANSWER_TIME_MAX = SEARCH_TIME_MAX + timedelta(seconds=1)
"""The client stops waiting after this."""

_HITS = "hits.hits.sort,hits.hits.matched_queries"

PING_TIME_MAX = timedelta(seconds=1)
"""The client stops waiting for the answer to a ping after this."""


def _scope(tenant: Tenant, log: LogName, span: Span, query: Query, *, doubted: bool = False) -> Clause:
    """Return the query for one tenant, one log, a span and filters; with `doubted`, also for what a refused field leaves open."""
    return {
        "bool": {
            "filter": [
                term("tenant_id", tenant.id),
                term("log", int(log)),
                {"range": {"seq": {"gte": span.first, "lt": span.end}}},
                *(with_refused(query.conjuncts) if doubted else clauses(query.conjuncts)),
            ]
        }
    }


class OpenSearchIndex:
    """`SearchIndex` over one OpenSearch cluster."""

    def __init__(self, client: AsyncOpenSearch) -> None:
        self._client = client

    async def add(self, tenant: Tenant, documents: Sequence[SearchDocument]) -> int:
        """See `SearchIndex`. Raises ValueError for a document of another tenant in the index of a Dedicated one."""
        if tenant.isolation is Isolation.DEDICATED and any(document.tenant_id != tenant.id for document in documents):
            raise ValueError("a document of another tenant")
        return await index.write(self._client, _live(tenant), documents)

    async def ping(self) -> None:
        """See `SearchIndex`."""
        with translated():
            # Local: the answer of the node itself, whatever it knows of the others.
            params = {"local": "true", "filter_path": "status"}
            await self._client.cluster.health(params=params, request_timeout=PING_TIME_MAX.total_seconds())

    def covers(self, tenant: Tenant) -> bool:
        """See `SearchIndex`."""
        return tenant.live is not None and tenant.live.version == VERSION

    async def refresh(self, *tenants: Tenant) -> None:
        """See `SearchIndex`."""
        live = {generation.alias: len(generation.starts) for generation in map(_live, tenants)}
        with translated():
            answer = await self._client.indices.refresh(index=",".join(live), params={"filter_path": "_shards"})
        shards = answer.get("_shards", {})
        # Unassigned copies count in `total` only: a yellow index is refreshed.
        if shards.get("failed") or shards.get("successful", 0) < sum(live.values()):
            raise unavailable("could not be refreshed on every shard")

    async def find(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        limit: int,
        newest_first: bool,
        doubted: set[int] | None = None,
    ) -> list[int]:
        """See `SearchIndex`."""
        found: list[int] = []
        first, end = span
        while len(found) < limit and first < end:
            size = min(limit - len(found), PAGE_MAX)
            scope = _scope(tenant, log, Span(first, end), query, doubted=True)
            page = await self._find_page(tenant, scope, size, newest_first, doubted)
            found += page
            if len(page) < size:
                break
            if newest_first:
                end = page[-1]
            else:
                first = page[-1] + 1
        return found

    async def _find_page(
        self, tenant: Tenant, scope: Clause, size: int, newest_first: bool, doubted: set[int] | None
    ) -> list[int]:
        answer = await self._search(
            tenant,
            {
                "query": scope,
                "size": size,
                "sort": [{"seq": "desc" if newest_first else "asc"}],
                "track_total_hits": False,
                "_source": False,
            },
            _HITS,
        )
        return [sort[0] for sort in _found(answer, doubted)]

    async def find_by_time(
        self,
        tenant: Tenant,
        log: LogName,
        span: Span,
        *,
        query: Query,
        after: Place | None,
        limit: int,
        newest_first: bool,
        doubted: set[int] | None = None,
    ) -> list[Place]:
        """See `SearchIndex`."""
        direction = "desc" if newest_first else "asc"
        body: dict[str, Any] = {
            "query": _scope(tenant, log, span, query, doubted=True),
            "size": min(limit, PAGE_MAX),
            "sort": [{"occurred_at": direction}, {"seq": direction}],
            "track_total_hits": False,
            "_source": False,
        }
        if after is not None:
            body["search_after"] = [microseconds(after.occurred_at), after.seq]
        answer = await self._search(tenant, body, _HITS)
        return [Place(from_microseconds(time), seq) for time, seq in _found(answer, doubted)]

    async def count(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, grouping: Grouping, limit: int
    ) -> list[Bucket]:
        """See `SearchIndex`."""
        scope = _scope(tenant, log, span, query)
        await self._check_decided(tenant, log, span, query, grouping.by)
        sources = _sources(grouping)
        if not sources:
            return await self._total(tenant, scope)
        if (starts := _intervals(query, grouping, limit)) and (found := await self._timeline(tenant, scope, starts)) is not None:
            return found
        composite: dict[str, Any] = {"sources": sources}
        buckets: list[Bucket] = []
        while True:
            composite["size"] = min(limit + 1 - len(buckets), COMPOSITE_PAGE_MAX)
            answer = await self._search(
                tenant,
                {"query": scope, "size": 0, "track_total_hits": False, "aggs": {"by": {"composite": composite}}},
                "aggregations",
            )
            page = answer["aggregations"]["by"]
            buckets += [_bucket(item["key"], item["doc_count"], grouping) for item in page["buckets"]]
            if len(buckets) > limit:
                raise too_many_buckets(limit)
            if len(page["buckets"]) < composite["size"]:
                return buckets
            composite["after"] = page["after_key"]

    async def _timeline(self, tenant: Tenant, scope: Clause, starts: Sequence[datetime]) -> list[Bucket] | None:
        """Return the counts of intervals with known bounds, None where some record lies after the last of them.

        It takes less time than to compute the interval of each record.
        """
        bounds: list[dict[str, int]] = [{"from": microseconds(start), "to": microseconds(end)} for start, end in pairwise(starts)]
        by_time = {"range": {"field": "occurred_at", "ranges": [*bounds, {"from": microseconds(starts[-1])}]}}
        answer = await self._search(
            tenant, {"query": scope, "size": 0, "track_total_hits": False, "aggs": {"by": by_time}}, "aggregations"
        )
        counts = [item["doc_count"] for item in answer["aggregations"]["by"]["buckets"]]
        return None if counts[-1] else [Bucket((), start, count) for start, count in zip(starts, counts, strict=True) if count]

    async def facets(
        self, tenant: Tenant, log: LogName, span: Span, *, query: Query, names: Sequence[str], limit: int
    ) -> list[list[Bucket]]:
        """See `SearchIndex`. Counts are exact, because no shard leaves a value out: more than `limit` values are refused."""
        by = {name: {"terms": {"field": COUNTABLE[name].indexed, "size": limit + 1, "shard_size": limit + 1}} for name in names}
        scope = _scope(tenant, log, span, query)
        await self._check_decided(tenant, log, span, query, names)
        body = {"query": scope, "size": 0, "track_total_hits": True, "aggs": by}
        answer = await self._search(tenant, body, "hits.total,aggregations")
        total, found = answer["hits"]["total"]["value"], answer.get("aggregations", {})
        facets: list[list[Bucket]] = []
        for name in names:
            page = found[name]
            if page.get("sum_other_doc_count") or len(page["buckets"]) > limit:
                raise too_many_buckets(limit)
            facet = [Bucket((item["key"],), None, item["doc_count"]) for item in page["buckets"]]
            missing = total - sum(bucket.count for bucket in facet)
            facets.append([*facet, Bucket((None,), None, missing)] if missing else facet)
        return facets

    async def _check_decided(self, tenant: Tenant, log: LogName, span: Span, query: Query, by: Sequence[str]) -> None:
        """Raise UndecidedError if the index cannot decide about some record that it finds, or in which group it is."""
        doubt = undecided(query.root, [COUNTABLE[name].indexed for name in by])
        if doubt is None:
            return
        scope = _scope(tenant, log, span, query, doubted=True)
        if await self._total(tenant, {"bool": {"filter": [scope, doubt]}}):
            raise UndecidedError

    async def _total(self, tenant: Tenant, scope: Clause) -> list[Bucket]:
        answer = await self._search(tenant, {"query": scope, "size": 0, "track_total_hits": True}, "hits.total")
        total = answer["hits"]["total"]["value"]
        return [Bucket((), None, total)] if total else []

    async def _search(self, tenant: Tenant, body: dict[str, Any], wanted: str) -> dict[str, Any]:
        """Return the answer to one search, filtered to `wanted`. Raises `search-unavailable` unless all shards answered in time.

        An alias knows nothing of a range that was lost, so the shards are counted: each range has one at least.
        """
        live = _live(tenant)
        with translated():
            answer: dict[str, Any] = await self._client.search(
                index=live.alias,
                body=body | {"timeout": f"{SEARCH_TIME_MAX.total_seconds():g}s"},
                params={
                    "filter_path": f"timed_out,_shards.failed,_shards.total,{wanted}",
                    "allow_partial_search_results": "false",
                },
                request_timeout=ANSWER_TIME_MAX.total_seconds(),
            )
        if answer.get("timed_out", True) or answer.get("_shards", {}).get("failed", 1):
            raise unavailable("could not answer completely in time")
        if answer["_shards"].get("total", 0) < len(live.starts):
            raise unavailable("lacks a range; provisioning creates it, and workers fill it")
        return answer


def _live(tenant: Tenant) -> IndexGeneration:
    """Return the generation that a request is for. Raises `search-unavailable` where there is none with this version's mapping."""
    if tenant.live is None or tenant.live.version != VERSION:
        raise unavailable("of this tenant is not made yet; provisioning makes it")
    return tenant.live


def _found(answer: dict[str, Any], doubted: set[int] | None) -> list[list[int]]:
    """Return the values that hits are sorted by, the last of which is the `seq`; add the numbers that are in doubt to `doubted`."""
    hits = answer.get("hits", {}).get("hits", ())
    if doubted is not None:
        doubted.update(hit["sort"][-1] for hit in hits if REFUSED in hit.get("matched_queries", ()))
    return [hit["sort"] for hit in hits]


def _sources(grouping: Grouping) -> list[dict[str, Any]]:
    sources: list[dict[str, Any]] = [
        {field.parameter: {"terms": {"field": field.indexed, "missing_bucket": True}}} for field in grouping.fields
    ]
    if grouping.interval is not None:
        by_time = {"field": "occurred_ms", "calendar_interval": grouping.interval, "time_zone": grouping.tz}
        sources.append({"start": {"date_histogram": by_time}})
    return sources


def _intervals(query: Query, grouping: Grouping, limit: int) -> list[datetime]:
    """Return the bounds of all intervals that records of a query lie in; none where they are unknown, or other fields group, too."""
    if grouping.by or grouping.interval is None or query.since is None:
        return []
    until = query.until or datetime.now(UTC)
    starts: list[datetime] = []
    for start in starts_from(grouping.interval, query.since, grouping.zone):
        starts.append(start)
        if start >= until:
            return starts
        if len(starts) > min(limit, INTERVALS_MAX):
            return []
    return []


def _bucket(key: dict[str, Any], count: int, grouping: Grouping) -> Bucket:
    start = key.get("start")
    return Bucket(
        tuple(key[name] for name in grouping.by),
        None if start is None else from_microseconds(start * 1_000),
        count,
    )
