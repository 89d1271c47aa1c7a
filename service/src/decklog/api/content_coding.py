"""Compression of answers whose length is not known, by what the client accepts (RFC 9110, 12.5.3)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import zstandard

PIECE_BYTES: Final = 64 * 1024
"""Bytes that are compressed at a time: about a millisecond's work."""
_GZIP_LEVEL: Final = 3
_ZSTD_LEVEL: Final = 1
_ZSTD_WINDOW_LOG: Final = 18
"""256 KiB. With level 1 one answer takes 0.6 MiB; level 3 takes twice that and compressed records no better."""
_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS
_ELEMENT = re.compile(r"\s*([!-~]+?)\s*(?:;\s*[qQ]\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?(?:;.*)?")


class Coder(Protocol):
    """Compresses one answer. It holds no whole byte back after `flush`, and `finish` ends the answer."""

    def compress(self, data: bytes, /) -> bytes:
        """Return what can be sent already."""
        ...

    def flush(self, mode: int, /) -> bytes:
        """Return what was held back."""
        ...


class Coding:
    """A content coding: its name in headers, and the coder of one answer."""

    def __init__(self, name: str, coder: Coder, flushed: int, finished: int) -> None:
        self.name = name
        self._coder = coder
        self._flushed = flushed
        self._finished = finished

    def piece(self, data: bytes) -> bytes:
        """Return a piece of the answer, compressed."""
        return self._coder.compress(data)

    def flush(self) -> bytes:
        """Return what makes all pieces so far readable, so that a slow answer moves on."""
        return self._coder.flush(self._flushed)

    def finish(self) -> bytes:
        """Return the end of the answer. Without it the client knows that the answer is not whole."""
        return self._coder.flush(self._finished)


def _gzip() -> Coding:
    return Coding("gzip", zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT), zlib.Z_SYNC_FLUSH, zlib.Z_FINISH)


def _zstd() -> Coding:
    parameters = zstandard.ZstdCompressionParameters.from_level(_ZSTD_LEVEL, window_log=_ZSTD_WINDOW_LOG, write_checksum=True)
    coder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return Coding("zstd", coder, zstandard.COMPRESSOBJ_FLUSH_BLOCK, zstandard.COMPRESSOBJ_FLUSH_FINISH)


_CODINGS = {"zstd": _zstd, "gzip": _gzip}
"""What the server prefers first, where the client has no preference."""


def weights(header: str) -> Mapping[str, float]:
    """Return the elements of an Accept or Accept-Encoding header, in lower case, with their weights; what is malformed is left out."""
    found: dict[str, float] = {}
    for element in header.split(","):
        if match := _ELEMENT.fullmatch(element):
            found[match[1].lower()] = float(match[2] or 1)
    return found


def preferred(header: str, offered: Iterable[str]) -> str | None:
    """Return the coding among `offered` that the client prefers, the first of several equals; None to send as it is."""
    accepted = weights(header)
    rest = accepted.get("*", 0.0)
    best, chosen = 0.0, None
    for name in offered:
        weight = accepted.get(name, accepted.get("x-gzip", rest) if name == "gzip" else rest)
        if weight > best:
            best, chosen = weight, name
    return chosen if best >= accepted.get("identity", 0.0) else None


def coding_for(header: str) -> Coding | None:
    """Return the coding that the client of this Accept-Encoding header prefers; None to send as it is."""
    name = preferred(header, _CODINGS)
    return None if name is None else _CODINGS[name]()
