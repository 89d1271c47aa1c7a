"""The reference page of the API: three static files beside the OpenAPI document, so no other host is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

_FOLDER = Path(__file__).parent
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"content-security-policy": _POLICY, "cache-control": "no-cache"}


def _file(path: str, name: str, media_type: str) -> HTTPRouteHandler:
    content = (_FOLDER / name).read_bytes()

    @get(path, sync_to_thread=False)
    def serve_file() -> Response[bytes]:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return serve_file


def reference_routes(document: dict[str, Any]) -> list[HTTPRouteHandler]:
    """Return the routes of the page at `/schema` and of the document at `/schema/openapi.json`."""
    encoded = msgspec.json.encode(document)

    @get("/schema/openapi.json", sync_to_thread=False)
    def openapi_json() -> Response[bytes]:
        return Response(encoded, media_type="application/vnd.oai.openapi+json", headers={"cache-control": "no-cache"})

    return [
        openapi_json,
        _file("/schema", "page.html", "text/html"),
        _file("/schema/page.js", "page.js", "text/javascript"),
        _file("/schema/page.css", "page.css", "text/css"),
    ]
