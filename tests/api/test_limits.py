"""Properties of request bodies: splitting and decompressing invert joining and compressing."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from decklog.api import limits
from decklog.api.limits import ClientGoneError, decoded, read_body, split_array, split_lines
from decklog.domain.errors import Code, DecklogError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.lists(VALUES, max_size=30), st.sampled_from([None, 1]), st.booleans())
def test_split_array_returns_the_encoded_items(items: list[object], indent: int | None, ascii_only: bool) -> None:
    body = json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode()
    assert [msgspec.json.decode(raw) for raw in split_array(body)] == items


@given(st.lists(VALUES, max_size=30), st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\r\n"]), st.booleans())
def test_split_lines_returns_the_encoded_values(items: list[object], separator: str, ended: bool) -> None:
    body = separator.join(json.dumps(item) for item in items) + (separator if ended else "")
    assert [msgspec.json.decode(line) for line in split_lines(body.encode())] == items


def _zstd(part: bytes) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(part) + packer.flush()


@given(st.lists(st.binary(max_size=3_000), min_size=1, max_size=5), st.sampled_from(["gzip", "zstd"]))
def test_decoded_inverts_compression_of_any_number_of_members(parts: list[bytes], encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else _zstd
    packed, whole = b"".join(map(pack, parts)), b"".join(parts)
    assert asyncio.run(decoded(packed, encoding)) == whole
    assert asyncio.run(decoded(packed, encoding, limit=len(whole))) == whole
    if whole:
        with pytest.raises(DecklogError) as caught:
            asyncio.run(decoded(packed, encoding, limit=len(whole) - 1))
        assert caught.value.code is Code.BODY_TOO_LARGE


@given(st.binary(min_size=1, max_size=2_000), st.sampled_from(["gzip", "zstd"]), st.data())
def test_decoded_refuses_a_truncated_body(body: bytes, encoding: str, data: st.DataObject) -> None:
    packed = gzip.compress(body, mtime=0) if encoding == "gzip" else _zstd(body)
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    with pytest.raises(DecklogError) as caught:
        asyncio.run(decoded(cut, encoding))
    assert caught.value.code is Code.UNSUPPORTED_ENCODING


@given(st.binary(max_size=500), st.sampled_from(["gzip", "zstd"]))
def test_decoded_never_crashes_on_random_bytes(body: bytes, encoding: str) -> None:
    try:
        asyncio.run(decoded(body, encoding))
    except DecklogError as error:
        assert error.code in (Code.UNSUPPORTED_ENCODING, Code.BODY_TOO_LARGE)  # noqa: PT017 - either outcome is right


class Slow:
    """A client that sends its messages one by one; with `waits` the event loop runs before each."""

    def __init__(self, messages: list[dict[str, Any]], *, waits: bool = False) -> None:
        self._messages = iter(messages)
        self._waits = waits

    async def receive(self) -> Any:
        if self._waits:
            await asyncio.sleep(0.001)
        message = next(self._messages, None)
        return message if message is not None else await asyncio.Event().wait()


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.booleans(), st.integers(0, 60))
def test_read_body_joins_parts_or_refuses_an_oversized_body(parts: list[bytes], waits: bool, limit: int) -> None:
    messages = [part(each, more=number < len(parts)) for number, each in enumerate(parts, start=1)]
    reading = read_body(Slow(messages, waits=waits).receive, limit)
    if len(b"".join(parts)) > limit:
        with pytest.raises(DecklogError) as refused:
            asyncio.run(reading)
        assert refused.value.code is Code.BODY_TOO_LARGE
    else:
        assert asyncio.run(reading) == b"".join(parts)


@pytest.mark.parametrize("begun", [True, False])
async def test_read_body_times_out_when_the_body_does_not_arrive(begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS_MAX", 0.05)
    with pytest.raises(DecklogError) as refused:
        await read_body(Slow([part(b"begun", more=True)] if begun else []).receive)
    assert refused.value.code is Code.REQUEST_TIMEOUT


@pytest.mark.parametrize("begun", [True, False])
async def test_read_body_raises_when_the_client_disconnects(begun: bool) -> None:
    gone = {"type": "http.disconnect"}
    with pytest.raises(ClientGoneError):
        await read_body(Slow([part(b"begun", more=True), gone] if begun else [gone]).receive)


async def test_read_body_can_be_cancelled() -> None:
    left = asyncio.Event()

    async def receive() -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    reading = asyncio.create_task(read_body(receive))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert left.is_set()
