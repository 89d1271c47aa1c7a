"""Records out: one page, one record, counts, or everything as a file.

Records are spliced together from their stored text and never parsed to be served.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from decklog.api.operations import EXPORT, GET_RECORD, LIST, STATS
from decklog.api.request import ask
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, acting_tenant
from decklog.domain.log import LogName
from decklog.domain.records.wire import render, renderer
from decklog.domain.search.coverage import Coverage
from decklog.domain.tenant import Tenant
from decklog.services.records.export import Export
from decklog.services.records.reading import Page, Stats

_SEQ = re.compile(r"[0-9]{1,18}")
JSON = "application/json"


def _covered(coverage: Coverage) -> dict[str, Any]:
    """Return the bounds of an answer by their names on the wire; `head` is the number that the next record will get."""
    return {
        "head": coverage.head.next_seq,
        "indexed_from": coverage.indexed_from,
        "indexed": coverage.indexed,
        "engine": coverage.engine,
    }


def page_json(tenant: Tenant, log: LogName, page: Page) -> bytes:
    """`{items, next, head, indexed_from, indexed, engine}`; `head` is the number that the next record will get."""
    items = ",".join(map(renderer(tenant.name, log), page.items))
    rest = msgspec.json.encode({"next": page.next, **_covered(page.coverage)}).decode()
    return f'{{"items":[{items}],{rest[1:]}'.encode()


def stats_json(stats: Stats) -> bytes:
    """`{buckets: [{key, from, count}], total, …}`; a key has one value for each name in `by`, in that order."""
    return msgspec.json.encode(
        {
            "buckets": [
                {"key": bucket.key, "from": None if bucket.start is None else _whole(bucket.start), "count": bucket.count}
                for bucket in stats.buckets
            ],
            "total": stats.total,
            "by": stats.grouping.by,
            "interval": stats.grouping.interval,
            **_covered(stats.coverage),
        }
    )


def _whole(start: datetime) -> str:
    """The beginning of an interval, which has no fraction of a second."""
    return start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@get("/logs", opt=LIST)
async def list_records(request: Request[Any, Any, Any]) -> Response[bytes]:
    """List records, newest first.

    What was answered with 201 before this request began is found. `next` is the cursor of the following page, null on
    the last one; pages do not shift while records arrive. Records from `indexed_from` on and below `indexed` were found by
    the search index, the rest by the database; where that cannot look for the oldest ones without a time range, they are
    behind `next`, and asking for them is refused.
    """
    asked = await ask(request)
    acting_tenant(asked.principal, Permission.READ)
    tenant, log, page = await asked.services.reading.list(asked.principal, asked.context, asked.parameters)
    return Response(page_json(tenant, log, page), media_type=JSON)


@get("/logs/{seq:str}", opt=GET_RECORD)
async def get_record(request: Request[Any, Any, Any], seq: FromPath[str]) -> Response[bytes]:
    """Get one record by its sequence number."""
    asked = await ask(request)
    acting_tenant(asked.principal, Permission.READ)
    if not _SEQ.fullmatch(seq):
        raise DecklogError(Code.NOT_FOUND, "A record is addressed by its sequence number, a whole number from 0.")
    tenant, log, record = await asked.services.reading.get(asked.principal, asked.context, int(seq), asked.parameters)
    return Response(render(tenant.name, log, record), media_type=JSON)


@get("/logs/stats", opt=STATS)
async def count_records(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Count records by one or two fields, and by time."""
    asked = await ask(request)
    acting_tenant(asked.principal, Permission.READ)
    stats = await asked.services.reading.stats(asked.principal, asked.context, asked.parameters)
    return Response(stats_json(stats), media_type=JSON)


@get("/logs/export", opt=EXPORT)
async def export_records(request: Request[Any, Any, Any]) -> ASGIApp:
    """Export records as a file, oldest first.

    The export ends at the record that was the newest when it began. A failure midway breaks the transfer, so a file
    that arrived whole is whole.
    """
    asked = await ask(request)
    acting_tenant(asked.principal, Permission.READ)
    return Download(await asked.services.reading.export(asked.principal, asked.context, asked.parameters))


class Download:
    """Sends an export as it is made, no faster than the client reads, and stops where the client is gone."""

    def __init__(self, export: Export) -> None:
        self._export = export

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        chunks = aiter(self._export)
        gone = asyncio.create_task(_gone(receive))
        try:
            # The answer begins with the first bytes: what fails before them is a problem and not a broken file.
            first = await anext(chunks, b"")
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", self._export.content_type.encode()),
                        (b"content-disposition", f'attachment; filename="{self._export.filename}"'.encode()),
                    ],
                }
            )
            await send({"type": "http.response.body", "body": first, "more_body": True})
            # An exception from here on ends the connection without the last chunk, which every client notices.
            async for chunk in chunks:
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            await self._export.aclose()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
