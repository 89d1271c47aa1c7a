"""Show long steps and their elapsed time on standard error.

The first provisioning of a server takes minutes, and a silent test run would look hung. A terminal shows one line that is
updated in place; other outputs get a line every 10 s. Steps of less than 1 s show nothing. This module must never fail: if
standard error is closed, it writes nothing.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

SILENT_MAX = timedelta(seconds=1)  # shorter steps show no line
LINE_EVERY = timedelta(seconds=10)  # between two lines without a terminal
REDRAW_EVERY = timedelta(seconds=0.25)  # on a terminal
_SPINNER = "|/-\\"

_stderr = 2


def keep_stderr() -> None:
    """Duplicate the current standard error for progress lines, because pytest replaces it while tests run."""
    global _stderr
    with contextlib.suppress(OSError):
        _stderr = os.dup(2)


def say(line: str) -> None:
    """Write one line to the standard error of `keep_stderr`."""
    _write(f"decklog backends: {line}\n")


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Show `what` with its elapsed seconds until the block ends."""
    over = threading.Event()
    shown = threading.Event()
    start = time.monotonic()
    ticker = threading.Thread(target=_tick, args=(what, start, over, shown), daemon=True)
    ticker.start()
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        over.set()
        ticker.join()
        if shown.is_set():
            _write("\r\x1b[K" if _terminal() else "")
            say(f"{what}: {outcome} in {time.monotonic() - start:.0f} s")


def _tick(what: str, start: float, over: threading.Event, shown: threading.Event) -> None:
    if over.wait(SILENT_MAX.total_seconds()):
        return
    shown.set()
    turn = 0
    terminal = _terminal()
    while True:
        elapsed = time.monotonic() - start
        if terminal:
            _write(f"\r\x1b[Kdecklog backends: {_SPINNER[turn % len(_SPINNER)]} {what} {elapsed:.0f} s")
        else:
            say(f"{what} ... {elapsed:.0f} s")
        turn += 1
        if over.wait((REDRAW_EVERY if terminal else LINE_EVERY).total_seconds()):
            return


def _terminal() -> bool:
    try:
        return os.isatty(_stderr)
    except OSError:
        return False


def _write(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(_stderr, text.encode(errors="replace"))
