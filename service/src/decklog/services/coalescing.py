"""Request coalescing: one call at a time serves all callers that wait for the same thing.

A caller never receives the result of a call that began before its request. Callers that arrive during one call share the
next, so the number of calls follows time and not the number of callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

_Asked = TypeVar("_Asked")
_Result = TypeVar("_Result")
_Waiting = list[tuple[_Asked, "asyncio.Future[_Result]"]]

Call = Callable[[Sequence[_Asked]], Coroutine[Any, Any, Sequence[_Result]]]
"""Answers a group of requests: one result for each, in their order."""


def shared(call: Callable[[_Asked], Coroutine[Any, Any, _Result]]) -> Call[_Asked, _Result]:
    """Return a call for groups whose members all ask for the same: made once, for the first of them."""

    async def for_all(asked: Sequence[_Asked]) -> Sequence[_Result]:
        return [await call(asked[0])] * len(asked)

    return for_all


class Coalescing(Generic[_Asked, _Result]):
    """Await an instance with what is asked for, as if it were the call itself.

    Args:
        call: Answers a group. What it raises is raised by every caller of the group.
        key: Returns what a request is for. Requests of different keys do not wait for each other.
        group_max: Requests of one call.
        gap: Returns the least seconds from the beginning of one call to that of the next of its key, given the seconds that
            the call took. Callers that arrive meanwhile share the next call.
        seconds_max: Time limit of one call; None for none. Its callers then raise TimeoutError.
    """

    def __init__(
        self,
        call: Call[_Asked, _Result],
        *,
        key: Callable[[_Asked], Hashable] = lambda _: None,
        group_max: int | None = None,
        gap: Callable[[float], float] = lambda _: 0.0,
        seconds_max: float | None = None,
    ) -> None:
        self._call = call
        self._key = key
        self._group_max = group_max
        self._gap = gap
        self._seconds_max = seconds_max
        self._waiting: dict[Hashable, _Waiting[_Asked, _Result]] = {}
        self._serving: dict[Hashable, asyncio.Task[None]] = {}

    async def __call__(self, asked: _Asked) -> _Result:
        """Return the answer of a call that begins after this request."""
        key = self._key(asked)
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((asked, future))
        if key not in self._serving:
            self._serving[key] = asyncio.create_task(self._serve(key), name=f"coalescing {key}")
        # Callers wait for their own futures: one that gives up takes the call from nobody.
        return await future

    async def _serve(self, key: Hashable) -> None:
        """Call for as long as anybody waits, and end after the gap of the last call."""
        loop = asyncio.get_running_loop()
        try:
            while waiting := self._waiting.pop(key, None):
                group = waiting[: self._group_max]
                if len(group) < len(waiting):
                    self._waiting[key] = waiting[len(group) :]
                began = loop.time()
                await self._answer([(asked, future) for asked, future in group if not future.done()])
                await asyncio.sleep(began + self._gap(loop.time() - began) - loop.time())
        finally:
            del self._serving[key]
            for _, future in self._waiting.pop(key, ()):
                future.cancel()

    async def _answer(self, group: _Waiting[_Asked, _Result]) -> None:
        if not group:
            return
        try:
            async with asyncio.timeout(self._seconds_max):
                results = await self._call([asked for asked, _ in group])
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:  # noqa: BLE001 - it is raised by those who asked
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # marks it as seen, should its caller be cancelled now
        finally:
            for _, future in group:
                future.cancel()
