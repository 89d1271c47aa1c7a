"""Export records as one file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from litestar import Request, get
from litestar.types import ASGIApp, Receive, Scope, Send

from decklog import shapes
from decklog.api.content_coding import PIECE_BYTES, Coding, coding_for, weights
from decklog.api.limits import too_slow
from decklog.api.openapi import JSON, Answer, Media, Operation, parameter
from decklog.api.reads import FILTERS, PLACE, POSITION, SEARCH_ERRORS, WAIT_FOR
from decklog.api.request import ask, require_http_1_1
from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.projection import FIELDS_MAX
from decklog.services.records.export import Export
from decklog.services.records.export_form import CONTENT_TYPES
from decklog.services.records.list_options import COUNTS
from decklog.viewer_shapes import ViewedRecord

_MEDIA_TYPES = {content_type.partition(";")[0]: name for name, content_type in CONTENT_TYPES.items()}
_TEXT = {"type": "string"}

_OPERATION = Operation(
    "export_records",
    "read",
    {
        200: Answer(
            "The file. If the export fails midway, the connection is closed without the last chunk.",
            {
                "application/x-ndjson": Media({"type": "string"}),
                JSON: Media(list[shapes.Record], viewer=list[ViewedRecord]),
                "text/csv": Media({"type": "string"}),
            },
            {
                "Content-Disposition": {"description": "Name of the file.", "schema": _TEXT},
                "Content-Encoding": {"description": "`gzip` or `zstd`, where Accept-Encoding allows it.", "schema": _TEXT},
                "Decklog-Position": {"description": "Position for `after` of a later export.", "schema": _TEXT},
                "Decklog-Total": {
                    "description": "Number of records in the file, for `count=exact`.",
                    "schema": {"type": "integer"},
                },
            },
        )
    },
    (*SEARCH_ERRORS, Code.HTTP_VERSION, Code.UNSUPPORTED_MEDIA_TYPE),
    parameters=[
        *FILTERS,
        WAIT_FOR,
        parameter(
            "format",
            "Format of the file. Without it, the header Accept decides between application/x-ndjson, application/json and text/csv. "
            "Cells of CSV that a spreadsheet would evaluate as a formula begin with an apostrophe.",
            {"type": "string", "enum": list(CONTENT_TYPES), "default": next(iter(CONTENT_TYPES))},
        ),
        parameter(
            "fields",
            f"Fields of the records, by their paths, separated by commas; at most {FIELDS_MAX}. For NDJSON and CSV.",
            {"type": "string", "minLength": 1},
            example="seq,received_at,action,actor.id,metadata.reason",
        ),
        parameter(
            "bom",
            "`true` begins a CSV file with a byte order mark, by which some spreadsheets recognise UTF-8.",
            {"type": "boolean", "default": False},
        ),
        parameter(
            "after",
            "Begin after this position or sequence number, exclusive: the header Decklog-Position of an earlier export, or the last "
            "record of one that broke off.",
            PLACE,
            example=POSITION,
        ),
        parameter(
            "count",
            "`exact` adds the header Decklog-Total, which a progress bar needs.",
            {"type": "string", "enum": list(COUNTS), "default": COUNTS[0]},
        ),
    ],
)


@get("/logs/export", opt={"operation": _OPERATION})
async def export_records(request: Request[Any, Any, Any]) -> ASGIApp:
    """Export records as a file, oldest first.

    The file contains the matching records up to the newest one when the request began. A file that is received completely is
    complete: a failure midway breaks the transfer. `after` continues one that broke off, and pulls what is new. It is compressed where Accept-Encoding has gzip or zstd.
    """
    asked = await ask(request)
    require_http_1_1(request.scope, "An export")
    parameters = list(asked.parameters)
    if all(name != "format" for name, _ in parameters):
        parameters.append(("format", _format(request.headers.get("accept", "*/*"))))
    export = await asked.services.reading.export(asked.principal, asked.context, parameters)
    return Download(export, coding_for(request.headers.get("accept-encoding", "")))


def _format(accept: str) -> str:
    """Return the format that an Accept header prefers, the first one where it has none. Raises `unsupported-media-type`."""
    accepted = weights(accept)

    def weight(media_type: str) -> float:
        ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
        return next((accepted[name] for name in ranges if name in accepted), 0.0)

    best = max(_MEDIA_TYPES, key=weight)  # the first of several equals
    if weight(best) > 0:
        return _MEDIA_TYPES[best]
    raise DecklogError(
        Code.UNSUPPORTED_MEDIA_TYPE, f"Accept {accept[:80]!r}: an export has one of the types {', '.join(_MEDIA_TYPES)}."
    )


def _pieces(chunk: bytes) -> Iterator[bytes]:
    for start in range(0, len(chunk), PIECE_BYTES):
        yield chunk[start : start + PIECE_BYTES]


class Download:
    """An ASGI application that sends an export at the client's pace, and stops when the client disconnects."""

    def __init__(self, export: Export, coding: Coding | None = None) -> None:
        self._export = export
        self._coding = coding

    def _headers(self) -> list[tuple[bytes, bytes]]:
        coded = [] if self._coding is None else [(b"content-encoding", self._coding.name.encode())]
        return [
            (b"content-type", self._export.form.content_type.encode()),
            (b"content-disposition", f'attachment; filename="{self._export.filename}"'.encode()),
            (b"vary", b"Accept, Accept-Encoding"),
            (b"decklog-position", self._export.position.encode()),
            *([] if self._export.total is None else [(b"decklog-total", b"%d" % self._export.total)]),
            *coded,
        ]

    async def _coded(self, chunk: bytes) -> bytes:
        """Return a chunk as it is sent: compressed in slices of the tenant's processor time, and readable at once."""
        if self._coding is None:
            return chunk
        return b"".join(await self._export.processed(self._coding.piece, list(_pieces(chunk)))) + self._coding.flush()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the export and close it."""
        chunks = aiter(self._export)
        gone = asyncio.create_task(until_disconnect(receive))
        try:
            # The answer starts with the first bytes, so that an earlier failure is a problem document and not a broken file.
            first = await self._coded(await anext(chunks, b""))
            await send({"type": "http.response.start", "status": 200, "headers": self._headers()})
            await send({"type": "http.response.body", "body": first, "more_body": True})
            # From here on an exception ends the connection without the last chunk, which every client detects.
            async for chunk in chunks:
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": await self._coded(chunk), "more_body": True})
            end = b"" if self._coding is None else self._coding.finish()
            await send({"type": "http.response.body", "body": end, "more_body": False})
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
