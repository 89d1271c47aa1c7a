"""Export records as one file."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Request, get
from litestar.types import ASGIApp, Receive, Scope, Send

from decklog import shapes
from decklog.api.limits import too_slow
from decklog.api.openapi import JSON, Answer, Media, Operation, parameter
from decklog.api.reads import FILTERS, SEARCH_ERRORS
from decklog.api.request import ask, require_http_1_1
from decklog.domain.errors import Code
from decklog.services.records.export import CONTENT_TYPES, Export

_OPERATION = Operation(
    "export_records",
    "read",
    {
        200: Answer(
            "The file. If the export fails midway, the connection is closed without the last chunk.",
            {
                "application/x-ndjson": Media({"type": "string"}),
                JSON: Media(list[shapes.Record]),
                "text/csv": Media({"type": "string"}),
            },
            {"Content-Disposition": {"description": "Name of the file.", "schema": {"type": "string"}}},
        )
    },
    (*SEARCH_ERRORS, Code.HTTP_VERSION),
    parameters=[
        *FILTERS,
        parameter(
            "format",
            "Format of the file. Cells of CSV that a spreadsheet would evaluate as a formula begin with an apostrophe.",
            {"type": "string", "enum": list(CONTENT_TYPES), "default": next(iter(CONTENT_TYPES))},
        ),
    ],
)


@get("/logs/export", opt={"operation": _OPERATION})
async def export_records(request: Request[Any, Any, Any]) -> ASGIApp:
    """Export records as a file, oldest first.

    The file contains the matching records up to the newest one when the request began. A file that is received completely is
    complete: a failure midway breaks the transfer.
    """
    asked = await ask(request)
    require_http_1_1(request.scope, "An export")
    return Download(await asked.services.reading.export(asked.principal, asked.context, asked.parameters))


class Download:
    """An ASGI application that sends an export at the client's pace, and stops when the client disconnects."""

    def __init__(self, export: Export) -> None:
        self._export = export

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the export and close it."""
        chunks = aiter(self._export)
        gone = asyncio.create_task(until_disconnect(receive))
        try:
            # The answer starts with the first bytes, so that an earlier failure is a problem document and not a broken file.
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
            # From here on an exception ends the connection without the last chunk, which every client detects.
            async for chunk in chunks:
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            left = gone.done()
            gone.cancel()
            if (reason := too_slow(scope)) is not None:
                self._export.fail(reason)
            await self._export.aclose("client-gone" if left else None)


async def until_disconnect(receive: Receive) -> None:
    """Return when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
