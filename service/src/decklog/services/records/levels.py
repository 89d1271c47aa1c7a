"""Levels of rate buckets as the database reported them last, so that a flood is refused without database work.

The real level can only be lower, because other processes take tokens too. A process knows a level from its first refusal on, and
only while the database reports it.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest, Rate, rate_limited
from decklog.domain.tenant import Tenant
from decklog.services.records.queue import refused_by_rate

_LEVEL_SECONDS_MAX: Final = 1.0
"""Age up to which the last known level of a bucket is used: the tenant's rate may change, and other processes take tokens."""


class Level:
    """The most that an empty bucket can hold again: its level in the last answer of the database, less what was spent since."""

    __slots__ = ("at", "remaining", "said", "said_at")

    def __init__(self, said: Rate) -> None:
        self.said = said
        self.said_at = self.at = time.monotonic()
        self.remaining = said.remaining

    def spend(self, count: int) -> None:
        """Take tokens for a request that is sent to the database."""
        if count <= self.said.burst:  # a larger request is refused at any level
            self.remaining -= count

    def now(self) -> Rate:
        """Return the bucket with what was refilled since."""
        moment = time.monotonic()
        self.remaining = min(self.said.burst, self.remaining + (moment - self.at) * self.said.per_second)
        self.at = moment
        return msgspec.structs.replace(self.said, remaining=self.remaining)


class Levels:
    """The known levels of all buckets of one process."""

    def __init__(self) -> None:
        self._levels: dict[tuple[int, LogName], Level] = {}

    def refuse_early(self, tenant: Tenant, log: LogName, count: int) -> Level | None:
        """Raise `rate-limited` where the tenant's bucket cannot hold `count` tokens yet. Return its known level, if any."""
        if not self._levels:
            return None
        level = self._levels.get((tenant.id, log))
        if level is None:
            return None
        if time.monotonic() - level.said_at > _LEVEL_SECONDS_MAX:
            del self._levels[tenant.id, log]
            return None
        rate = level.now()
        if rate.remaining < count <= rate.burst:
            refused_by_rate.inc()
            raise rate_limited(tenant.name, rate, count)
        return level

    def note(self, request: AppendRequest, result: Appended | DecklogError) -> None:
        """Keep the level of a bucket from its first refusal on, for as long as the database reports it."""
        if not self._levels and not isinstance(result, DecklogError):
            return
        place = request.tenant.id, request.log
        rate = result.extra.get("rate") if isinstance(result, DecklogError) else result.rate
        if not isinstance(rate, Rate):
            self._levels.pop(place, None)
        elif isinstance(result, DecklogError) or place in self._levels:
            self._levels[place] = Level(rate)
