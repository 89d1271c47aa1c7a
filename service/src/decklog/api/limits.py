"""Bodies of requests, with every size and time bounded: an oversized body is refused while it arrives, not after.

Compressed bodies are decompressed in small steps up to the same limit, so a decompression bomb costs no more than a body. Each byte
is counted for its tenant when it arrives or is decompressed; beyond the tenant's share the request is refused.
"""

from __future__ import annotations

import asyncio
import zlib
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, Final, cast

import msgspec
import zstandard
from litestar import Request
from litestar.types import Receive, Scope

from decklog.api.request import require_json
from decklog.domain.errors import Code, DecklogError
from decklog.domain.faults import syntax
from decklog.domain.records.record import RECORD_BYTES_MAX
from decklog.services.budget import Budget, Held
from decklog.services.records.ingest import RECORDS_PER_REQUEST_MAX

BULK_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of a bulk, both as sent and decompressed."""
BODY_SECONDS_MAX: Final = 60
"""Seconds for a whole body to arrive; 16 MiB need 2.2 Mbit/s."""

BODY_ERRORS = (
    Code.REQUEST_TIMEOUT,
    Code.BODY_TOO_LARGE,
    Code.UNSUPPORTED_ENCODING,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.INVALID_JSON,
)
"""Errors of every request with a body: of its headers, its transfer and its syntax."""

_STEP_BYTES = 256 * 1024
"""Decompressed bytes at a time: less than a millisecond's work."""
_ZSTD_STEP = 256
"""Compressed bytes at a time: four bytes may encode 128 KiB, so one step yields at most 8 MiB."""
_ZSTD_WINDOW_MAX = 8 * 1024 * 1024
_MEMBERS_MAX = 1_000
"""Gzip members or zstd frames of one body."""
_BLANK_LINES_MAX = 10_000
RECORD_OVERHEAD_BYTES: Final = 512
"""Bytes that a prepared record takes beside its content."""


STALLED: Final = "stalled"
"""Member of a scope's `state`: the client was disconnected because it did not read its answer."""


def too_slow(scope: Scope) -> DecklogError | None:
    """Return the reason for the access record if the client of this request was disconnected for not reading, else None."""
    if not scope["state"].get(STALLED):
        return None
    return DecklogError(Code.READER_TOO_SLOW, "The client did not read the answer, and was disconnected.")


class ClientGoneError(Exception):
    """The client disconnected before its request was complete, so no answer can be sent."""


def _too_large(limit: int) -> DecklogError:
    return DecklogError(
        Code.BODY_TOO_LARGE, f"The body may have at most {limit} bytes, also after decompression. Split it into several requests."
    )


def check_length(declared: bytes | None, limit: int, held: Held | None = None) -> None:
    """Refuse a body by its Content-Length, before reading it. Raises `body-too-large` and, where `held` has no room, `overloaded`."""
    if declared is None or not declared.isdigit():
        return
    length = int(declared[:20])
    if length > limit:
        raise _too_large(limit)
    if held is not None:
        held.check(length)


