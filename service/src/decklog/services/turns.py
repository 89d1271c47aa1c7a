"""Turns at a bounded resource, taken by tenants in rotation.

However much work one tenant brings, another tenant waits for at most one turn of each tenant that waits too. A turn must be
short: who needs the resource for long takes it again and again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import Counter, Gauge

from decklog.domain.errors import Code, DecklogError

WAITING_PER_TENANT_MAX: Final = 200
"""Requests of one tenant that may wait for a turn; more than its default number of streams, each of which may be one."""
WAITING_MAX: Final = 2_000
"""Requests that may wait for a turn. A tenant with none waiting may always wait."""
_REMEMBERED_MAX: Final = 10_000
"""Tenants whose last turn is remembered. A tenant that is forgotten counts as one that had none."""

_waiting = Gauge("decklog_turns_waiting", "Readings that wait for a turn of their tenant, by resource.", ["of"])
_refused = Counter(
    "decklog_turns_refused_total", "Readings refused instead of getting a turn, by resource and reason.", ["of", "reason"]
)


class Turns:
    """Turns at one resource of a process.

    Args:
        total: Turns at once.
        each: Turns of one tenant at once.
        spare: Turns of `total` that only a tenant without any turn may take, so that several busy tenants leave some free.
        of: The resource, as the label of the metrics: `database`, `search`, `processor`, `thread`, `model`.
    """

    def __init__(self, total: int, *, each: int, spare: int = 0, of: str) -> None:
        if not (0 < each <= total and 0 <= spare < total):
            raise ValueError(f"{total} turns cannot be shared as {each} for each tenant and {spare} to spare")
        self._each = each
        self._spare = spare
        self._free = total
        self._of = of
        self._held: dict[int, int] = {}
        self._queues: dict[int, deque[asyncio.Future[None]]] = {}
        self._last: OrderedDict[int, int] = OrderedDict()
        """Number of each tenant's last turn, counted from the first one."""
        self._turns = 0
        self._waiting = 0
        self._gauge = _waiting.labels(of)

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return self._waiting

    @property
    def free(self) -> int:
        """Number of turns that nobody has."""
        return self._free

    @asynccontextmanager
    async def turn(self, tenant_id: int, *, seconds: float) -> AsyncIterator[None]:
        """Wait for a turn of this tenant, at most so many seconds, and have it within the block.

        Raises:
            DecklogError: `overloaded` after that time, and at once where too many requests wait.
        """
        await self.take(tenant_id, seconds=seconds)
        try:
            yield
        finally:
            self.give(tenant_id)

    async def take(self, tenant_id: int, *, seconds: float) -> None:
        """Wait for a turn, as `turn` does. The caller gives it back."""
        # Turns are passed on as soon as a tenant may take one. So whoever waits may not, and nobody is overtaken here.
        if tenant_id not in self._queues and self._may(tenant_id):
            self._start(tenant_id)
            return
        self._check_room(tenant_id)
        future = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant_id, deque()).append(future)
        self._count(+1)
        try:
            async with asyncio.timeout(seconds):
                await future
        except BaseException as error:
            if future.done() and not future.cancelled():
                self.give(tenant_id)  # the turn came at the same moment
            else:
                self._leave(tenant_id, future)
            if isinstance(error, TimeoutError):
                _refused.labels(self._of, "waited").inc()
                raise _overloaded(f"No turn came within {seconds:.3g} seconds", retry_after=2) from None
            raise

    def give(self, tenant_id: int) -> None:
        """Give a turn back. It passes to the next tenant in rotation at once."""
        self._free += 1
        left = self._held[tenant_id] - 1
        if left:
            self._held[tenant_id] = left
        else:
            del self._held[tenant_id]
        self._pass_on()

    def _may(self, tenant_id: int) -> bool:
        held = self._held.get(tenant_id, 0)
        return held < self._each and self._free > (self._spare if held else 0)

    def _start(self, tenant_id: int) -> None:
        self._free -= 1
        self._held[tenant_id] = self._held.get(tenant_id, 0) + 1
        self._turns += 1
        self._last[tenant_id] = self._turns
        self._last.move_to_end(tenant_id)
        if len(self._last) > _REMEMBERED_MAX:
            self._last.popitem(last=False)

    def _next(self) -> int | None:
        """Return the waiting tenant that may take a turn and had its last one before all others; None if no tenant may."""
        return min(filter(self._may, self._queues), key=lambda tenant_id: self._last.get(tenant_id, 0), default=None)

    def _pass_on(self) -> None:
        """Give free turns to waiting tenants, one to each in rotation, until none may take one."""
        while self._free and (tenant_id := self._next()) is not None:
            queue = self._queues[tenant_id]
            future = queue.popleft()
            self._count(-1)
            if not queue:
                del self._queues[tenant_id]
            if not future.done():
                self._start(tenant_id)
                future.set_result(None)

    def _leave(self, tenant_id: int, future: asyncio.Future[None]) -> None:
        queue = self._queues.get(tenant_id)
        if queue is not None and future in queue:
            queue.remove(future)
            self._count(-1)
            if not queue:
                del self._queues[tenant_id]

    def _check_room(self, tenant_id: int) -> None:
        mine = len(self._queues.get(tenant_id, ()))
        if mine >= WAITING_PER_TENANT_MAX or (mine and self._waiting >= WAITING_MAX):
            _refused.labels(self._of, "queue").inc()
            raise _overloaded("Too many readings of this tenant wait already", retry_after=5)

    def _count(self, change: int) -> None:
        self._waiting += change
        self._gauge.set(self._waiting)


def _overloaded(why: str, *, retry_after: float) -> DecklogError:
    return DecklogError(Code.OVERLOADED, f"{why}. Make fewer requests at once, or try again.", retry_after=retry_after)
