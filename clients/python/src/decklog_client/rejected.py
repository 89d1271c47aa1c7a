"""The file of refused records, which all processes of a folder share."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from decklog_client.errors import Refusal

NAME = "rejected.ndjson"


def keep(folder: Path, refusals: Sequence[Refusal], *, bytes_max: int) -> None:
    """Append refusals to the file, one on each line.

    Raises OSError where the file or the disk is full, or another process writes to it; then nothing is appended.
    """
    data = b"".join(msgspec.json.encode(refusal) + b"\n" for refusal in refusals)
    fd = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.fstat(fd).st_size
        if size + len(data) > bytes_max:
            raise OSError(errno.EFBIG, f"{NAME} has {size} of at most {bytes_max} bytes. Move it away")
        _append(fd, data, size)
    finally:
        os.close(fd)


def _append(fd: int, data: bytes, size: int) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise
