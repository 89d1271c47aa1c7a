"""Read records: list, get one, count.

The answers are spliced from the stored text of the records, which is never parsed to be served.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from decklog import shapes
from decklog.api.openapi import JSON, Operation, json_answer, parameter
from decklog.api.reads import FILTERS, LOG, POSITION, READ_ERRORS, RECORD, SEARCH_ERRORS, WAIT_FOR
from decklog.api.request import Asked, ask
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import rfc3339_seconds
from decklog.domain.search.calendar import INTERVALS
from decklog.domain.search.coverage import Coverage
from decklog.domain.search.fields import COUNTABLE
from decklog.domain.search.order import ORDERS, SORTS
from decklog.domain.search.stats import FACETS_MAX, GROUPS_MAX, TOP_DEFAULT, TOP_MAX, UTC_NAME, Facet
from decklog.services.records.count_options import FILLS
from decklog.services.records.list_options import COUNTS, HIGHLIGHTS, LIMIT_DEFAULT, LIMIT_MAX
from decklog.services.records.reading import Page, Reading, Stats
from decklog.services.records.views import View
from decklog.viewer_shapes import ViewedRecord, ViewerPage

PART_BYTES = 64 * 1024
"""Bytes of a page that are sent at once."""
_SEQ = re.compile(r"[0-9]{1,18}")


def _covered(view: View, coverage: Coverage) -> dict[str, Any]:
    """Return the part of the log that an answer covers, by the names on the wire; nothing for a viewer, as it counts other records."""
    if view.scope is not None:
        return {}
    return {
        "head": coverage.head.next_seq,
        "indexed_from": coverage.indexed_from,
        "indexed": coverage.indexed,
        "engine": coverage.engine,
    }


async def page_json(reading: Reading, page: Page) -> bytes:
    """Return a page as `{items, highlights, next, total, position, head, indexed_from, indexed, engine}`; less of it for a viewer."""
    view = page.view
    write = view.writer()
    records = await reading.rendered(view.tenant, lambda record: write(record).encode(), page.items)
    position = None if page.position is None else view.mark(page.position)
    rest = msgspec.json.encode({"next": page.next, "total": page.total, "position": position, **_covered(view, page.coverage)})
    return b'{"items":[' + b",".join(records) + b"]," + await _marked(reading, page) + rest[1:]


async def _marked(reading: Reading, page: Page) -> bytes:
    """Return the member `highlights` of a page. A viewer gets none: they name places that the conditions of the scope hold for."""
    if page.view.scope is not None:
        return b""
    highlights = await reading.highlights(page.view.tenant, page)
    return b'"highlights":' + (b"null" if highlights is None else b"[" + b",".join(highlights) + b"]") + b","


class Listing:
    """An ASGI application that reads a page and sends it at the client's pace. Its bytes are accounted for until they are sent."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the page and send it."""
        asked = self._asked
        reading = asked.services.reading
        with reading.account(asked.principal) as held:
            _, _, page = await reading.list(asked.principal, asked.context, asked.parameters, held)
            records = held.held
            held.take(records)
            body = await page_json(reading, page)
            del page
            held.give(2 * records - len(body))
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body))],
                }
            )
            # In parts: sending one waits until the client has taken most of those before it.
            for at in range(0, len(body) - PART_BYTES, PART_BYTES):
                await send({"type": "http.response.body", "body": body[at : at + PART_BYTES], "more_body": True})
            last = (len(body) - 1) // PART_BYTES * PART_BYTES
            await send({"type": "http.response.body", "body": body[last:], "more_body": False})


def stats_json(stats: Stats) -> bytes:
    """Return counts as `{buckets: [{key, from, count}], total, …}`. A key has one value for each name in `by`, in that order."""
    return msgspec.json.encode(
        {
            "buckets": [
                {
                    "key": bucket.key,
                    "from": None if bucket.start is None else rfc3339_seconds(bucket.start),
                    "count": bucket.count,
                }
                for bucket in stats.buckets
            ],
            "total": stats.total,
            "by": stats.grouping.by,
            "interval": stats.grouping.interval,
            "tz": stats.grouping.tz,
            "facets": {facet.field: _facet(facet) for facet in stats.facets},
            **_covered(stats.view, stats.coverage),
        }
    )


def _facet(facet: Facet) -> dict[str, Any]:
    values = [{"value": value, "count": count} for value, count in facet.values]
    return {"values": values, "other": facet.other, "missing": facet.missing}


