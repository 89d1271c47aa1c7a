"""The connections of one server: how many may be open, how long each may wait, and what both are counted by.

One periodic sweep looks at every connection, so a request needs no timer of its own. This module knows neither HTTP nor
WebSocket: the protocols decide what a wait means.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import resource
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
import prometheus_client
import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.settings import Api

_TICK = 1.0
"""Seconds between two sweeps, unless a limit is so short that a quarter of it is less."""
_LOOKS_MAX = 32
"""Connections that are examined to make room for one new connection."""
FILES_RESERVED = 256
"""Open files of a process beside its connections: databases, search, listeners, libraries."""
_IPV6_NETWORK = 64
"""Bits of an IPv6 address that one customer of a provider commonly has; the bound per address counts the whole network."""

_open = prometheus_client.Gauge("decklog_http_connections", "Open connections of clients.")
_refused = prometheus_client.Counter(
    "decklog_http_connections_refused", "Connections refused or closed before an answer, by reason.", ["reason"]
)
_stalled = prometheus_client.Counter(
    "decklog_http_readers_disconnected", "Connections closed because the client read its answer too slowly.", ["kind"]
)
_log = structlog.get_logger(__name__)


class Limits(msgspec.Struct, frozen=True):
    """Limits of the connections of one server; all times are in seconds. The settings of the API explain each."""

    connections_max: int = Api().connections_max
    per_address_max: int = Api().connections_per_address_max
    header_bytes_max: int = Api().header_bytes_max
    header_timeout: float = Api().header_timeout
    idle_timeout: float = Api().idle_timeout
    receive_timeout: float = Api().receive_timeout
    send_timeout: float = Api().send_timeout
    transfer_rate_min: int = Api().transfer_rate_min

    @property
    def tick(self) -> float:
        """Seconds between two sweeps."""
        return min(_TICK, min(self.header_timeout, self.idle_timeout, self.receive_timeout, self.send_timeout) / 4)


def limits_of(settings: Api) -> Limits:
    """Return the limits that the settings of the API set."""
    return Limits(
        connections_max=settings.connections_max,
        per_address_max=settings.connections_per_address_max,
        header_bytes_max=settings.header_bytes_max,
        header_timeout=settings.header_timeout,
        idle_timeout=settings.idle_timeout,
        receive_timeout=settings.receive_timeout,
        send_timeout=settings.send_timeout,
        transfer_rate_min=settings.transfer_rate_min,
    )


def within_files(limits: Limits) -> Limits:
    """Raise the process's limit of open files as far as the limits need, and return the limits that it allows.

    A process without a free file can neither accept a connection nor reach its database.
    """
    wanted = limits.connections_max + _answered_max(limits) + FILES_RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if wanted <= soft or soft == resource.RLIM_INFINITY:
        return limits
    possible = max(16, (soft - FILES_RESERVED) * 4 // 5)
    _log.warning("the limit of open files bounds connections", open_files_max=soft, connections_max=possible)
    return msgspec.structs.replace(limits, connections_max=possible, per_address_max=min(limits.per_address_max, possible))


def _answered_max(limits: Limits) -> int:
    """Return how many refused connections may stay open until their answer is read, beside the counted ones."""
    return limits.connections_max // 4


class Connection(Protocol):
    """One open connection, as the sweep sees it."""

    @property
    def waits_for_client(self) -> bool:
        """True while no request of this connection is complete or being answered, so that closing it loses nothing."""
        ...

    def look(self, now: float) -> None:
        """End whatever has waited too long. `now` is the table's time."""
        ...

    def drop(self) -> None:
        """Close the connection at once, without an answer."""
        ...


class Pace:
    """Judge of a transfer: its rest must move at the smallest allowed rate, in each window of time.

    A window begins when bytes are first seen waiting. It is judged by the bytes that moved in it, so neither a stall after a
    fast start nor one byte a second passes.
    """

    __slots__ = ("_moved", "_since")

    def __init__(self) -> None:
        self._since: float | None = None
        self._moved = 0

    def reset(self) -> None:
        """Begin a new window at the next call of `too_slow`."""
        self._since = None

    def too_slow(self, moved: int, now: float, window: float, rate_min: int) -> bool:
        """Return whether a whole window has passed with less than `rate_min` bytes a second.

        Args:
            moved: Bytes that moved since the last call.
            now: Time of the table.
            window: Seconds of a window.
            rate_min: Bytes a second.
        """
        if self._since is None:
            self._since, self._moved = now, 0
            return False
        self._moved += moved
        if now - self._since < window:
            return False
        slow = self._moved < rate_min * window
        self._since, self._moved = now, 0
        return slow


class SendPace:
    """Progress of a client that reads what was written to its connection, seen from outside by the bytes that still wait."""

    __slots__ = ("_pace", "_waited", "drained")

    def __init__(self) -> None:
        self._pace = Pace()
        self._waited = 0
        self.drained = False
        """Set by the protocol when the buffer fell below its low-water mark: that is progress, whatever was written since."""

    def stalled(self, waiting: int, now: float, limits: Limits) -> bool:
        """Return whether the client has not read enough for `limits.send_timeout`. `waiting`: bytes not sent yet."""
        if not waiting or self.drained:
            self._pace.reset()
            self.drained = False
            self._waited = waiting
            return False
        moved, self._waited = max(0, self._waited - waiting), waiting
        return self._pace.too_slow(moved, now, limits.send_timeout, limits.transfer_rate_min)


