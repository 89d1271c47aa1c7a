"""Read files of audit events, as their systems write them, event by event.

A file holds JSON values in any form, lines of a container's log (CRI, Docker) whose text is JSON, or a CSV export of Decklog. It may be
compressed by gzip or zstd, in several members. The content decides, never the file's name. Memory is bounded by the largest event.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self, TextIO, cast

import msgspec
import zstandard

from decklog.client.json_values import CHUNK_BYTES, ERRORS, VALUE_CHARS_MAX, Piece, Values, decoder, encoding_of
from decklog.domain.intake.decklog_export import of_cells
from decklog.domain.intake.foreign_event import NotAnEventError

STDIN = Path("-")

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_MAX = 128 * 1024 * 1024
"""Bytes of a window; `zstd --long` writes 128 MiB."""
_ZSTD_STEP = 2048
"""Compressed bytes at a time: four bytes may hold 128 KiB, so one step yields at most 64 MiB."""
_MAGIC_BYTES = 4
_CRI = re.compile(rb"(?P<time>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)) (?P<stream>stdout|stderr) (?P<tag>[PF])(?::\S*)? ")
"""Beginning of a line of a container's log, by the Container Runtime Interface. `P` marks a line that the next one continues."""
_DOCKER = b'{"log":"'
"""Beginning of a line of a container's log, by Docker."""
_CSV = re.compile(r'"?seq"?([,;\t])"?(received_at|epoch)"?\1')
"""Beginning of a CSV export of Decklog, as it was written or as a spreadsheet saved it."""


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Return the files of these paths in order, for a folder all files below it, by name; hidden ones are left out.

    Names in the trees of object stores begin with the date, so their order is that of time.
    """
    found: list[Path] = []
    for path in paths:
        if path == STDIN or not path.is_dir():
            found.append(path)
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found


class EventFile:
    """One file. `size` and `position` are in bytes of the file, compressed or not.

    The path `-` is standard input, whose size is 0.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = sys.stdin.buffer if path == STDIN else path.open("rb")
        self.size = 0 if path == STDIN else path.stat().st_size
        self.position = 0
        """Bytes that have been read."""
        self._line = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.path != STDIN:
            self._file.close()

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces in order. A truncated or corrupt file ends in a piece with a `problem`."""
        try:
            for piece in self._pieces():
                self._line = piece.line
                yield piece
        except EOFError:
            yield self._broken("the file ends in the middle of its compressed data")
        except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            yield self._broken(f"the compressed data is broken ({error})")
        except OSError as error:
            yield self._broken(f"the file cannot be read further ({error.strerror})")

    def _broken(self, problem: str) -> Piece:
        return Piece(self._line + 1, None, problem=problem)

    def _pieces(self) -> Iterator[Piece]:
        data: io.BufferedReader[Any] = io.BufferedReader(self._opened(), CHUNK_BYTES)
        first = data.peek(CHUNK_BYTES)
        if _CRI.match(first):
            return _cri_pieces(data)
        encoding, mark = encoding_of(first)
        if found := _CSV.match(decoder(encoding).decode(first[mark : mark + 200])):
            data.read(mark)
            return _csv_pieces(io.TextIOWrapper(data, encoding, ERRORS, newline=""), found[1])
        return _docker_pieces(Values(data.read1))

    def _opened(self) -> io.RawIOBase:
        """Return the content, decompressed."""
        if self.path != STDIN:
            self._file.seek(0)
        self.position = 0
        counted = io.BufferedReader(_Parts(self._read), CHUNK_BYTES // 8)
        magic = counted.peek(_MAGIC_BYTES)
        if magic.startswith(_GZIP):
            return _Parts(gzip.GzipFile(fileobj=counted).read1)
        return _Zstd(counted) if magic.startswith(_ZSTD) else cast("io.RawIOBase", counted)

    def _read(self, size: int) -> bytes:
        data = cast("io.BufferedReader", self._file).read1(size)
        self.position += len(data)
        return data


class _Parts(io.RawIOBase):
    """What a function returns part by part, so that a failure loses nothing that came before it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        super().__init__()
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        data = self._read(len(target))
        target[: len(data)] = data
        return len(data)