LIST = Operation(
    "list_records",
    "read",
    {
        200: json_answer(
            "One page of records.",
            shapes.Page,
            {
                "items": [RECORD],
                "highlights": [{"seq": 2041, "places": [{"path": "/resource/name", "spans": [[3, 11]]}], "more": False}],
                "next": None,
                "total": None,
                "position": None,
                "head": 2042,
                "indexed_from": 0,
                "indexed": 2042,
                "engine": "opensearch",
            },
            viewer=ViewerPage,
        )
    },
    (*SEARCH_ERRORS, Code.INVALID_CURSOR),
    parameters=[
        *FILTERS,
        parameter(
            "limit",
            "Maximum number of records in the page. A page also ends after 8 MiB of records, so it may have fewer.",
            {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
        ),
        parameter("cursor", "`next` of the previous page, with the same other parameters.", {"type": "string"}),
        parameter(
            "sort",
            "Order of the list: by receipt, which is the order of `seq`, or by the time of the event. A minus means descending.",
            {"type": "string", "enum": list(SORTS), "default": SORTS[0]},
        ),
        parameter(
            "order",
            "Direction of `sort` without a minus: `asc` or `desc`. Without `sort`, the direction of `received_at`.",
            {"type": "string", "enum": list(ORDERS)},
        ),
        parameter(
            "after",
            "List what follows this position, oldest first: a position (`epoch.microseconds.seq`) or a `seq`; -1 lists all there is.",
            {"type": "string"},
            example=POSITION,
        ),
        parameter(
            "count",
            "`exact`: count all matching records, too, as `total`. It costs a count besides the page.",
            {"type": "string", "enum": list(COUNTS), "default": COUNTS[0]},
        ),
        parameter(
            "highlight",
            "`true`: name the places of each record that made it match, as `highlights`.",
            {"type": "string", "enum": list(HIGHLIGHTS), "default": HIGHLIGHTS[0]},
        ),
        WAIT_FOR,
    ],
)


@get("/logs", opt={"operation": LIST})
async def list_records(request: Request[Any, Any, Any]) -> ASGIApp:
    """List records, newest first unless `sort` or `order` says otherwise.

    The list contains every record that was acknowledged with 201 before the request began. To read all records, follow
    `next` until it is null; new records do not shift the pages. A list in the order of `occurred_at` has the records that were there
    when its first page was read. To pull what is new, give the `position` of the last answer as `after`.

    The search index answers for sequence numbers from `indexed_from` up to, but not including, `indexed`; PostgreSQL answers
    for the others. A full-text search of old records in PostgreSQL requires a time range (`from`, `to`), otherwise the page
    that would reach them returns `search-unavailable`.
    """
    return Listing(await ask(request))


_GET = Operation(
    "get_record",
    "read",
    {200: json_answer("The record.", shapes.Record, RECORD, viewer=ViewedRecord)},
    (*READ_ERRORS, Code.NOT_FOUND),
    parameters=[
        parameter(
            "seq",
            "Sequence number of the record.",
            {"type": "integer", "minimum": 0},
            place="path",
            example=2041,
            required=True,
        ),
        LOG,
    ],
)


@get("/logs/{seq:str}", opt={"operation": _GET})
async def get_record(request: Request[Any, Any, Any], seq: FromPath[str]) -> Response[bytes]:
    """Get one record by its sequence number."""
    asked = await ask(request)
    if not _SEQ.fullmatch(seq):
        raise DecklogError(Code.NOT_FOUND, f"{seq[:80]!r} is not a sequence number. Use a whole number from 0.")
    view, record = await asked.services.reading.get(asked.principal, asked.context, int(seq), asked.parameters)
    return Response(view.writer()(record).encode(), media_type=JSON)


_STATS = Operation(
    "count_records",
    "read",
    {
        200: json_answer(
            "Exact counts.",
            shapes.Stats,
            {
                "buckets": [{"key": ["user.login"], "from": "2026-01-31T00:00:00Z", "count": 17}],
                "total": 17,
                "by": ["action"],
                "interval": "day",
                "tz": "UTC",
                "facets": {"outcome": {"values": [{"value": "success", "count": 17}], "other": 0, "missing": 0}},
                "head": 2042,
                "indexed_from": 0,
                "indexed": 2042,
                "engine": "opensearch",
            },
            viewer=shapes.Counts,
        )
    },
    (*SEARCH_ERRORS, Code.TOO_MANY_BUCKETS),
    parameters=[
        *FILTERS,
        WAIT_FOR,
        parameter(
            "by",
            "Fields to group by, at most two, separated by a comma.",
            {"type": "array", "items": {"type": "string", "enum": list(COUNTABLE)}, "maxItems": GROUPS_MAX, "uniqueItems": True},
            style="form",
            explode=False,
            example=["action"],
        ),
        parameter(
            "interval",
            "Interval to group by, of `occurred_at` in the time zone `tz`. Weeks begin on Monday.",
            {"type": "string", "enum": list(INTERVALS)},
        ),
        parameter(
            "tz",
            "Time zone of the intervals, by its IANA name. Days begin at its midnight, whatever its offset is then.",
            {"type": "string", "default": UTC_NAME},
            example="Europe/Amsterdam",
        ),
        parameter(
            "fill",
            "`zero`: add a bucket of count 0 for each interval without records, from `from` up to `to` where they are given.",
            {"type": "string", "enum": list(FILLS), "default": FILLS[0]},
        ),
        parameter(
            "facets",
            f"Fields whose most frequent values are counted, each by itself; at most {FACETS_MAX}, separated by a comma.",
            {"type": "array", "items": {"type": "string", "enum": list(COUNTABLE)}, "maxItems": FACETS_MAX, "uniqueItems": True},
            style="form",
            explode=False,
            example=["outcome"],
        ),
        parameter(
            "top",
            "Number of values of each facet; the records with further values are `other`.",
            {"type": "integer", "minimum": 1, "maximum": TOP_MAX, "default": TOP_DEFAULT},
        ),
    ],
)


@get("/logs/stats", opt={"operation": _STATS})
async def count_records(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Count records, grouped by up to two fields and by time, and by the values of facets.

    Counts are exact. More than 10,000 buckets, or values of one facet, are refused with `too-many-buckets`.
    """
    asked = await ask(request)
    stats = await asked.services.reading.stats(asked.principal, asked.context, asked.parameters)
    return Response(stats_json(stats), media_type=JSON)
