"""Server-Sent Events of a stream (WHATWG HTML, 9.2)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

import httpx

from decklog.client.problems import decoded_problem
from decklog.domain.errors import Code, DecklogError

_LINE_END = re.compile(rb"\r\n?|\n")


class ServerEvent(NamedTuple):
    """One event: its kind (`opened`, `record`, `heartbeat`), its data as JSON, and the position that it reached."""

    kind: str
    data: bytes
    position: str


async def events(response: httpx.Response) -> AsyncGenerator[ServerEvent, None]:
    """Iterate over Server-Sent Events. Raises the error of a `problem` event.

    Servers before 0.1.0 name it `error`, and the first event `open`. The first event may have any name.
    """
    kind, data, position = "", list[bytes](), ""
    async for line in _event_lines(response.aiter_bytes()):
        name, _, value = line.partition(b":")
        if name == b"event":
            kind = value.removeprefix(b" ").decode()
        elif name == b"id":
            position = value.removeprefix(b" ").decode()
        elif name == b"data":
            data.append(value.removeprefix(b" "))
        elif not line and data:
            if kind in ("problem", "error"):
                raise _ended(response, b"\n".join(data))
            yield ServerEvent(kind, b"\n".join(data), position)
            kind, data = "", []


def _ended(response: httpx.Response, problem: bytes) -> DecklogError:
    return decoded_problem(problem) or DecklogError(
        Code.INTERNAL, f"{response.url.host} ended the stream without a problem document."
    )


async def _event_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Iterate over the lines of an event stream, which end at LF, CR or CRLF only (WHATWG HTML, 9.2.5).

    `aiter_lines` of httpx also splits at U+2028, U+2029 and U+0085, which the text of a record may contain.
    """
    rest, after_cr = b"", False
    async for received in pieces:
        piece = received[1:] if after_cr and received.startswith(b"\n") else received
        after_cr = received.endswith(b"\r")
        *lines, rest = _LINE_END.split(rest + piece)
        for line in lines:
            yield line
