"""The whole API in a thread of its own, for tests that run verbs of the command line, which have loops of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.api_world import World, running_world


@contextmanager
def served_world(**options: Any) -> Iterator[World]:
    """Run `running_world` in another thread within the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    running = running_world(**options)
    try:
        yield asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(30)
    finally:
        try:
            asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(30)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(30)
            loop.close()
