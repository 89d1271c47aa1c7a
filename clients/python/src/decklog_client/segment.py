"""One file of the spool, which one process owns by a lock (`flock`) for as long as it lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from pathlib import Path

from decklog_client import frames

SUFFIX = ".spool"
NEW_SUFFIX = ".new"
"""Of a file without a whole header. Nothing in it was ever taken."""
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_CREATE_TRIES = 3
_OPEN = os.O_RDWR | os.O_CLOEXEC


class ForeignFormatError(Exception):
    """A segment has a format that this version cannot read. It stays as it is."""


class Segment:
    """A segment that this process has locked. `end` is behind its last whole record, `settled` behind the last settled one."""

    def __init__(self, path: Path, fd: int, *, settled: int, end: int, own: bool) -> None:
        self.path, self.settled, self.end, self.own = path, settled, end, own
        self.sealed = not own
        self._fd = fd
        self._synced = 0
        self._syncing = threading.Lock()
        self._using = threading.Lock()
        """Held while the descriptor is used, so that its number cannot mean another file meanwhile."""

    @classmethod
    def create(cls, folder: Path, *, durable: bool) -> Segment:
        """Return a new, locked segment. Raises OSError, for example where the disk is full."""
        for _ in range(_CREATE_TRIES):
            with contextlib.suppress(BlockingIOError, FileNotFoundError):  # another process took the new file for a dead one's
                return cls._create(folder, durable)
        return cls._create(folder, durable)

    @classmethod
    def _create(cls, folder: Path, durable: bool) -> Segment:
        path = folder / f"{time.time_ns():020d}-{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"
        new = path.with_suffix(NEW_SUFFIX)
        fd = os.open(new, _CREATE, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_at(fd, frames.header(), 0)
            if durable:
                os.fsync(fd)
            new.rename(path)  # only now others see it, and it is locked
            if durable:
                sync_folder(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            os.close(fd)
            raise
        return cls(path, fd, settled=frames.HEADER_BYTES, end=frames.HEADER_BYTES, own=True)

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """Return the segment of a process that has ended, locked; None where its process lives, or it is gone.

        Raises ForeignFormatError and OSError.
        """
        fd = lock(path)
        if fd is None:
            return None
        try:
            head, size = os.pread(fd, frames.HEADER_BYTES, 0), os.fstat(fd).st_size
            if not head.strip(b"\0") and size <= frames.HEADER_BYTES:  # a power cut: only the name reached the disk
                return cls(path, fd, settled=size, end=size, own=False)
            if frames.version(head) != frames.VERSION:
                raise ForeignFormatError(path.name)
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, settled=frames.read_progress(head), end=size, own=False)

    def append(self, frame: bytes) -> None:
        """Write a frame behind the last one. Raises OSError, and then the segment is as before."""
        try:
            write_at(self._fd, frame, self.end)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.end)
            raise
        self.end += len(frame)

    def read(self, size: int, offset: int) -> bytes:
        """Return at most `size` bytes from an offset, and none behind the last whole record."""
        with self._using:
            return os.pread(self._fd, min(size, self.end - offset), offset)

    def settle(self, offset: int) -> None:
        """Note that all records below an offset are settled. A disk that refuses the note costs a repetition after a crash, no record."""
        self.settled = offset
        with self._using, contextlib.suppress(OSError):
            os.pwrite(self._fd, frames.progress(offset), frames.PROGRESS_AT)

    def cut(self) -> None:
        """Remove what is behind the settled records: it is no record."""
        self.end = self.settled
        with self._using, contextlib.suppress(OSError):
            os.ftruncate(self._fd, self.end)

    def sync(self) -> None:
        """Return once everything that was appended before the call is on the disk. One call of the system serves all who wait."""
        wanted = self.end
        with self._syncing:
            if self._fd >= 0 and self._synced < wanted:  # a file that is deleted has no record that is not stored
                reached = self.end
                _sync(self._fd)
                self._synced = reached

    @property
    def unsynced(self) -> bool:
        """True if bytes have been appended since the last `sync`."""
        return self._synced < self.end

    def remove(self) -> None:
        """Delete the file and release the lock."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Release the lock; the file stays for another process. In a fork, the lock stays with the parent."""
        with self._syncing, self._using:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def forget(self) -> None:
        """Close the descriptor in a forked process, where the locks may be held by a thread that does not exist there."""
        self._syncing, self._using = threading.Lock(), threading.Lock()
        self.close()


def lock(path: Path) -> int | None:
    """Return a descriptor that locks a file; None where a living process has it, or it is gone."""
    try:
        fd = os.open(path, _OPEN)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.stat()):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at an offset. A call may write a part; where the next one writes nothing, the disk is full."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        more = os.pwrite(fd, data[written:], offset + written)
        if more == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += more


def sync_folder(folder: Path) -> None:
    """Put the names of a folder on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_sync = getattr(os, "fdatasync", os.fsync)
