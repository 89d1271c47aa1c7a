"""Shows what is being waited for.

Provisioning a server for the first time takes up to some minutes; a silent test run would look hung. On a terminal one line is rewritten in
place, elsewhere a line with the elapsed seconds is written now and then. Steps that are over at once stay silent. This module must not decide
anything and must not fail: a closed standard error only makes it quiet.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

SILENT_MAX = timedelta(seconds=1)  # a step shorter than this is not worth a line
LINE_EVERY = timedelta(seconds=10)  # between two lines where no terminal is there
REDRAW_EVERY = timedelta(seconds=0.25)  # on a terminal
_SPINNER = "|/-\\"

_stderr = 2


def keep_stderr() -> None:
    """Remembers the standard error of this moment: pytest replaces it while tests run, progress must be seen all the same."""
    global _stderr
    with contextlib.suppress(OSError):
        _stderr = os.dup(2)


def say(line: str) -> None:
    """Writes one line to the real standard error."""
    _write(f"decklog backends: {line}\n")


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Shows `what` with the seconds it has taken, for as long as the block runs."""
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
