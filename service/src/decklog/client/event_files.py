"""Read files of audit events, as their systems write them, event by event.

A file holds one JSON value per line (NDJSON), or one document with many events, on one line or on many: `{"Records": […]}` of
CloudTrail, an EventList of Kubernetes, or a plain array. It may be compressed by gzip. The content decides, never the file's
name. Memory is bounded by the largest line or document.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self, cast

import msgspec

DOCUMENT_BYTES_MAX = 256 * 1024 * 1024
"""Largest line, or document over many lines, in bytes. CloudTrail's own files stay below 100 MB."""

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class Piece(msgspec.Struct, frozen=True):
    """The JSON of one event, which is not parsed yet, and its place in the file.

    `line` counts from 1; `item` counts from 1 within a document on one line. `raw` is None where nothing could be read, and
    `problem` then says why.
    """

    line: int
    raw: bytes | None
    item: int | None = None
    problem: str = ""

    @property
    def place(self) -> str:
        """Return line and item as text."""
        return f"{self.line}" if self.item is None else f"{self.line} (item {self.item})"


class _Document(msgspec.Struct):
    """The members that hold many events; all others are ignored."""

    records: list[msgspec.Raw] | msgspec.UnsetType = msgspec.field(name="Records", default=msgspec.UNSET)
    items: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


_document = msgspec.json.Decoder(_Document)
_array = msgspec.json.Decoder(list[msgspec.Raw])


def _events(text: bytes) -> list[bytes] | None:
    """Return the events of a document with many; None where the text is not one."""
    try:
        if text.startswith(b"["):
            return [bytes(raw) for raw in _array.decode(text)]
        found = _document.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _events_with_surrogates(text)
    raws = found.items if isinstance(found.records, msgspec.UnsetType) else found.records
    return None if isinstance(raws, msgspec.UnsetType) else [bytes(raw) for raw in raws]


def _events_with_surrogates(text: bytes) -> list[bytes] | None:
    """Return what `_events` returns, for a document that msgspec refuses because of a lone surrogate."""
    if b"\\ud" not in text.lower():
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict):
        found = found.get("Records", found.get("items"))
    return [json.dumps(item).encode() for item in found] if isinstance(found, list) else None


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _line_pieces(line: int, text: bytes) -> Iterator[Piece]:
    text = text.strip()
    if not text:
        return
    if (events := _events(text)) is None:
        yield Piece(line, text)
        return
    for number, event in enumerate(events, start=1):
        yield Piece(line, event, item=number)


def _document_pieces(text: bytes, events: list[bytes]) -> Iterator[Piece]:
    """Yield the events of a document over many lines, each with the line on which it begins."""
    line, at = 1, 0
    for event in events:
        found = text.find(event, at)
        if found >= 0:
            line, at = line + text.count(b"\n", at, found), found
        yield Piece(line, event)


class EventFile:
    """One file, which can be iterated once. `size` and `position` are in bytes of the file, compressed or not.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw: IO[bytes] = path.open("rb")
        self.size = path.stat().st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    @property
    def position(self) -> int:
        """Return how many bytes have been read."""
        return self._raw.tell()

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces in order. A truncated or corrupt file ends in a piece with a `problem`."""
        pieces, last = self._pieces(), 0
        try:
            for piece in pieces:
                last = piece.line
                yield piece
        except EOFError:
            yield Piece(last + 1, None, problem="the file ends in the middle of its compressed data")
        except (gzip.BadGzipFile, zlib.error) as error:
            yield Piece(last + 1, None, problem=f"the compressed data is broken ({error})")
        except OSError as error:
            yield Piece(last + 1, None, problem=f"the file cannot be read further ({error.strerror})")

    def _opened(self) -> IO[bytes]:
        self._raw.seek(0)
        compressed = self._raw.read(len(_GZIP)) == _GZIP
        self._raw.seek(0)
        return cast("IO[bytes]", gzip.GzipFile(fileobj=self._raw)) if compressed else self._raw

    def _pieces(self) -> Iterator[Piece]:
        stream = self._opened()
        first = stream.readline(DOCUMENT_BYTES_MAX).removeprefix(_BOM)
        if _opens_document(first):
            whole = (first + stream.read(DOCUMENT_BYTES_MAX)).strip()
            if (events := _events(whole)) is not None:
                yield from _document_pieces(whole, events)
                return
            # The file has lines after all, of which the first is not JSON.
            stream = self._opened()
            first = stream.readline(DOCUMENT_BYTES_MAX).removeprefix(_BOM)
        line, text = 0, first
        while text:
            line += 1
            if len(text) == DOCUMENT_BYTES_MAX and not text.endswith(b"\n"):
                yield Piece(line, None, problem=f"the line has more than {DOCUMENT_BYTES_MAX} bytes")
                while text and not text.endswith(b"\n"):
                    text = stream.readline(DOCUMENT_BYTES_MAX)
            else:
                yield from _line_pieces(line, text)
            text = stream.readline(DOCUMENT_BYTES_MAX)


def _opens_document(first: bytes) -> bool:
    """Return whether the first line is the beginning of JSON that continues on further lines, as in indented documents."""
    text = first.strip()
    return text[:1] in (b"{", b"[") and not _is_json(text)
