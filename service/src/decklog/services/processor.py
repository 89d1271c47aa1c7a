"""Processor time of the event loop for heavy work: short slices, which tenants take in rotation.

One slice at a time runs between two rounds of the event loop, so every other request waits for one slice and not for all the
work that waits. Work on a long text runs in a thread, where the interpreter lets the event loop in every few milliseconds.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from decklog.services.turns import Turns

SLICE_SECONDS: Final = 0.003
"""Time of one slice, which ends with the item that exceeds it."""
IN_THREAD_CHARS: Final = 16 * 1024
"""Characters of an item from which a thread does the work: on fewer, any work takes a few milliseconds at most."""
WAIT_SECONDS_MAX: Final = 30.0

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Processor:
    """The slices of one process."""

    def __init__(self) -> None:
        self.slices = Turns(1, each=1, of="processor")
        self.threads = Turns(1, each=1, of="thread")
        """Apart from the slices: a slice must not wait for the work on a long text."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decklog-heavy")

    async def map(
        self,
        tenant_id: int,
        work: Callable[[_Item], _Result],
        items: Sequence[_Item],
        *,
        chars: Callable[[_Item], int] | None = None,
    ) -> list[_Result]:
        """Return `work` of each item, in their order, and let other work run meanwhile.

        Args:
            tenant_id: The tenant whose work it is.
            work: Must not touch what the event loop changes: it may run in a thread.
            items: What is worked on.
            chars: Returns the characters of an item if its work takes time by them.

        Raises:
            DecklogError: `overloaded` where no slice comes within `WAIT_SECONDS_MAX`. And what `work` raises.
        """
        results: list[_Result] = []
        while len(results) < len(items):
            first = items[len(results)]
            if chars is not None and chars(first) >= IN_THREAD_CHARS:
                async with self.threads.turn(tenant_id, seconds=WAIT_SECONDS_MAX):
                    results.append(await self._in_thread(work, first))
                continue
            async with self.slices.turn(tenant_id, seconds=WAIT_SECONDS_MAX):
                end = time.perf_counter() + SLICE_SECONDS
                for item in itertools.islice(items, len(results), None):
                    if chars is not None and chars(item) >= IN_THREAD_CHARS:
                        break
                    results.append(work(item))
                    if time.perf_counter() >= end:
                        break
                if len(results) < len(items):
                    await asyncio.sleep(0)
        return results

    async def _in_thread(self, work: Callable[[_Item], _Result], item: _Item) -> _Result:
        running = asyncio.get_running_loop().run_in_executor(self._thread, work, item)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # The thread goes on: the turn is kept until it is free, or cancelled requests would queue up behind it.
            await asyncio.wait({running})
            raise
