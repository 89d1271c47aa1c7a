"""The format of a segment: a header, then frames. A frame is the length and the CRC-32 of a record, then the record.

The header has the version of the format, and the progress: the offset below which every record is settled. This module
does no I/O.
"""

from __future__ import annotations

import struct
import zlib
from enum import Enum, auto

import msgspec

MAGIC = b"decklog"
VERSION = 1
HEADER_BYTES = 32
PROGRESS_AT = 16
"""Offset of the progress in the header."""
FRAME_HEAD_BYTES = 8
FRAME_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of a record that a reader accepts; a larger length is damage."""

_HEAD = struct.Struct("<II")
_PROGRESS = struct.Struct("<QI")
_LENGTH = struct.Struct("<I")


class End(Enum):
    """Why the frames of some bytes end."""

    CLEAN = auto()
    """With the last whole frame."""
    TORN = auto()
    """With the first part of a frame: the writer was killed, or the rest has not been read."""
    DAMAGED = auto()
    """With bytes that are no frame."""


class Frames(msgspec.Struct, frozen=True):
    """The whole records at the beginning of some bytes.

    Attributes:
        records: The records, each as JSON.
        sizes: For each record the bytes of its frame.
        end: What follows them.
    """

    records: list[bytes]
    sizes: list[int]
    end: End


def header() -> bytes:
    """Return the header of a new segment."""
    return (MAGIC + bytes([VERSION])).ljust(PROGRESS_AT, b"\0") + progress(HEADER_BYTES).ljust(HEADER_BYTES - PROGRESS_AT, b"\0")


def version(head: bytes) -> int | None:
    """Return the version of the format, or None where this is no header of a segment."""
    return head[len(MAGIC)] if len(head) >= HEADER_BYTES and head.startswith(MAGIC) else None


def progress(offset: int) -> bytes:
    """Return a progress as it is written at `PROGRESS_AT`."""
    return _PROGRESS.pack(offset, zlib.crc32(offset.to_bytes(8, "little")))


def read_progress(head: bytes) -> int:
    """Return the progress in a header. A progress that a crash tore counts as none: the server recognises what it has."""
    offset, check = _PROGRESS.unpack_from(head, PROGRESS_AT)
    whole = check == zlib.crc32(int(offset).to_bytes(8, "little"))
    return int(offset) if whole and offset >= HEADER_BYTES else HEADER_BYTES


def frame(record: bytes) -> bytes:
    """Return the frame of a record. The checksum covers the length, so a run of zeros is no frame."""
    return _HEAD.pack(len(record), _check(record)) + record


def _check(record: bytes) -> int:
    return zlib.crc32(record, zlib.crc32(_LENGTH.pack(len(record))))


def scan(data: bytes, *, records_max: int, bytes_max: int) -> Frames:
    """Return the whole frames at the beginning of `data`: at most `records_max`, and `bytes_max` bytes of frames, but at least one."""
    records: list[bytes] = []
    sizes: list[int] = []
    at, end = 0, End.CLEAN
    while at < len(data) and len(records) < records_max:
        record, end = _at(data, at)
        if record is None or (records and at + FRAME_HEAD_BYTES + len(record) > bytes_max):
            break
        records.append(record)
        sizes.append(FRAME_HEAD_BYTES + len(record))
        at += sizes[-1]
    return Frames(records, sizes, end)


def _at(data: bytes, at: int) -> tuple[bytes | None, End]:
    """Return the record of the frame at an offset; None where there is no whole one."""
    if len(data) - at < FRAME_HEAD_BYTES:
        return None, End.TORN
    length, check = _HEAD.unpack_from(data, at)
    if not 0 < length <= FRAME_BYTES_MAX:
        return None, End.DAMAGED
    record = data[at + FRAME_HEAD_BYTES : at + FRAME_HEAD_BYTES + length]
    if len(record) < length:
        return None, End.TORN
    return (record, End.CLEAN) if _check(record) == check else (None, End.DAMAGED)