class _Zstd(io.RawIOBase):
    """Decompressed frames, one after the other. Raises EOFError where the last one is not whole."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._out = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._out:
            if not self._compressed and not (data := self._file.read(_ZSTD_STEP)):
                if self._frame is not None:
                    raise EOFError
                return 0
            self._step(self._compressed or data)
        part = self._out[: len(target)]
        target[: len(part)] = part
        self._out = self._out[len(part) :]
        return len(part)

    def _step(self, compressed: bytes) -> None:
        frame = self._frame or self._decompressor.decompressobj()
        self._out = memoryview(frame.decompress(compressed))
        self._frame = None if frame.eof else frame
        self._compressed = frame.unused_data if frame.eof else b""


def _cri_pieces(lines: IO[bytes]) -> Iterator[Piece]:
    """Yield the events of a container's log. A line that the runtime split is joined again, for each stream by itself."""
    parts: dict[bytes, list[tuple[int, bytes]]] = {}
    number = 0
    while line := lines.readline(VALUE_CHARS_MAX):
        number += 1
        found = _CRI.match(line)
        if found is None:
            if line.strip():
                yield Piece(number, line.strip())
            continue
        begun = parts.setdefault(found["stream"], [])
        begun.append((number, line[found.end() :]))
        if found["tag"] == b"F":
            yield from _joined(parts.pop(found["stream"]))
        elif sum(len(part) for _, part in begun) > VALUE_CHARS_MAX:
            yield Piece(begun[0][0], None, problem=f"the line has more than {VALUE_CHARS_MAX} bytes")
            parts.pop(found["stream"])
    for begun in parts.values():
        yield Piece(begun[0][0], None, problem="the log ends within a line that was split")


def _joined(parts: Sequence[tuple[int, bytes]]) -> Iterator[Piece]:
    first, text = parts[0][0], b"".join(part.rstrip(b"\r\n") for _, part in parts)
    return iter(Values(io.BytesIO(text).read, first))


class _DockerLine(msgspec.Struct):
    log: str
    stream: str
    time: str


_docker_line = msgspec.json.Decoder(_DockerLine).decode
_any = msgspec.json.Decoder().decode


def _docker_pieces(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield pieces; lines of a container that Docker split (at 16 KiB) are joined again, for each stream by itself."""
    parts: dict[str, list[tuple[int, str]]] = {}
    for piece in pieces:
        part = _docker_part(piece, parts)
        if part is None:
            yield piece
            continue
        begun = parts.setdefault(part.stream, [])
        begun.append((piece.line, part.log))
        if part.log.endswith("\n"):
            yield Piece(begun[0][0], msgspec.json.encode({"log": "".join(log for _, log in begun)}))
            parts.pop(part.stream)
        elif sum(len(log) for _, log in begun) > VALUE_CHARS_MAX:
            yield Piece(begun[0][0], None, problem=f"the line has more than {VALUE_CHARS_MAX} characters")
            parts.pop(part.stream)
    for begun in parts.values():
        yield Piece(begun[0][0], None, problem="the log ends within a line that was split")


def _docker_part(piece: Piece, begun: Collection[str]) -> _DockerLine | None:
    """Return a piece as a part of a line, None where it is something else; `begun` are the streams with a line that is not whole."""
    if piece.raw is None or not piece.raw.startswith(_DOCKER):
        return None
    try:
        line = _docker_line(piece.raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if line.stream in begun:
        return line
    if line.log.endswith("\n") or not line.log.startswith("{"):
        return None
    try:
        _any(line.log)  # collectors take the line break off a whole line
    except (msgspec.DecodeError, RecursionError):
        return line
    return None


def _csv_pieces(text: TextIO, delimiter: str) -> Iterator[Piece]:
    """Yield the rows of a CSV export as JSON."""
    csv.field_size_limit(VALUE_CHARS_MAX)
    rows = csv.reader(text, delimiter=delimiter)
    columns, line = next(rows), rows.line_num
    try:
        for row in rows:
            first_line, line = line + 1, rows.line_num
            if row:
                yield _row_piece(first_line, columns, row)
    except csv.Error as error:
        yield Piece(line + 1, None, problem=f"the file is not CSV ({error})")


def _row_piece(line: int, columns: Sequence[str], row: Sequence[str]) -> Piece:
    try:
        return Piece(line, msgspec.json.encode(of_cells(columns, row)))
    except (NotAnEventError, UnicodeEncodeError) as error:
        return Piece(line, None, problem=str(error) if isinstance(error, NotAnEventError) else "it is not UTF-8")
