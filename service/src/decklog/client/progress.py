"""How an import shows that it is alive: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

BAR_CHARS = 24
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 5.0
_WAIT_SECONDS = 30.0


def printable(text: str) -> str:
    """Text without anything that a terminal would obey."""
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


class Progress:
    """Writes to `stream`; `live` says whether it is a terminal. Use: `advance` as often as one likes, `say` for lines."""

    def __init__(self, stream: TextIO, *, live: bool) -> None:
        self._stream = stream
        self._live = live
        self._drawn = False
        self._next = time.monotonic() + (0.0 if live else _LINE_SECONDS)
        self._next_wait = 0.0
        self._began = time.monotonic()

    def advance(self, name: str, share: float, records: int) -> None:
        """`share` of the file, 0 to 1, is done; `records` were acknowledged since the start."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_REDRAW_SECONDS if self._live else _LINE_SECONDS)
        rate = records / max(now - self._began, 0.001)
        status = f"{share:4.0%} {records:,} records, {rate:,.0f}/s"
        if self._live:
            filled = round(BAR_CHARS * share)
            self._draw(f"{name} [{'#' * filled}{'.' * (BAR_CHARS - filled)}] {status}")
        else:
            self.say(f"{name}: {status.strip()}")

    def waiting(self, why: str) -> None:
        """Nothing moves, and this is why; told at once on a terminal, else now and then."""
        if self._live:
            self._draw("waiting: " + why)
        elif time.monotonic() >= self._next_wait:
            self._next_wait = time.monotonic() + _WAIT_SECONDS
            self.say("waiting: " + why)

    def _draw(self, line: str) -> None:
        self._stream.write("\r\x1b[K" + printable(line)[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()
        self._drawn = True

    def say(self, line: str) -> None:
        self.clear()
        self._stream.write(printable(line) + "\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take the bar away."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False
