"""Bytes that a process holds for its tenants, each within a share.

A tenant may hold at most half as many bytes as are free: a third of the budget while no other tenant holds any, and less
while others do. So some bytes stay free for a tenant that holds none, however many others are at their limit (dynamic
thresholds: Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998).
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final

from prometheus_client import Counter, Gauge

from decklog.domain.errors import Code, DecklogError

_FREE_PER_HELD: Final = 2
"""Bytes that must stay free for each byte that one tenant holds."""

_REMEMBERED_SECONDS: Final = 1
"""Seconds for which a refusal is remembered: those that the client was asked to wait."""
_REMEMBERED_MAX: Final = 1_024

_held_bytes = Gauge("decklog_held_bytes", "Bytes that the process holds for its tenants, by what holds them.", ["of"])
_refused = Counter("decklog_held_bytes_refused_total", "Requests refused because their tenant would hold too many bytes.", ["of"])


def within_share(count: int, *, mine: int, held: int, total: int) -> bool:
    """Return whether a tenant that holds `mine` may hold `count` more, where all tenants hold `held` of `total`."""
    return (mine + count) * _FREE_PER_HELD <= total - held - count


class Budget:
    """An account of bytes: who holds how many.

    Args:
        bytes_max: Bytes that all tenants may hold together.
        of: What is held, as the label of the metrics and in refusals: `bodies`, `pages`.
    """

    __slots__ = ("_by_tenant", "_gauge", "_needs", "_of", "_refused", "bytes_max", "held")

    def __init__(self, bytes_max: int, *, of: str) -> None:
        self.bytes_max = bytes_max
        self.held = 0
        """Bytes that all tenants hold."""
        self._of = of
        self._by_tenant: dict[int, int] = {}
        self._needs: dict[int, tuple[int, float]] = {}
        self._gauge = _held_bytes.labels(of)
        self._refused = _refused.labels(of)

    def held_by(self, tenant_id: int) -> int:
        """Return the bytes that the tenant holds."""
        return self._by_tenant.get(tenant_id, 0)

    def fits(self, tenant_id: int, count: int) -> bool:
        """Return whether the tenant may hold so many bytes more."""
        return within_share(count, mine=self.held_by(tenant_id), held=self.held, total=self.bytes_max)

    def check(self, tenant_id: int, count: int) -> None:
        """Raise `overloaded` where the tenant may not hold so many bytes more. Nothing is taken."""
        if not self.fits(tenant_id, count):
            self._refused.inc()
            raise DecklogError(
                Code.OVERLOADED,
                f"This process holds {self.held} bytes of {self._of}, {self.held_by(tenant_id)} of them for this tenant; "
                f"{count} more are over the tenant's share of {self.bytes_max}. Send less at once, or try again.",
                retry_after=1,
            )

    def refuse_early(self, tenant_id: int) -> None:
        """Raise `overloaded` where a request of the tenant was refused within a second and as much would be refused now.

        So a tenant that does not wait is refused before its next request costs as much work as the last one.
        """
        need, until = self._needs.get(tenant_id, (0, 0.0))
        if need and time.monotonic() < until:
            self.check(tenant_id, need)

    def remember(self, tenant_id: int, need: int) -> None:
        """Note that a request of the tenant was refused that needed so many bytes, for `refuse_early`."""
        now = time.monotonic()
        if len(self._needs) >= _REMEMBERED_MAX:
            self._needs = {tenant: known for tenant, known in self._needs.items() if known[1] > now}
        if len(self._needs) < _REMEMBERED_MAX:
            self._needs[tenant_id] = need, now + _REMEMBERED_SECONDS

    def account(self, tenant_id: int) -> Held:
        """Return an account of a tenant that holds nothing yet. Use it as a context manager: at its end it holds nothing again."""
        return Held(self, tenant_id)

    def move(self, tenant_id: int, count: int) -> None:
        """Count so many bytes more for a tenant, or less. Only `Held` calls it, after `fits`."""
        self.held += count
        left = self._by_tenant.get(tenant_id, 0) + count
        if left:
            self._by_tenant[tenant_id] = left
        else:
            self._by_tenant.pop(tenant_id, None)
        self._gauge.set(self.held)


class Held:
    """The bytes that one request or stream holds of a budget."""

    __slots__ = ("_budget", "_tenant_id", "held")

    def __init__(self, budget: Budget, tenant_id: int) -> None:
        self._budget = budget
        self._tenant_id = tenant_id
        self.held = 0

    def fits(self, count: int) -> bool:
        """Return whether so many bytes more may be taken."""
        return self._budget.fits(self._tenant_id, count)

    def check(self, count: int) -> None:
        """Raise `overloaded` where so many bytes more do not fit. Nothing is taken."""
        self._budget.check(self._tenant_id, count)

    def take(self, count: int) -> None:
        """Hold so many bytes more, before they are allocated. Raises `overloaded` and then holds what it held."""
        if not self._budget.fits(self._tenant_id, count):
            self._budget.remember(self._tenant_id, self.held + count)
        self._budget.check(self._tenant_id, count)
        self.held += count
        self._budget.move(self._tenant_id, count)

    def give(self, count: int) -> None:
        """Hold so many bytes less; never less than none."""
        count = min(count, self.held)
        if count:
            self.held -= count
            self._budget.move(self._tenant_id, -count)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.give(self.held)
