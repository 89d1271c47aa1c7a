"""The registry as every process uses it: looked up on demand, remembered within bounds, and at most two seconds old.

A process follows the numbered changes of the registry and never reads all of it, so neither its memory nor a change costs more
with more tenants. What it remembers is right as of the version it has followed: a change evicts or replaces what it names, and
a look-up that began before a change is repeated. So suspension, deletion and revocation act as soon as their change is
followed, and a process that could follow none for too long stops serving (`registry-stale`). The poll is no duty of
`workers.periodic`: it must neither back off nor wait longer than the age limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, cast

import structlog
from prometheus_client import Counter, Gauge

from decklog.domain.errors import Code, DecklogError
from decklog.domain.store import ApiKey, Registered, Registry, RegistryChanges
from decklog.domain.tenant import PLATFORM_TENANT, Tenant
from decklog.services.coalescing import Coalescing, shared
from decklog.services.identity.entries import Entries, Wanted

REFRESH_SECONDS_MIN = 0.2
"""Between two polls that stale requests can cause."""
LOAD_SECONDS_MIN = 0.02
"""From one poll to the next, however many changes are announced."""
LOOKUP_SECONDS_MIN = 0.01
LOOKUP_REST = 4.0
LOOKUP_REST_SECONDS_MAX = 0.25
"""Rest after a look-up, as a multiple of its time and at most: guessed keys occupy a fifth of one connection."""
LOOKUPS_TOGETHER_MAX = 500
"""Tenants and keys of one look-up."""
READ_AGAIN_MAX = 1_000
"""Known tenants and keys that one poll reads again; where more have changed, they are looked up when they are used."""
PAGE_TENANTS = 500

READ = Gauge("decklog_registry_read_timestamp_seconds", "Time of the last poll of the registry, in seconds since 1970: its age.")
ROWS = Counter("decklog_registry_rows_total", "Rows of the registry that were read, by what read them: poll or lookup.", ["by"])
LOOKUPS = Counter("decklog_registry_lookups_total", "Queries for tenants and keys that the process did not know.")
UNKNOWN = Counter("decklog_registry_unknown_total", "Requests for keys and tenants that are known not to exist, without a query.")
ENTRIES = Gauge("decklog_registry_entries", "Remembered tenants and keys, and those known not to exist.", ["kind"])

_log = structlog.get_logger(__name__)


class Notices(Protocol):
    """Notices that the registry has changed. They may be lost: the poll finds every change."""

    async def start(self, heard: Callable[[], None]) -> None:
        """Begin to call `heard` after each change."""
        ...

    async def stop(self) -> None:
        """End that."""
        ...


class RegistryCache:
    """One process's view of the registry, kept fresh by polling and by notices.

    `max_age` and `interval` are in seconds; the age counts from the moment a successful poll began.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        notices: Notices | None = None,
        max_age: float = 2.0,
        interval: float = 0.5,
        entries: Entries | None = None,
    ) -> None:
        self._registry = registry
        self._notices = notices
        self._max_age = max_age
        self._interval = interval
        self._entries = entries or Entries()
        self._version: int | None = None
        self._tenants_version = 0
        self._as_of = float("-inf")
        self._refreshed = float("-inf")
        self._failing = False
        self._changed = asyncio.Event()
        self._noticed = asyncio.Event()
        self._loads: Coalescing[None, None] = Coalescing(shared(self._load))
        self._refreshes: Coalescing[None, None] = Coalescing(shared(self._refresh))
        self._lookups: Coalescing[Wanted, Tenant | ApiKey | None] = Coalescing(
            self._look_up,
            group_max=LOOKUPS_TOGETHER_MAX,
            gap=lambda took: max(LOOKUP_SECONDS_MIN, took + min(took * LOOKUP_REST, LOOKUP_REST_SECONDS_MAX)),
        )
        self._poll: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the version once and begin to follow it in the background. Raises `storage-unavailable`."""
        await self._loads(None)
        self._poll = asyncio.create_task(self._keep_fresh(), name="registry-poll")
        if self._notices is not None:
            await self._notices.start(self._noticed.set)

    async def stop(self) -> None:
        """End the poll."""
        poll, self._poll = self._poll, None
        if self._notices is not None:
            await self._notices.stop()
        if poll is not None:
            poll.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await poll

    @property
    def fresh(self) -> bool:
        """True while the view is within its age limit."""
        return self._version is not None and time.monotonic() - self._as_of <= self._max_age

    @property
    def version_if_fresh(self) -> int | None:
        """The version, or None where the view is beyond its age limit."""
        return self._version if time.monotonic() - self._as_of <= self._max_age else None

    @property
    def version(self) -> int:
        """The version that was followed within the last `max_age` seconds. Raises `registry-stale`."""
        if self._version is None or not self.fresh:
            raise self._stale()
        return self._version

    @property
    def tenants_version(self) -> int:
        """The last version in which any tenant changed. Raises `registry-stale`."""
        self._require_fresh()
        return self._tenants_version

    def _require_fresh(self) -> None:
        if not self.fresh:
            raise self._stale()

    def _stale(self) -> DecklogError:
        return DecklogError(
            Code.REGISTRY_STALE,
            f"This process could not read the registry for {self._max_age:g} seconds, so permissions are unknown. Try again.",
            retry_after=1,
        )

    # --- without I/O: what the process knows already ---

    def cached_key(self, key_id: str) -> ApiKey | None:
        """Return a key that this process knows; None decides nothing. Raises `registry-stale`."""
        self._require_fresh()
        return self._entries.key(key_id)

    def cached_tenant(self, number: int) -> Tenant | None:
        """Return a tenant that this process knows; None decides nothing. Raises `registry-stale`."""
        self._require_fresh()
        return self._entries.tenant(number)

    def cached_named(self, name: str) -> Tenant | None:
        """Return the tenant of this name if the process knows it; None decides nothing. Raises `registry-stale`."""
        self._require_fresh()
        return self._entries.named(name)

    # --- with a look-up where needed ---

    async def key(self, key_id: str) -> ApiKey | None:
        """Return the key of this id, or None if there is none. Raises `registry-stale`."""
        return cast("ApiKey | None", await self._get(("key", key_id)))

    async def tenant(self, number: int) -> Tenant | None:
        """Return the tenant of this number, or None if there is none. Raises `registry-stale`."""
        return cast("Tenant | None", await self._get(("tenant", number)))

    async def named(self, name: str) -> Tenant | None:
        """Return the tenant of this name, or None if there is none. Raises `registry-stale`."""
        return cast("Tenant | None", await self._get(("name", name)))

    async def _get(self, wanted: Wanted) -> Tenant | ApiKey | None:
        self._require_fresh()
        found = self._entries.get(wanted)
        if found is not None:
            return found
        if self._entries.is_unknown(wanted):
            UNKNOWN.inc()
            return None
        return await self._lookups(wanted)

    async def queues(self) -> set[str]:
        """Return the queues of all tenants, read now. Raises `registry-stale` and `storage-unavailable`."""
        self._require_fresh()
        return await self._registry.queues()

    async def searching(self) -> AsyncIterator[Tenant]:
        """Yield all tenants with `retention.searchDays`, page by page. Raises `registry-stale` and `storage-unavailable`."""
        after = 0
        while True:
            self._require_fresh()
            page = await self._registry.searching(after=after, limit=PAGE_TENANTS)
            for tenant in page:
                yield tenant
            if len(page) < PAGE_TENANTS:
                return
            after = page[-1].id

    def changed(self) -> asyncio.Event:
        """Return an event that is set when the registry next changes. Each change needs a new event."""
        return self._changed

    async def refresh(self) -> None:
        """Poll now, or wait for a poll that was asked for a moment ago. Raises `storage-unavailable`."""
        await self._refreshes(None)

    async def _refresh(self, _: None) -> None:
        if time.monotonic() - self._refreshed >= REFRESH_SECONDS_MIN:
            self._refreshed = time.monotonic()
            await self._loads(None)

    async def current(self) -> int:
        """Return the version, polled again where it is too old although no poll failed.

        In that case this process was suspended and the database is well, so the first request afterwards need not be
        refused. Raises `registry-stale`.
        """
        if not self.fresh and not self._failing:
            with contextlib.suppress(Exception):
                await self.refresh()
        return self.version

    async def _look_up(self, asked: Sequence[Wanted]) -> Sequence[Tenant | ApiKey | None]:
        """Answer a group of look-ups by one query; again where the process has followed a change meanwhile."""
        for _ in range(3):
            found = await self._read(asked)
            # An older answer could bring back what a change that was followed meanwhile has evicted.
            if found.version >= self.version:
                break
        else:
            raise self._stale()
        self._entries.put(found)
        known: dict[Wanted, Tenant | ApiKey] = {
            **{("tenant", tenant.id): tenant for tenant in found.tenants},
            **{("name", tenant.name): tenant for tenant in found.tenants},
            **{("key", key.id): key for key in found.keys},
        }
        for wanted in asked:
            if wanted not in known:
                self._entries.note_unknown(wanted)
        self._measure()
        return [known.get(wanted) for wanted in asked]

    async def _read(self, asked: Sequence[Wanted]) -> Registered:
        LOOKUPS.inc()
        try:
            async with asyncio.timeout(self._max_age):
                found = await self._registry.find(
                    tenants=[wanted[1] for wanted in asked if wanted[0] == "tenant"],
                    names=[wanted[1] for wanted in asked if wanted[0] == "name"],
                    keys=[wanted[1] for wanted in asked if wanted[0] == "key"],
                )
        except (DecklogError, TimeoutError):
            raise self._stale() from None
        ROWS.labels("lookup").inc(len(found.tenants) + len(found.keys))
        return found

    async def _load(self, _: None) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._max_age):
                changes = await self._registry.changes(self._version)
                if changes.version != self._version:
                    await self._follow(changes)
        except Exception as error:
            self._failing = True
            if isinstance(error, TimeoutError):
                raise DecklogError(Code.STORAGE_UNAVAILABLE, "The registry did not answer in time.", retry_after=1) from None
            raise
        self._failing = False
        self._as_of = began
        READ.set(time.time())

    async def _follow(self, changes: RegistryChanges) -> None:
        """Take over changes: read again what is known and changed, then replace all of it at once."""
        ROWS.labels("poll").inc(len(changes.tenants) + len(changes.keys))
        found = await self._read_again(changes)
        # No other task runs from here on, so nobody sees one change of a version without the others.
        if changes.complete:
            self._entries.drop(changes.tenants, changes.keys)
        else:
            self._entries.clear()
        for each in found:
            self._entries.put(each)
        if changes.tenants or not changes.complete:
            self._tenants_version = changes.version
        self._version = changes.version
        self._measure()
        before, self._changed = self._changed, asyncio.Event()
        before.set()

    async def _read_again(self, changes: RegistryChanges) -> list[Registered]:
        """Return the present state of what is known and changed, and of the platform's own tenant."""
        found: list[Registered] = []
        tenants, keys = set[int](), set[str]()
        names = [] if self._entries.named(PLATFORM_TENANT) and changes.complete else [PLATFORM_TENANT]
        if not (changes.tenants or names) and not changes.keys:
            return found
        while True:
            held_tenants, held_keys = self._entries.held(changes)
            if len(held_tenants) + len(held_keys) > READ_AGAIN_MAX:
                held_tenants, held_keys = set(), set()
            # A look-up may bring in more of the changed ones while this one waits.
            more_tenants, more_keys = held_tenants - tenants, held_keys - keys
            if not (more_tenants or more_keys or names):
                return found
            each = await self._registry.find(tenants=list(more_tenants), names=names, keys=list(more_keys))
            ROWS.labels("poll").inc(len(each.tenants) + len(each.keys))
            found.append(each)
            tenants |= more_tenants
            keys |= more_keys
            names = []

    def _measure(self) -> None:
        for kind, size in zip(("tenant", "key", "unknown"), self._entries.sizes, strict=True):
            ENTRIES.labels(kind).set(size)

    async def _keep_fresh(self) -> None:
        failing = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._noticed.wait()
                    await asyncio.sleep(LOAD_SECONDS_MIN)
            self._noticed.clear()
            try:
                await self._loads(None)
            except Exception as error:  # noqa: BLE001 - a poll that ended would refuse every request for ever
                if not failing:
                    _log.warning("registry cannot be read", cause=repr(error))
                failing = True
            else:
                if failing:
                    _log.info("registry can be read again")
                failing = False
