"""What every benchmark is given: the servers, the scale, and a place to say how far it is."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Literal

from tests.backends import PostgresServer, Servers, Variant

Scale = Literal["full", "small"]
VARIANTS: tuple[Variant, ...] = ("postgres", "timescale")
"""Plain PostgreSQL as `decklog dev` embeds it, and TimescaleDB."""


@dataclass
class Context:
    """`servers` are durable ones."""

    servers: Servers
    scale: Scale
    _began: float = field(default_factory=time.monotonic)

    @property
    def small(self) -> bool:
        return self.scale == "small"

    def seconds(self, full: float) -> float:
        """How long to measure: `full`, or a quarter of it at small scale."""
        return full / 4 if self.small else full

    def postgres(self, variant: Variant) -> PostgresServer:
        return self.servers.timescale if variant == "timescale" else self.servers.postgres

    def say(self, what: str) -> None:
        """Progress, on standard error."""
        sys.stderr.write(f"[{time.monotonic() - self._began:6.0f} s] {what}\n")
        sys.stderr.flush()


def named(name: str, variant: Variant) -> str:
    """The name of a figure: that of the embedded variant has no suffix."""
    return name if variant == "postgres" else f"{name}_{variant}"
