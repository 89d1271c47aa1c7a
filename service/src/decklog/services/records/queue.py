"""Append requests that wait for a commit: one queue for each log, served in turns by bytes (surplus round robin).

At each turn a log may spend a quantum. It may overdraw by one request, which its next turns repay, and it goes to the end of the
line after its turn. So between two groups with requests of one log, every other log that waits is served, however many
requests and connections the first one has (M. Shreedhar, G. Varghese, "Efficient Fair Queueing using Deficit Round Robin",
1995). The order within a log is the order of arrival.

A request larger than a group, which only an atomic bulk is, leaves its line for a writer of its own. Meanwhile its log has no turns,
because a group with another request of this log would wait for the lock of its head.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from prometheus_client import Counter, Gauge

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.services.budget import within_share

GROUP_RECORDS_MAX: Final = 500
"""Records of one group. A request with more is committed alone."""
GROUP_BYTES_MAX: Final = 2 * 1024 * 1024
"""Bytes of one group. A request with more is committed alone."""
QUANTUM_BYTES: Final = 1024 * 1024
"""Bytes that one log may spend at each turn."""

_requests = Gauge("decklog_append_waiting_requests", "Append requests that wait for their commit.")
_bytes = Gauge("decklog_append_waiting_bytes", "Bytes of records that wait for their commit.")
_refused = Counter("decklog_append_refused_total", "Append requests refused before the database saw them, by reason.", ["reason"])
refused_by_requests = _refused.labels("waiting-requests")
refused_by_bytes = _refused.labels("waiting-bytes")
refused_by_rate = _refused.labels("rate")
refused_by_byte_rate = _refused.labels("byte-rate")


class Waiting:
    """An append request and the future of its result. `traced` is the request as traces know it."""

    __slots__ = ("future", "ids", "is_large", "key", "records", "request", "size", "tenant_id", "traced")

    def __init__(self, request: AppendRequest, future: asyncio.Future[Appended], traced: Any | None) -> None:
        self.request = request
        self.future = future
        self.traced = traced
        self.tenant_id = request.tenant.id
        self.key = self.tenant_id, request.log
        self.records = len(request.records)
        if self.records == 1:
            [record] = request.records
            self.size = len(record.content)
            self.ids = [] if record.id is None else [record.id]
        else:
            self.size = sum(len(record.content) for record in request.records)
            self.ids = [record.id for record in request.records if record.id is not None]
        self.is_large = self.records > GROUP_RECORDS_MAX or self.size > GROUP_BYTES_MAX


class _Line:
    """The requests of one log, oldest first, and what the log may still spend."""

    __slots__ = ("credit", "key", "waiting")

    def __init__(self, key: tuple[int, LogName]) -> None:
        self.key = key
        self.credit = 0
        self.waiting: deque[Waiting] = deque()


class _Share:
    """Requests and bytes that one tenant holds."""

    __slots__ = ("bytes", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0


class _Group:
    """A group while it is put together."""

    __slots__ = ("bytes", "records", "requests")

    def __init__(self) -> None:
        self.requests: list[Waiting] = []
        self.records = 0
        self.bytes = 0


class CommitQueue:
    """The waiting requests of one writer, bounded for each tenant and in total.

    A request counts from `put` until `release`, so those of the group under way count too.

    Args:
        requests_max: Requests of all tenants.
        bytes_max: Bytes of the records of all tenants.
    """

    def __init__(self, requests_max: int, bytes_max: int) -> None:
        self._requests_max = requests_max
        self._bytes_max = bytes_max
        self._lines: dict[tuple[int, LogName], _Line] = {}
        self._turns: deque[_Line] = deque()
        self._large: deque[_Line] = deque()
        self._shares: dict[int, _Share] = {}
        self.requests = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._turns)

    def put(self, waiting: Waiting) -> None:
        """Add a request at the end of the line of its log. Raises `overloaded` beyond the bounds."""
        size = waiting.size
        share = self._shares.get(waiting.tenant_id)
        if share is None:
            share = _Share()
        # Below a third of the bounds, every share has room, and most requests need no more than this.
        if 3 * (self.requests + 1) > self._requests_max or 3 * (self.bytes + size) > self._bytes_max:
            self._check(share, size)
        self._shares[waiting.tenant_id] = share
        share.requests += 1
        share.bytes += size
        self.requests += 1
        self.bytes += size
        line = self._lines.get(waiting.key)
        if line is None:
            line = self._lines[waiting.key] = _Line(waiting.key)
            self._turns.append(line)
        line.waiting.append(waiting)

    def _check(self, share: _Share, size: int) -> None:
        if not self.requests:
            return
        if not within_share(1, mine=share.requests, held=self.requests, total=self._requests_max):
            refused_by_requests.inc()
            raise overloaded("Too many requests wait to be committed")
        if not within_share(size, mine=share.bytes, held=self.bytes, total=self._bytes_max):
            refused_by_bytes.inc()
            raise overloaded("Too many bytes wait to be committed")

    def release(self, waiting: Waiting) -> None:
        """Stop counting a request, once it was answered."""
        share = self._shares[waiting.tenant_id]
        share.requests -= 1
        share.bytes -= waiting.size
        if not share.requests:
            del self._shares[waiting.tenant_id]
        self.requests -= 1
        self.bytes -= waiting.size

    def take(self) -> list[Waiting]:
        """Return the next group: within bounds, in turns, and never with two records of one id.

        Requests that were cancelled while they waited are dropped.
        """
        _requests.set(self.requests)
        _bytes.set(self.bytes)
        group = _Group()
        for _ in range(len(self._turns)):
            line = self._turns[0]
            if line.waiting[0].is_large and not line.waiting[0].future.done():
                self._large.append(self._turns.popleft())
                continue
            line.credit = min(line.credit, 0) + QUANTUM_BYTES
            before = len(group.requests)
            self._serve(line, group)
            if line.waiting and len(group.requests) == before and line.credit > 0 and not line.waiting[0].is_large:
                line.credit -= QUANTUM_BYTES
                break  # the group is full: this log is the first of the next one
            self._turns.popleft()
            if line.waiting:
                self._turns.append(line)
            else:
                del self._lines[line.key]
        return group.requests

    @property
    def has_large(self) -> bool:
        """True while `take_large` has a request."""
        return bool(self._large)

    def take_large(self) -> Waiting:
        """Return the next request that is larger than a group. Call `resume` once it was answered."""
        return self._large.popleft().waiting.popleft()

    def resume(self, large: Waiting) -> None:
        """Give the log of a large request its turns again."""
        line = self._lines[large.key]
        if line.waiting:
            self._turns.append(line)
        else:
            del self._lines[line.key]

    def _serve(self, line: _Line, group: _Group) -> None:
        """Move requests from a line into the group for as long as the log has credit and the group has room."""
        ids: set[str] = set()
        credit, records, size = line.credit, group.records, group.bytes
        while line.waiting and credit > 0:
            waiting = line.waiting[0]
            if waiting.future.done():
                self.release(line.waiting.popleft())
                continue
            if records + waiting.records > GROUP_RECORDS_MAX or size + waiting.size > GROUP_BYTES_MAX:
                break  # no room, which a large request never has
            if waiting.ids:
                if not ids.isdisjoint(waiting.ids):
                    break
                ids.update(waiting.ids)
            group.requests.append(line.waiting.popleft())
            credit -= waiting.size
            records += waiting.records
            size += waiting.size
        line.credit, group.records, group.bytes = credit, records, size


def overloaded(why: str) -> DecklogError:
    """Return the refusal of a request of which nothing was stored."""
    return DecklogError(Code.OVERLOADED, f"{why}; nothing of this request was stored. Try again.", retry_after=1)
