"""The board: the files that `make board` builds into this package, served below `/board`.

The board has no API of its own: its page uses the public routes. A module that adds a route below `/board` (a configuration, a
sign-in, a page for frames) registers its own path, which the router finds first, and takes its headers from `page_headers`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Redirect

from decklog.api.content_coding import preferred
from decklog.domain.errors import Code, DecklogError

FOLDER = Path(__file__).parents[2] / "board"
PATHS = ["/board", "/board/{path:path}"]
INDEX = "index.html"
FRAMED, FRAMED_PAGE = "embed", "embed.html"
"""Path and file of the page for frames: the records of a viewer token."""
ELEMENT = "embed.js"
"""Script of the element that makes such a frame. Pages of other origins load it, so its name has no hash."""
_TO_OTHERS = {"cross-origin-resource-policy": "cross-origin", "access-control-allow-origin": "*"}
ASSETS = "assets/"
"""Folder of the files whose names contain a hash of their content, so a name never gets another content."""
CODINGS = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
"""Content codings and the suffixes of the files that the build compresses by them, the smallest first."""
MEDIA_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain",
}
_UNKNOWN = "application/octet-stream"
_IMMUTABLE = "public, max-age=31536000, immutable"


def page_headers(frame_ancestors: str = "'none'") -> dict[str, str]:
    """Return the headers of a page of the board. `frame_ancestors` is a CSP source list of the pages that may frame it.

    Nothing is loaded from another host, no script and no style stands in the page, and no script text becomes code.
    """
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self'; "
        f"base-uri 'none'; form-action 'self'; frame-ancestors {frame_ancestors}; require-trusted-types-for 'script'"
    )
    return {
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "cache-control": "no-cache",
    }


@dataclass(frozen=True)
class File:
    """One file of the board: its content by content coding, `identity` among them, and a tag that changes with the content."""

    media_type: str
    content: Mapping[str, bytes]
    tag: str
    immutable: bool

    def answer(self, accepted: str, known: str, own: Mapping[str, str]) -> Response[bytes]:
        """Return the answer to the headers Accept-Encoding and If-None-Match of a request; `own` are headers of its path."""
        coding = preferred(accepted, [name for name in CODINGS if name in self.content]) or "identity"
        tag = f'"{self.tag}-{coding}"'
        headers = {**page_headers(), **own, "etag": tag}
        if self.immutable:
            headers["cache-control"] = _IMMUTABLE
        if len(self.content) > 1:
            headers["vary"] = "accept-encoding"
        if tag in (each.strip().removeprefix("W/") for each in known.split(",")):
            return Response(b"", status_code=304, headers=headers)
        if coding != "identity":
            headers["content-encoding"] = coding
        return Response(self.content[coding], media_type=self.media_type, headers=headers)


@functools.cache
def built(folder: Path) -> Mapping[str, File]:
    """Return the files of a built board by their paths in its folder; empty where none is built.

    They stay in memory, at most a few MiB. The files of the build that begin with a dot are not served.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    own = [name for name in paths if not name.startswith(".") and Path(name).suffix not in CODINGS.values()]
    return {name: _read(name, paths) for name in own} if INDEX in paths else {}


def _read(name: str, paths: Mapping[str, Path]) -> File:
    content = {"identity": paths[name].read_bytes()}
    content |= {coding: paths[name + suffix].read_bytes() for coding, suffix in CODINGS.items() if name + suffix in paths}
    tag = hashlib.sha256(content["identity"]).hexdigest()[:32]
    return File(MEDIA_TYPES.get(Path(name).suffix, _UNKNOWN), content, tag, name.startswith(ASSETS))


def _found(files: Mapping[str, File], path: str) -> File:
    """Return the file at a path below `/board`: the page itself for a path that names no file. Raises `not-found`."""
    name = path.removeprefix("/board").strip("/")
    if name == FRAMED and FRAMED_PAGE in files:
        return files[FRAMED_PAGE]
    if name in files:
        return files[name]
    if not files:
        raise DecklogError(
            Code.NOT_FOUND,
            "The board is not built in this checkout. Run `make board` there and start Decklog again. Wheels and images contain "
            "it, and the API needs none.",
        )
    if name.startswith(ASSETS):  # the page there would be taken for a script
        raise DecklogError(Code.NOT_FOUND, "The board has no such file. It was built anew: reload the page.")
    return files[INDEX]


def board_routes(folder: Path | None, frame_ancestors: str = "") -> list[HTTPRouteHandler]:
    """Return the routes of the board in `folder`, and the front page: the board, or the reference where there is none.

    None leaves the board out. `frame_ancestors` are the origins whose pages may frame the page for frames, separated by blanks.
    """
    files = built(folder) if folder is not None else {}
    framed = {**page_headers(frame_ancestors or "'none'"), "cross-origin-resource-policy": "cross-origin"}
    own: Mapping[str, Mapping[str, str]] = {f"/board/{FRAMED}": framed, f"/board/{ELEMENT}": _TO_OTHERS}

    @get("/", sync_to_thread=False)
    def front() -> Redirect:
        return Redirect("/board" if files else "/schema")  # for people who open the address of the API in a browser

    @get(PATHS, sync_to_thread=False)
    def board(request: Request[Any, Any, Any]) -> Response[bytes]:
        headers, path = request.headers, request.scope["path"]
        accepted, known = headers.get("accept-encoding", ""), headers.get("if-none-match", "")
        return _found(files, path).answer(accepted, known, own.get(path.rstrip("/"), {}))

    return [front] if folder is None else [front, board]
