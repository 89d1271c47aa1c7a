"""The format of a segment: any bytes are read as the whole records at their beginning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from decklog_client import frames
from decklog_client.frames import End

RECORDS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


def scanned(data: bytes) -> frames.Frames:
    return frames.scan(data, records_max=1_000, bytes_max=1_000_000)


@given(RECORDS, st.data())
def test_frames_cut_at_any_byte_are_the_records_before_it(records: list[bytes], data: st.DataObject) -> None:
    written = b"".join(map(frames.frame, records))
    cut = data.draw(st.integers(0, len(written)))
    found = scanned(written[:cut])
    assert found.records == records[: len(found.records)]
    assert sum(found.sizes) <= cut
    whole = sum(found.sizes) == cut
    assert found.end is (End.CLEAN if whole else End.TORN)
    rest = records[len(found.records) :]
    assert whole or cut - sum(found.sizes) < frames.FRAME_HEAD_BYTES + len(rest[0])


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8), st.data())
def test_frames_with_a_changed_byte_end_before_it(records: list[bytes], data: st.DataObject) -> None:
    written = bytearray(b"".join(map(frames.frame, records)))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    found = scanned(bytes(written))
    assert found.records == records[: len(found.records)]
    assert sum(found.sizes) <= at
    assert found.end is not End.CLEAN


@given(st.binary(max_size=200))
def test_frames_of_any_bytes_are_no_error(data: bytes) -> None:
    found = scanned(data)
    assert b"".join(map(frames.frame, found.records)) == data[: sum(found.sizes)]


@given(RECORDS, st.integers(1, 5), st.integers(1, 200))
def test_frames_are_bounded_by_number_and_bytes(records: list[bytes], most: int, size: int) -> None:
    found = frames.scan(b"".join(map(frames.frame, records)), records_max=most, bytes_max=size)
    assert len(found.records) <= most
    assert len(found.records) <= 1 or sum(found.sizes) <= size
    assert bool(found.records) == bool(records)


def test_zeros_are_no_frames() -> None:
    assert scanned(bytes(64)) == frames.Frames([], [], End.DAMAGED)


@given(st.integers(frames.HEADER_BYTES, 2**40), st.integers(0, 11), st.integers(1, 255))
def test_progress_is_read_back_and_a_torn_one_counts_as_none(offset: int, at: int, flip: int) -> None:
    head = bytearray(frames.header())
    head[frames.PROGRESS_AT : frames.PROGRESS_AT + 12] = frames.progress(offset)
    assert frames.read_progress(bytes(head)) == offset
    head[frames.PROGRESS_AT + at] ^= flip
    assert frames.read_progress(bytes(head)) == frames.HEADER_BYTES


def test_format_of_version_1_stays_readable() -> None:
    """These bytes were written by the first version: a spool outlives an upgrade of the library."""
    head = "6465636b6c6f6701000000000000000020000000000000003fbd549c00000000"
    segment = bytes.fromhex(head + "0a000000d9031e167b226964223a2231227d0200000014ad751e7b7d")
    assert frames.version(segment[: frames.HEADER_BYTES]) == 1
    assert frames.read_progress(segment) == frames.HEADER_BYTES
    assert scanned(segment[frames.HEADER_BYTES :]) == frames.Frames([b'{"id":"1"}', b"{}"], [18, 10], End.CLEAN)