class _Rest(Awaitable[Any]):
    """The rest of a coroutine that was started and now waits for `waited`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waited: Any) -> None:
        self._coroutine = coroutine
        self._waited = waited

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            yield self._waited
            return (yield from self._coroutine.__await__())
        finally:
            self._coroutine.close()


async def read_body(receive: Receive, limit: int = RECORD_BYTES_MAX, *, held: Held | None = None) -> bytes:
    """Return the whole body. Raises `body-too-large`, `request-timeout`, `overloaded` and ClientGoneError.

    `held` counts the bytes of a body that arrives in parts, as they arrive.

    The timeout starts only if the body has not arrived yet: nearly every single record arrives with its headers, and a timer
    would cost 5 % of the request.
    """
    first = _arrived(receive, limit)
    return first if isinstance(first, bytes) else await _in_time(receive, limit, first, held)


async def json_body(request: Request[Any, Any, Any], subject: str, limit: int) -> bytes:
    """Return the whole body of a request that is uncompressed JSON. `subject` names its content, as in "a key".

    Raises `unsupported-media-type`, `unsupported-encoding`, and what `read_body` raises.
    """
    headers = dict(request.scope["headers"])
    require_json(headers, subject)
    check_length(headers.get(b"content-length"), limit)
    return await read_body(request.receive, limit)


async def read_record(receive: Receive, bodies: Budget, tenant_id: int, limit: int = RECORD_BYTES_MAX) -> bytes:
    """Return the whole body of one record, as `read_body`. One that arrives in parts is counted for its tenant meanwhile."""
    first = _arrived(receive, limit)
    if isinstance(first, bytes):
        return first
    with bodies.account(tenant_id) as held:
        return await _in_time(receive, limit, first, held)


def _arrived(receive: Receive, limit: int) -> bytes | dict[str, Any] | _Rest:
    """Return the body if all of it is there, else what begins it."""
    receiving = cast("Coroutine[Any, Any, dict[str, Any]]", receive())
    try:
        return _Rest(receiving, receiving.send(None))
    except StopIteration as arrived:
        first: dict[str, Any] = arrived.value
    if first["type"] == "http.request" and not first["more_body"] and len(first["body"]) <= limit:
        return cast("bytes", first["body"])
    return first


async def _in_time(receive: Receive, limit: int, first: dict[str, Any] | _Rest, held: Held | None) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            return await _whole(receive, limit, first, held)
    except TimeoutError:
        raise DecklogError(Code.REQUEST_TIMEOUT, f"The body did not arrive within {BODY_SECONDS_MAX} seconds.") from None


async def _whole(receive: Receive, limit: int, first: dict[str, Any] | _Rest, held: Held | None) -> bytes:
    message: dict[str, Any] = await first if isinstance(first, _Rest) else first
    body = bytearray()
    while message["type"] == "http.request":
        body += message["body"]
        if len(body) > limit:
            raise _too_large(limit)
        if held is not None:
            held.take(len(message["body"]))
        if not message["more_body"]:
            return bytes(body)
        message = cast("dict[str, Any]", await receive())
    raise ClientGoneError


async def decoded(body: bytes, encoding: str, limit: int = BULK_BYTES_MAX, *, held: Held | None = None) -> bytes:
    """Return the decompressed body. `held` counts it in place of the compressed one, and once more for what will be made of it.

    Raises:
        DecklogError: `unsupported-encoding`, `body-too-large`, and `overloaded` where `held` has no room.
    """
    if encoding in ("", "identity"):
        if held is not None:
            held.take(len(body))
        return body
    unpack = _UNPACK.get(encoding)
    if unpack is None:
        raise DecklogError(Code.UNSUPPORTED_ENCODING, f"Content-Encoding {encoding[:40]!r} is not one of gzip, zstd, identity.")
    steps = unpack(body, limit)
    parts: list[bytes] = []
    size = 0
    part = next(steps, None)
    while part is not None:
        if held is not None:
            held.take(2 * len(part))
        parts.append(part)
        size += len(part)
        # A small body costs no thread. For a larger one, threads decompress without the interpreter's lock.
        part = next(steps, None) if size < _STEP_BYTES else await asyncio.to_thread(next, steps, None)
    if held is not None:
        held.give(len(body))
    return b"".join(parts)


def _broken(name: str) -> DecklogError:
    return DecklogError(Code.UNSUPPORTED_ENCODING, f"The body is not valid {name}, or is truncated.")


def _gunzip(body: bytes, limit: int) -> Iterator[bytes]:
    """Yield the decompressed body in steps."""
    left = limit
    rest = body
    for _ in range(_MEMBERS_MAX):
        member = zlib.decompressobj(wbits=31)
        try:
            while rest and not member.eof:
                part = member.decompress(rest, min(_STEP_BYTES, left + 1))
                left -= len(part)
                if left < 0:
                    raise _too_large(limit)
                if part:
                    yield part
                rest = member.unconsumed_tail
            if not member.eof:
                raise _broken("gzip")
        except zlib.error:
            raise _broken("gzip") from None
        rest = member.unused_data
        if not rest:
            return
    raise _broken("gzip of at most a thousand members")


def _unzstd(body: bytes, limit: int) -> Iterator[bytes]:
    """Yield the decompressed body in steps."""
    left = limit
    out: list[bytes] = []
    size = 0
    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    frames = 1
    frame = unpacker.decompressobj()
    at = 0
    try:
        while at < len(body):
            if frame.eof:
                frames += 1
                if frames > _MEMBERS_MAX:
                    raise _broken("zstd of at most a thousand frames")
                frame = unpacker.decompressobj()
            step = body[at : at + _ZSTD_STEP]
            out.append(frame.decompress(step))
            size += len(out[-1])
            at += len(step) - len(frame.unused_data)
            if size > left:
                raise _too_large(limit)
            if size >= _STEP_BYTES:
                yield b"".join(out)
                left -= size
                out, size = [], 0
    except zstandard.ZstdError:
        raise _broken("zstd") from None
    if not frame.eof:
        raise _broken("zstd")
    yield b"".join(out)


_UNPACK: dict[str, Callable[[bytes, int], Iterator[bytes]]] = {"gzip": _gunzip, "x-gzip": _gunzip, "zstd": _unzstd}


# A JSON array is split by decoding it into a structure with one member more than the maximum number of items. The decoder
# checks and skips further items without keeping them, so an array of millions costs no memory.
_NOTHING = msgspec.Raw(b"")
_Items = msgspec.defstruct(
    "_Items", [(f"item{index}", msgspec.Raw, _NOTHING) for index in range(RECORDS_PER_REQUEST_MAX + 1)], array_like=True
)
_items = msgspec.json.Decoder(_Items)


def _too_many() -> DecklogError:
    return DecklogError(
        Code.TOO_MANY_RECORDS, f"A bulk may have at most {RECORDS_PER_REQUEST_MAX} records. Split it into several requests."
    )


def split_array(body: bytes) -> list[msgspec.Raw]:
    """Return the items of a JSON array, each as its own bytes. Raises `invalid-json` and `too-many-records`."""
    try:
        found: tuple[msgspec.Raw, ...] = msgspec.structs.astuple(_items.decode(body.removeprefix(BOM_UTF8)))
    except msgspec.ValidationError:
        raise DecklogError(
            Code.INVALID_JSON, "The body is not a JSON array of records. Send NDJSON as application/x-ndjson."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecklogError(Code.INVALID_JSON, f"The body is not valid JSON in UTF-8: {syntax(error)}.") from None
    except RecursionError:
        raise DecklogError(Code.INVALID_JSON, "The body is nested too deeply.") from None
    if found[-1] is not _NOTHING:
        raise _too_many()
    return list(found[: found.index(_NOTHING)])


def split_lines(body: bytes) -> list[bytes]:
    """Return the lines of NDJSON without blank ones. Raises `too-many-records`."""
    if body.count(b"\n") > RECORDS_PER_REQUEST_MAX + _BLANK_LINES_MAX:
        raise _too_many()
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
    if len(lines) > RECORDS_PER_REQUEST_MAX:
        raise _too_many()
    return lines
