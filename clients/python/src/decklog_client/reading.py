"""Requests that read records, and the meaning of their answers. This module does no I/O."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from decklog_client.answers import Answer, Meaning, parse
from decklog_client.errors import ServerError
from decklog_client.records import Marked, Page, Record

Parameters = Mapping[str, str | int | Sequence[str]]
"""Query parameters by the API's names, such as `from`, `to`, `action`, `log`. A sequence repeats the parameter."""

Pairs = tuple[tuple[str, str], ...]

LINE_BYTES_MAX = 16 * 1024 * 1024
_BACKOFF_FIRST, _BACKOFF_MAX = 0.2, 10.0


def plain(parameters: Parameters | None, **others: str | int | None) -> Pairs:
    """Return parameters as pairs; those that are None or empty are left out."""
    pairs: list[tuple[str, str]] = []
    for name, value in {**(parameters or {}), **others}.items():
        values = [value] if isinstance(value, str | int) else value or []
        pairs += [(name, str(item)) for item in values if item != ""]
    return tuple(pairs)


def checked(status: int, body: bytes, retry_after: str) -> bytes:
    """Return the body of a good answer. Raises the error of another one as ServerError."""
    if status < 300:
        return body
    raise parse(status, body, retry_after).error()


class Lines:
    """Lines of a body that comes in pieces. They end at LF or CRLF only: the text of a record may contain other separators."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the lines that are whole now."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            raise ServerError("unknown", f"The server sent a line of more than {LINE_BYTES_MAX} bytes.")
        return [line.removesuffix(b"\r") for line in lines]

    def end(self) -> list[bytes]:
        """Return the last line, if it has no end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class Patience:
    """Waits between attempts, until nothing has come for `outage_max` seconds."""

    def __init__(self, outage_max: float) -> None:
        self._outage_max = outage_max
        self._since: float | None = None
        self._attempt = 0

    def progress(self) -> None:
        """Note that something came."""
        self._since, self._attempt = None, 0

    def delay(self, error: ServerError) -> float:
        """Return the seconds to wait before the next attempt. Raises the error where none can succeed, or it lasts too long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        passing = error.status == 0 or Answer(error.status, _BODY, None).meaning(-1) is Meaning.WAIT
        if not passing or now - self._since > self._outage_max:
            raise error
        self._attempt += 1
        grown = min(_BACKOFF_MAX, _BACKOFF_FIRST * 2 ** min(self._attempt, 20))
        return float(max(min(error.retry_after or 0.0, self._outage_max), grown))


class Pages:
    """A search, page by page."""

    path = "/logs/search"

    def __init__(self, query: str, parameters: Parameters | None, limit: int | None) -> None:
        self._body = {**(parameters or {}), **({"query": query} if query else {})}
        self._left = limit
        self.done = limit is not None and limit <= 0

    def body(self) -> bytes:
        """Return the body of the next request."""
        size = {} if self._left is None else {"limit": min(self._left, int(str(self._body.get("limit", 100))))}
        return msgspec.json.encode({**self._body, **size})

    def take(self, body: bytes) -> list[Record]:
        """Return the records of an answer."""
        page = msgspec.json.decode(body, type=Page)
        items = page.items[: self._left]
        self._left = None if self._left is None else self._left - len(items)
        self.done = page.next is None or self._left == 0
        if page.next is not None:
            self._body["cursor"] = page.next
        return items


class Tail:
    """A stream that is resumed after the last position that its caller has seen."""

    path = "/logs/stream"

    def __init__(self, query: str, parameters: Parameters | None, after: str | int | None) -> None:
        self._query, self._parameters = query, parameters
        self.position = "" if after is None else str(after)
        self._lines = Lines()
        self._kind, self._id = "", ""

    def begin(self) -> Pairs:
        """Return the parameters of the next request."""
        self._lines = Lines()
        self._kind, self._id = "", ""
        return plain(self._parameters, q=self._query, after=self.position)

    def feed(self, piece: bytes) -> Iterator[Record]:
        """Yield the records of a piece of the stream. Raises the error that ends the stream as ServerError."""
        for line in self._lines.feed(piece):
            name, _, value = line.partition(b": ")
            if name == b"id":
                self._id = value.decode()
            elif name == b"event":
                self._kind = value.decode()
            elif name == b"data":
                yield from self._event(value)

    def _event(self, data: bytes) -> Iterator[Record]:
        if self._kind == "problem":
            problem = msgspec.json.decode(data, type=Problem)
            raise parse(problem.status, data, "").error()
        if self._kind == "record":
            record = msgspec.json.decode(data, type=Record)
            record.position = self._id
            yield record
            self.position = self._id  # only now the caller has asked for the next one
        else:
            self.position = msgspec.json.decode(data, type=Marked).position or self.position


class Problem(msgspec.Struct):
    """The status of a problem document."""

    status: int = 500


class Export:
    """An export that continues after its last whole record, and ends where the first request said."""

    path = "/logs/export"

    def __init__(self, query: str, parameters: Parameters | None, after: str | int | None) -> None:
        self._query, self._parameters = query, parameters
        self._after = "" if after is None else str(after)
        self._end: int | None = None
        self._lines = Lines()

    def begin(self) -> Pairs:
        """Return the parameters of the next request."""
        self._lines = Lines()
        return plain(self._parameters, q=self._query, after=self._after, format="ndjson")

    def opened(self, position: str) -> None:
        """Note the position behind the last record, as the first answer has it."""
        last = position.rpartition(".")[2]
        if self._end is None and last.isascii() and last.isdigit():
            self._end = int(last)

    def feed(self, piece: bytes) -> Iterator[Record]:
        """Yield the records of a piece of the file."""
        yield from self._records(self._lines.feed(piece))

    def end(self) -> Iterator[Record]:
        """Yield the record of the last line, if it has no end."""
        yield from self._records(self._lines.end())

    def _records(self, lines: list[bytes]) -> Iterator[Record]:
        for line in lines:
            record = msgspec.json.decode(line, type=Record)
            if self._end is None or record.seq <= self._end:
                yield record
                self._after = str(record.seq)


_BODY = parse(0, b"", "").body