class Sending:
    """A transport for answers: what is written after its client has gone is discarded.

    uvloop raises RuntimeError between the failure of a connection and `connection_lost`. Nobody is left to answer, and a client
    that resets its connections must not fill the log.
    """

    __slots__ = ("_transport", "close", "is_closing")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.close, self.is_closing = transport.close, transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data`, unless the client has gone."""
        try:
            self._transport.write(data)
        except RuntimeError:
            if not self._transport.is_closing():
                raise


class Connections:
    """The open connections of one server.

    Args:
        limits: Bounds and times.
        trusted: Addresses and networks of proxies. Each of them carries many clients, so only the total bounds them.
    """

    def __init__(self, limits: Limits, trusted: Sequence[str] = ()) -> None:
        self.limits = limits
        self.now = 0.0
        """Seconds since the start, without those in which the event loop stood still: clients are not charged for them. It moves
        with each sweep, which is exact enough for every deadline, and is free to read."""
        self._swept_at = asyncio.get_running_loop().time()
        self._trusted = tuple(ipaddress.ip_network(each) for each in trusted)
        self._holders: dict[Connection, str | None] = {}
        self._of_address: Counter[str] = Counter()
        self._holder_of = functools.lru_cache(maxsize=4_096)(self._counted_as)

    def __len__(self) -> int:
        return len(self._holders)

    def admit(self, connection: Connection, address: str | None) -> DecklogError | None:
        """Count a new connection, and return why it must be refused, or None.

        A refused connection is counted all the same until `left`, as its answer has to be sent. Only beyond twice the bound
        of everything must the caller close it without an answer.
        """
        holder = self._holder_of(address)
        if holder is not None and self._of_address[holder] >= self.limits.per_address_max:
            refusal: DecklogError | None = DecklogError(
                Code.TOO_MANY_CONNECTIONS,
                f"This address has {self.limits.per_address_max} open connections, which is the maximum. "
                "Close some, or reuse them for several requests.",
                retry_after=1,
            )
        elif len(self._holders) >= self.limits.connections_max and not self._make_room():
            refusal = DecklogError(Code.OVERLOADED, "This process has as many open connections as it may. Try again.")
        else:
            refusal = None
        self.enter(connection, None if refusal is not None else holder)
        return refusal

    @property
    def may_answer_refusals(self) -> bool:
        """True while refused connections may stay open until their answer is read."""
        return len(self._holders) <= self.limits.connections_max + _answered_max(self.limits)

    def enter(self, connection: Connection, holder: str | None) -> None:
        """Count a connection as one of `holder`, None for one that no address is charged for."""
        self._holders[connection] = holder
        if holder is not None:
            self._of_address[holder] += 1
        _open.inc()

    def hand_over(self, connection: Connection, successor: Connection) -> None:
        """Count `successor` in place of `connection`: another protocol continues on the same connection."""
        self._holders[successor] = self._holders.pop(connection, None)

    def left(self, connection: Connection) -> None:
        """Stop counting a connection. May be repeated."""
        if connection not in self._holders:
            return
        holder = self._holders.pop(connection)
        if holder is not None:
            self._of_address[holder] -= 1
            if self._of_address[holder] <= 0:
                del self._of_address[holder]
        _open.dec()

    def refused(self, reason: str) -> None:
        """Count a connection that was refused or closed before an answer."""
        _refused.labels(reason).inc()

    def stalled(self, kind: str) -> None:
        """Count a client that was disconnected because it did not read: `http` or `websocket`."""
        _stalled.labels(kind).inc()

    def sweep(self) -> None:
        """Look at every connection once."""
        at = asyncio.get_running_loop().time()
        self.now = now = self.now + min(at - self._swept_at, 2 * self.limits.tick)
        self._swept_at = at
        for connection in tuple(self._holders):
            try:
                connection.look(now)
            except Exception:  # noqa: BLE001 - one connection must not end the watch over all others
                _log.exception("a connection could not be checked")
                connection.drop()

    async def keep_watch(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self.limits.tick)
            self.sweep()

    def _make_room(self) -> bool:
        """Close the oldest connection that only waits for its client, and return whether there was one.

        Half-open requests of an attacker thus displace each other, and not the requests of others. What is looked at in vain
        goes to the end, so that the next look begins elsewhere.
        """
        for _ in range(min(_LOOKS_MAX, len(self._holders))):
            connection = next(iter(self._holders))
            if connection.waits_for_client:
                self.refused("displaced")
                self.left(connection)
                connection.drop()
                return True
            self._holders[connection] = self._holders.pop(connection)
        return False

    def _counted_as(self, address: str | None) -> str | None:
        """Return the address or network that a connection is counted for, None for trusted proxies and unknown addresses."""
        try:
            found: Any = ipaddress.ip_address(address or "")
        except ValueError:
            return None
        found = getattr(found, "ipv4_mapped", None) or found
        if any(found in network for network in self._trusted):
            return None
        if found.version == 4:
            return str(found)
        return str(ipaddress.ip_network((int(found), _IPV6_NETWORK), strict=False))


@asynccontextmanager
async def watched(limits: Limits, trusted: Sequence[str] = ()) -> AsyncIterator[Connections]:
    """Yield the table of connections, swept while the block runs."""
    connections = Connections(limits, trusted)
    watch = asyncio.create_task(connections.keep_watch(), name="connections")
    try:
        yield connections
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
