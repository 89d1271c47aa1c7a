"""The context of a benchmark: servers, scale and progress output."""

from __future__ import annotations

import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

from decklog.domain.tenant import Isolation
from tests.backends import PostgresServer, Servers, Variant
from tests.bench import dataset
from tests.bench.dataset import Log
from tests.bench.stand import Stand, stand

Scale = Literal["full", "small"]
VARIANTS: tuple[Variant, ...] = ("postgres", "timescale")
"""Plain PostgreSQL, which `decklog dev` embeds, and TimescaleDB."""


@dataclass
class Context:
    """`servers` run with fsync. `kept` is closed after the last benchmark. `only` has the names that were chosen, if any were."""

    servers: Servers
    scale: Scale
    kept: AsyncExitStack
    only: frozenset[str] = frozenset()
    _began: float = field(default_factory=time.monotonic)
    _logs: dict[Variant, tuple[Stand, Log]] = field(default_factory=dict)

    @property
    def small(self) -> bool:
        return self.scale == "small"

    def seconds(self, full: float) -> float:
        """Return the seconds to measure: `full`, or a quarter of it at small scale."""
        return full / 4 if self.small else full

    @property
    def rounds(self) -> int:
        """Alternations between the two sides of a comparison, so that other load on the machine disturbs both alike."""
        return 2 if self.small else 4

    def postgres(self, variant: Variant) -> PostgresServer:
        return self.servers.timescale if variant == "timescale" else self.servers.postgres

    async def three_months(self, variant: Variant) -> tuple[Stand, Log]:
        """Return a Dedicated tenant with many records over daily partitions. It is filled at the first call; do not append to it."""
        if variant not in self._logs:
            place = await self.kept.enter_async_context(stand(self.postgres(variant)))
            [customer] = await place.customers(1, Isolation.DEDICATED, days=dataset.RETENTION_DAYS)
            records = 100_000 if self.small else 1_000_000
            log = await dataset.fill(place, customer, records, lambda done: self.say(f"{variant}: {done}"))
            self._logs[variant] = place, log
        return self._logs[variant]

    def say(self, what: str) -> None:
        """Print progress on standard error."""
        sys.stderr.write(f"[{time.monotonic() - self._began:6.0f} s] {what}\n")
        sys.stderr.flush()


def named(name: str, variant: Variant) -> str:
    """Return the name of a figure. The embedded variant has no suffix."""
    return name if variant == "postgres" else f"{name}_{variant}"
