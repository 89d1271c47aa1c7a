"""The progress of an import: one line that is redrawn on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

BAR_CHARS = 24
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 5.0
_WAIT_SECONDS = 30.0
_NAME_CHARS_MIN = 8
"""Where less room is left for a file's name, the bar is left out."""


def printable(text: str) -> str:
    """Return the text with every character that a terminal would obey replaced by its hexadecimal code."""
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


class Progress:
    """Shows how far an import of several files has come.

    Args:
        stream: Where it writes.
        live: Whether `stream` is a terminal.
        clock: Returns seconds; only differences count.
    """

    def __init__(self, stream: TextIO, *, live: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._live = live
        self._clock = clock
        self._drawn = False
        self._total = 0
        self._files = self._number = 1
        self._began = clock()
        self._next = self._began + (0.0 if live else _LINE_SECONDS)
        self._next_wait = 0.0
        self._skipped = (0, 0)

    def begin(self, total: int, files: int = 1) -> None:
        """Begin an import of so many files that have `total` bytes together; 0 for an unknown size."""
        self._total = total
        self._files = files
        self._began = self._clock()

    def file(self, number: int) -> None:
        """Begin with the file of this number, from 1."""
        self._number = number

    def skip(self, done: int, records: int) -> None:
        """Count bytes and records of an earlier, interrupted import as done, without counting them in the rate."""
        self._skipped = (self._skipped[0] + done, self._skipped[1] + records)

    def advance(self, name: str, done: int, records: int) -> None:
        """Show that `done` bytes and `records` records of all files are done, and that `name` is in work. Cheap to call often."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + (_REDRAW_SECONDS if self._live else _LINE_SECONDS)
        share = min(done / self._total, 1.0) if self._total else 1.0
        status = self._status(share, done, records, max(now - self._began, 0.001))
        if self._live:
            self._draw(_fitted(name, share, status, shutil.get_terminal_size().columns - 1))
        else:
            self.say(f"{name}: {status.strip()}")

    def _status(self, share: float, done: int, records: int, elapsed: float) -> str:
        """Return share, count, rate and time left, which are never cut."""
        skipped_bytes, skipped_records = self._skipped
        rate = (records - skipped_records) / elapsed
        read = done - skipped_bytes
        if not self._total:
            return f" {records:,} records, {rate:,.0f}/s"
        of_files = f" file {self._number:,}/{self._files:,}," if self._files > 1 else ""
        left = f", {_duration(elapsed * max(self._total - done, 0) / read)} left" if read > 0 else ""
        return f"{share:4.0%}{of_files} {records:,} records, {rate:,.0f}/s{left}"

    def waiting(self, why: str) -> None:
        """Show why nothing advances: at once on a terminal, every half minute elsewhere."""
        if self._live:
            self.show("waiting: " + why)
        elif self._clock() >= self._next_wait:
            self._next_wait = self._clock() + _WAIT_SECONDS
            self.say("waiting: " + why)

    def show(self, line: str) -> None:
        """Replace the line on a terminal, cut to its width; does nothing elsewhere."""
        if self._live:
            self._draw(line)

    def _draw(self, line: str) -> None:
        self._stream.write("\r\x1b[K" + printable(line)[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()
        self._drawn = True

    def say(self, line: str) -> None:
        """Write a line that stays, above the progress."""
        self.clear()
        self._stream.write(printable(line) + "\n")
        self._stream.flush()

    def clear(self) -> None:
        """Remove the progress line."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


def _fitted(name: str, share: float, status: str, columns: int) -> str:
    """Return one line of at most `columns` characters: the bar goes first, then the beginning of the name, never the status."""
    filled = round(BAR_CHARS * share)
    bar = f"[{'#' * filled}{'.' * (BAR_CHARS - filled)}] "
    name = printable(name)
    room = columns - len(status) - 1
    if room - len(bar) < min(len(name), _NAME_CHARS_MIN):
        bar = ""
    room -= len(bar)
    if len(name) > room:
        name = "…" + name[len(name) - room + 1 :] if room > 1 else ""
    return f"{name} {bar}{status}" if name else status


def _duration(seconds: float) -> str:
    """Return whole seconds as minutes:seconds, or hours:minutes:seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
