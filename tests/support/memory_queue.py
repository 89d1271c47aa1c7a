"""`WakeQueue` in memory with the faults of real queues: it may lose, double, reorder and redeliver messages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec

from decklog.domain.errors import DecklogError
from decklog.domain.store import WakeUp


class MemoryQueue:
    """A queue.

    `failing`: raised by every call while it is set. `visibility`: seconds after which a received message is delivered again unless it is
    deleted. `lose`, `double`: fractions of messages that are lost and doubled. `shuffle`: whether messages are reordered.
    """

    def __init__(
        self,
        *,
        lose: float = 0.0,
        double: float = 0.0,
        shuffle: bool = False,
        visibility: float = 30.0,
        chance: random.Random | None = None,
    ) -> None:
        self.failing: DecklogError | None = None
        self.sent: list[WakeUp] = []
        self._lose, self._double, self._shuffle, self._visibility = lose, double, shuffle, visibility
        self._chance = chance or random.Random(0)
        self._visible: dict[str, list[WakeUp]] = {}
        self._hidden: dict[tuple[str, str], tuple[WakeUp, float]] = {}
        self._count = 0
        self._news = asyncio.Event()

    async def send(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
        await self._answer()
        visible = self._visible.setdefault(queue, [])
        for wake_up in wake_ups:
            self.sent.append(wake_up)
            copies = 0 if self._chance.random() < self._lose else 2 if self._chance.random() < self._double else 1
            visible += [wake_up] * copies
        if self._shuffle:
            self._chance.shuffle(visible)
        self._news.set()

    async def receive(self, queue: str, *, wait: float) -> list[WakeUp]:
        await self._answer()
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while not (found := self._take(queue, loop.time())) and loop.time() < until:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), min(until - loop.time(), 0.05))
            except TimeoutError:
                continue
        return found

    async def delete(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
        await self._answer()
        for wake_up in wake_ups:
            self._hidden.pop((queue, wake_up.receipt), None)

    def left(self, queue: str) -> int:
        """Return the number of messages that are not deleted, received or not."""
        return len(self._visible.get(queue, ())) + self.received(queue)

    def received(self, queue: str) -> int:
        """Return the number of received messages that are neither deleted nor visible again."""
        return sum(name == queue for name, _ in self._hidden)

    def _take(self, queue: str, now: float) -> list[WakeUp]:
        for key, (wake_up, visible_at) in list(self._hidden.items()):
            if key[0] == queue and visible_at <= now:
                del self._hidden[key]
                self._visible.setdefault(queue, []).append(wake_up)
        visible = self._visible.setdefault(queue, [])
        found: list[WakeUp] = []
        while visible and len(found) < 10:
            self._count += 1
            wake_up = msgspec.structs.replace(visible.pop(0), receipt=str(self._count))
            self._hidden[queue, wake_up.receipt] = (wake_up, now + self._visibility)
            found.append(wake_up)
        return found

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing
