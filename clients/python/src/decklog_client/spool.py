"""Records on disk: a folder of segments, of which this process appends to one and sends its own and those of dead processes."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from decklog_client import frames
from decklog_client.errors import ClosedError, SpoolError, SpoolFullError
from decklog_client.options import Options
from decklog_client.segment import NEW_SUFFIX, SUFFIX, ForeignFormatError, Segment, lock

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ADOPTED_MAX = 64
"""Segments of dead processes that one process holds at once."""
_LOOK_SECONDS = 0.5
"""Between two looks for room on a full disk, which other programs may free."""


class Batch(msgspec.Struct, frozen=True):
    """Records to be sent, in order. `end` is the offset behind them, `first` the number of the first one in this process, from 1."""

    segment: Segment
    records: list[bytes]
    end: int
    first: int | None


class Counts(msgspec.Struct):
    """Counts of the folder since the process began."""

    recorded: int = 0
    settled: int = 0
    adopted: int = 0
    torn: int = 0
    damaged: int = 0


class Spool:
    """The spool of one process in a folder that it may share. `append` may be called by any thread, the rest by the sender alone."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder, self._options = folder, options
        self._closed = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(f"The folder {folder} of the spool cannot be made: {error.strerror}.") from error
        self.begin()

    def begin(self) -> None:
        """Begin with no segment: in a new process, which a fork is as well."""
        self.counts = Counts()
        self.changed = threading.Condition(threading.Lock())
        self.wake = threading.Event()
        self.urgent = threading.Event()
        """Set where the sender must not collect a larger batch: there is a whole one, or somebody waits."""
        self.foreign: frozenset[str] = frozenset()
        self.pressed = False
        self._active: Segment | None = None
        self._sealed: deque[Segment] = deque()
        self._adopted: deque[Segment] = deque()
        self._held = self._others = 0
        self._own_turn = True

    def forked(self) -> None:
        """Begin anew in a forked process. The segments belong to the parent, whose locks they keep."""
        inherited = list(self.segments())
        self.begin()
        for segment in inherited:
            segment.forget()

    def segments(self) -> Iterator[Segment]:
        """Iterate over the segments that this process holds."""
        yield from (*self._adopted, *self._sealed)
        if self._active is not None:
            yield self._active

    @property
    def size(self) -> int:
        """Bytes of all segments in the folder, those of other processes as of the last look."""
        return self._held + self._others

    def append(self, record: bytes, *, wait: float) -> int:
        """Return the number of a record in this process, from 1, once it is on disk. Raises SpoolError and ClosedError."""
        frame = frames.frame(record)
        with self.changed:
            cause = self._append(frame)
            if cause is not None:
                self._await_room(frame, cause, wait)
            self.counts.recorded += 1
            number, segment = self.counts.recorded, self._active
        if number - self.counts.settled >= self._options.batch_records:
            self.hurry()
        elif not self.wake.is_set():
            self.wake.set()
        if self._options.fsync == "always" and segment is not None:
            self._sync(segment)
        return number

    def hurry(self) -> None:
        """Have the sender send what there is without collecting more."""
        if not self.urgent.is_set():
            self.urgent.set()
        if not self.wake.is_set():
            self.wake.set()

    def _await_room(self, frame: bytes, cause: OSError, wait: float) -> None:
        deadline = time.monotonic() + wait
        current: OSError | None = cause
        while current is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                detail = f"The spool {self.folder} has no room: {current.strerror}. The record was not taken."
                raise SpoolFullError(detail) from current
            self.pressed = True
            self.hurry()
            self.changed.wait(min(left, _LOOK_SECONDS))
            current = self._append(frame)

    def _append(self, frame: bytes) -> OSError | None:
        """Append a frame, or return why there is no room."""
        if self._closed:
            raise ClosedError("The client is closed. The record was not taken.")
        if self.size + len(frame) + frames.HEADER_BYTES > self._options.spool_bytes:
            return OSError(errno.ENOSPC, f"{self._options.spool_bytes} bytes are used")
        try:
            self._active_for(len(frame)).append(frame)
        except OSError as error:
            if error.errno in _NO_ROOM:
                return error
            raise SpoolError(f"The spool {self.folder} cannot be written: {error.strerror}. The record was not taken.") from error
        self._held += len(frame)
        return None

    def _active_for(self, size: int) -> Segment:
        """Return the segment that takes the next frame."""
        active = self._active
        if active is not None and (active.end + size <= self._options.segment_bytes or active.end == frames.HEADER_BYTES):
            return active
        new = Segment.create(self.folder, durable=self._options.fsync == "always")
        self._held += new.end
        if active is not None:
            active.sealed = True
            self._sealed.append(active)
        self._active = new
        return new

    def _sync(self, segment: Segment) -> None:
        try:
            segment.sync()
        except OSError as error:
            raise SpoolError(
                f"The disk refuses to sync {segment.path.name}: {error.strerror}. The record may be lost."
            ) from error

    def sync(self) -> None:
        """Put what was appended on the disk."""
        with self.changed:
            unsynced = [segment for segment in self.segments() if segment.own and segment.unsynced]
        for segment in unsynced:
            self._sync(segment)

    def next_batch(self, records_max: int) -> Batch | None:
        """Return the next records to be sent, oldest first, in turn from own segments and from those of dead processes."""
        with self.changed:
            held = list(self.segments())
        own, others = [each for each in held if each.own], [each for each in held if not each.own]
        orders = (own, others) if self._own_turn else (others, own)
        self._own_turn = not self._own_turn
        for segments in orders:
            for segment in segments:
                batch = self._read(segment, records_max)
                if batch is not None:
                    return batch
        return None

    def _read(self, segment: Segment, records_max: int) -> Batch | None:
        if segment.settled >= segment.end:
            self._release(segment)
            return None
        wanted = self._options.batch_bytes
        data = segment.read(wanted, segment.settled)
        found = frames.scan(data, records_max=records_max, bytes_max=wanted)
        if not found.records and len(data) == wanted:  # one record may be larger than a batch
            rest = segment.read(frames.FRAME_BYTES_MAX + frames.FRAME_HEAD_BYTES, segment.settled)
            found = frames.scan(rest, records_max=1, bytes_max=wanted)
        if not found.records:
            self._cut(segment, found.end)
            return None
        first = self.counts.settled + 1 if segment.own else None
        return Batch(segment, found.records, segment.settled + sum(found.sizes), first)

    def _cut(self, segment: Segment, end: frames.End) -> None:
        """Cut what is no record off a segment, and keep it in a file of its own if it is more than the beginning of one."""
        with self.changed:
            if segment is self._active:  # the disk returned other bytes than were written: nothing more is appended behind them
                self._active = None
                self._sealed.append(segment)
        rest = segment.read(segment.end - segment.settled, segment.settled)
        if end is frames.End.TORN or (rest and not rest.strip(b"\0")):
            self.counts.torn += 1
        elif rest:
            segment.path.with_suffix(".damaged").write_bytes(rest)
            self.counts.damaged += 1
        with self.changed:
            self._held -= len(rest)
            segment.cut()
        self._release(segment)

    def settle(self, batch: Batch) -> None:
        """Note that the records of a batch are stored or refused, and delete the file if it has no others."""
        batch.segment.settle(batch.end)
        with self.changed:
            if batch.first is not None:
                self.counts.settled += len(batch.records)
            self.changed.notify_all()
        self._release(batch.segment)

    def _release(self, segment: Segment) -> None:
        """Delete a segment that is settled; the active one only where it has grown, or its space is needed."""
        with self.changed:
            if segment.settled < segment.end:
                return
            if segment is self._active:
                if segment.end < self._options.segment_bytes // 4 and not self.pressed and not self._closed:
                    return
                self._active = None
            elif segment in (self._sealed if segment.own else self._adopted):
                (self._sealed if segment.own else self._adopted).remove(segment)
            else:  # the spool was closed meanwhile
                return
            self._held -= segment.end
            self.pressed = False
        segment.remove()  # outside of the lock: it waits for a sync that is under way
        with self.changed:
            self.changed.notify_all()

    def reclaim(self) -> None:
        """Delete the active segment if it is settled and its space is needed."""
        active = self._active
        if active is not None:
            self._release(active)

    def adopt(self) -> None:
        """Take over the segments of processes that have ended, oldest first, and count the bytes of the others."""
        with self.changed:
            held = {segment.path.name for segment in self.segments()}
        foreign: set[str] = set()
        others = 0
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path.name in held:
                continue
            if len(self._adopted) < _ADOPTED_MAX and self._adopt(path, foreign):
                continue
            others += _size(path)
        for path in self.folder.glob(f"*{NEW_SUFFIX}"):
            _remove_abandoned(path)
        self._others, self.foreign = others, frozenset(foreign)

    def _adopt(self, path: Path, foreign: set[str]) -> bool:
        try:
            segment = Segment.adopt(path)
        except ForeignFormatError:
            foreign.add(path.name)
            return False
        if segment is None:
            return False
        with self.changed:
            self._adopted.append(segment)
            self._held += segment.end
        self.counts.adopted += 1
        if segment.settled >= segment.end:
            self._release(segment)
        return True

    def wait_settled(self, number: int, timeout: float) -> bool:
        """Return whether the first `number` records of this process are settled within `timeout` seconds."""
        with self.changed:
            return self.changed.wait_for(lambda: self.counts.settled >= number, timeout)

    @property
    def waiting(self) -> bool:
        """True if records wait to be settled."""
        with self.changed:
            return any(segment.settled < segment.end for segment in self.segments())

    @property
    def closed(self) -> bool:
        """True if no further record is taken."""
        return self._closed

    def refuse(self) -> None:
        """Take no further record."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def close(self) -> None:
        """Release all locks. Segments with records stay, for the next process."""
        self.refuse()
        self.reclaim()
        with self.changed:
            segments = list(self.segments())
            self._active = None
            self._sealed.clear()
            self._adopted.clear()
        for segment in segments:
            segment.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove_abandoned(path: Path) -> None:
    """Remove a file that a process began and did not finish. Nothing in it was taken."""
    fd = lock(path)
    if fd is not None:
        path.unlink(missing_ok=True)
        os.close(fd)
