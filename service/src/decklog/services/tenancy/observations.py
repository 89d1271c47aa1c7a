"""Observations that many visits share: of what Shared tenants have together, and of many tenants in one question.

A thousand visits must not look a thousand times, and nobody may be told how it stood before he asked. So whoever asks
while a look is under way gets the next one, with all others who ask until that begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

OBSERVE_SECONDS_MAX = 30.0
"""For one backend to say what is there; the others are not applied to before it has, or before this."""
PAUSE_SECONDS = 0.2
"""From the beginning of one look at a thing to that of the next, so that more who ask share it."""
NAMES_MAX = 1_024
"""Names remembered of things that were looked at a moment ago; a thing that is forgotten is looked at sooner."""
GATHERED_MAX = 128
"""Things that are asked for in one question."""

_Asked = TypeVar("_Asked")
_Result = TypeVar("_Result")


class Joined(Generic[_Result]):
    """Looks at one thing by its name, for all who want to know of it."""

    def __init__(self, observe: Callable[[str], Coroutine[Any, Any, _Result]]) -> None:
        self._observe = observe
        self._running: dict[str, asyncio.Task[_Result]] = {}
        self._next: dict[str, asyncio.Task[_Result]] = {}
        self._begun: dict[str, float] = {}

    async def __call__(self, name: str) -> _Result:
        if name not in self._next:
            self._next[name] = asyncio.create_task(self._after(name, self._running.get(name)))
        # One who gives up must not take it from the others.
        return await asyncio.shield(self._next[name])

    async def _after(self, name: str, before: asyncio.Task[_Result] | None) -> _Result:
        if before is not None:
            await asyncio.wait([before])
        await self._rested(name)
        running = self._running[name] = self._next.pop(name)
        try:
            async with asyncio.timeout(OBSERVE_SECONDS_MAX):
                return await self._observe(name)
        finally:
            if self._running[name] is running:
                del self._running[name]

    async def _rested(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        if (begun := self._begun.pop(name, None)) is not None:
            await asyncio.sleep(begun + PAUSE_SECONDS - loop.time())
        self._begun[name] = loop.time()
        while len(self._begun) > NAMES_MAX:
            del self._begun[next(iter(self._begun))]


class Gathered(Generic[_Asked, _Result]):
    """Asks for many things in one question; `observe` gives one answer for each, in their order."""

    def __init__(self, observe: Callable[[Sequence[_Asked]], Coroutine[Any, Any, Sequence[_Result]]]) -> None:
        self._observe = observe
        self._waiting: list[tuple[_Asked, asyncio.Future[_Result]]] = []
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, asked: _Asked) -> _Result:
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:GATHERED_MAX], self._waiting[GATHERED_MAX:]
            try:
                async with asyncio.timeout(OBSERVE_SECONDS_MAX):
                    found = await self._observe([asked for asked, _ in group])
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), result in zip(group, found, strict=True):
                    if not future.done():
                        future.set_result(result)
        self._working = None
