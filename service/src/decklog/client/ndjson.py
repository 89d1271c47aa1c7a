"""Lines of NDJSON from pieces of any size."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator


async def lines(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines of a transfer, each without its end. Only LF ends a line: JSON may hold any other separator as text."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest
