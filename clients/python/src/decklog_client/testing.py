"""Records of an application under test, without a server and without a disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from decklog_client import capturing


@contextlib.contextmanager
def recorded() -> Iterator[list[dict[str, Any]]]:
    """Capture the records of all clients of this process inside of the block, as they would be sent.

    Records are checked as usual. Nothing is written or sent, and `commit` returns at once. Blocks nest.
    """
    capture = capturing.begin()
    try:
        yield capture
    finally:
        capturing.end(capture)
