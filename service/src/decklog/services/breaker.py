"""Whether a backend is asked at all: after a failure one probe decides for the whole process.

Callers must have another way to their answer, or a typed refusal, while the breaker is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final

from decklog.domain.errors import DecklogError
from decklog.domain.pauses import jittered
from decklog.services.outage import Outage

PROBE_TIME_MAX: Final = timedelta(milliseconds=250)
"""Of one probe: a backend that needs longer for the least question is down."""
PROBE_GAP: Final = timedelta(seconds=1)
"""Between two probes, before jitter."""


class Breaker:
    """Lets calls pass until a probe fails, and again after one succeeds.

    A failed or a slow call starts a probe. Calls that begin meanwhile wait for its result. While the breaker is open, the first
    caller after each `PROBE_GAP` starts a probe, and no caller waits for it.

    Args:
        probe: Asks the backend the least question. Raises DecklogError.
        outage: Where the state is logged.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]], outage: Outage) -> None:
        self._probe = probe
        self._outage = outage
        self._open = False
        self._probing: asyncio.Task[bool] | None = None
        self._again_at = float("-inf")
        self._calls: set[asyncio.Timeout] = set()

    async def closed(self) -> bool:
        """Return whether the backend may be asked."""
        if self._open:
            self.doubt()
            return False
        if self._probing is not None:
            # A caller that gives up must not end the probe of the others.
            return await asyncio.shield(self._probing)
        return True

    def doubt(self) -> None:
        """Start a probe, unless one runs or the last one was a moment ago."""
        now = asyncio.get_running_loop().time()
        if self._probing is None and now >= self._again_at:
            self._again_at = now + jittered(PROBE_GAP.total_seconds(), 0.25)
            self._probing = asyncio.create_task(self._decide(), name="probe")

    @contextmanager
    def call(self, ending: asyncio.Timeout) -> Iterator[None]:
        """End the block by this timeout, which it is in, when the breaker opens."""
        self._calls.add(ending)
        try:
            yield
        finally:
            self._calls.discard(ending)

    async def _decide(self) -> bool:
        """Probe, and open or close. Returns whether the backend may be asked."""
        try:
            async with asyncio.timeout(PROBE_TIME_MAX.total_seconds()):
                await self._probe()
        except (DecklogError, TimeoutError) as error:
            self._opens(error)
        else:
            self._open = False
            self._outage.well()
        finally:
            self._probing = None
        return not self._open

    def _opens(self, error: BaseException) -> None:
        self._open = True
        self._outage.failed(error)
        now = asyncio.get_running_loop().time()
        for ending in self._calls:
            with suppress(RuntimeError):  # it is ending already
                ending.reschedule(now)
