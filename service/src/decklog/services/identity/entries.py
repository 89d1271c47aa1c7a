"""The tenants and keys that a process has looked up, within bounds and without I/O.

Every entry is as of the version of `services.identity.registry` or later; that module sees to it. What is unknown is remembered
apart from what is known, so that guessed keys push out no key in use.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Literal

from decklog.domain.store import ApiKey, Registered, RegistryChanges
from decklog.domain.tenant import PLATFORM_TENANT, Tenant

KEYS_MAX = 20_000
"""Keys that a process remembers. With as many tenants as may be, they take 14 MiB."""
TENANTS_MAX = 10_000
"""Tenants that a process remembers."""
UNKNOWN_MAX = 10_000
UNKNOWN_SECONDS_MAX = 2.0
"""Time for which something is known not to exist; a change of it ends that time earlier."""

Wanted = tuple[Literal["tenant"], int] | tuple[Literal["name"], str] | tuple[Literal["key"], str]
"""One thing to look up: a tenant by its number or its name, or a key by its id."""


class Entries:
    """Known tenants and keys, the one used longest ago leaving first, and what is known not to exist."""

    def __init__(
        self,
        *,
        keys_max: int = KEYS_MAX,
        tenants_max: int = TENANTS_MAX,
        unknown_max: int = UNKNOWN_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys_max = keys_max
        self._tenants_max = tenants_max
        self._unknown_max = unknown_max
        self._monotonic = monotonic
        self._tenants: OrderedDict[int, Tenant] = OrderedDict()
        self._by_name: dict[str, int] = {}
        self._keys: OrderedDict[str, ApiKey] = OrderedDict()
        self._unknown: dict[Wanted, float] = {}

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The numbers of tenants, keys and unknown things."""
        return len(self._tenants), len(self._keys), len(self._unknown)

    def tenant(self, number: int) -> Tenant | None:
        """Return the tenant of this number, if it is known."""
        found = self._tenants.get(number)
        if found is not None:
            self._tenants.move_to_end(number)
        return found

    def named(self, name: str) -> Tenant | None:
        """Return the tenant of this name, if it is known."""
        number = self._by_name.get(name)
        return None if number is None else self.tenant(number)

    def key(self, key_id: str) -> ApiKey | None:
        """Return the key of this id, if it is known."""
        found = self._keys.get(key_id)
        if found is not None:
            self._keys.move_to_end(key_id)
        return found

    def get(self, wanted: Wanted) -> Tenant | ApiKey | None:
        """Return one thing, if it is known."""
        if wanted[0] == "tenant":
            return self.tenant(wanted[1])
        return self.named(wanted[1]) if wanted[0] == "name" else self.key(wanted[1])

    def is_unknown(self, wanted: Wanted) -> bool:
        """Return whether this was looked up a moment ago and does not exist."""
        return self._unknown.get(wanted, 0.0) > self._monotonic()

    def note_unknown(self, wanted: Wanted) -> None:
        """Remember for a moment that this does not exist."""
        self._unknown.pop(wanted, None)
        while len(self._unknown) >= self._unknown_max:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[wanted] = self._monotonic() + UNKNOWN_SECONDS_MAX

    def held(self, changes: RegistryChanges) -> tuple[set[int], set[str]]:
        """Return the tenants and keys among these changes that are known."""
        return set(changes.tenants & self._tenants.keys()), set(changes.keys & self._keys.keys())

    def put(self, found: Registered) -> None:
        """Remember tenants and keys that were read. The platform's own tenant stays, whatever leaves."""
        for tenant in found.tenants:
            self._drop_tenant(tenant.id)
            self._tenants[tenant.id] = tenant
            self._by_name[tenant.name] = tenant.id
            self._unknown.pop(("tenant", tenant.id), None)
            self._unknown.pop(("name", tenant.name), None)
        for key in found.keys:
            self._keys.pop(key.id, None)
            self._keys[key.id] = key
            self._unknown.pop(("key", key.id), None)
        if (platform := self._by_name.get(PLATFORM_TENANT)) is not None:
            self._tenants.move_to_end(platform)
        while len(self._tenants) > self._tenants_max:
            self._drop_tenant(next(iter(self._tenants)))
        while len(self._keys) > self._keys_max:
            self._keys.popitem(last=False)

    def drop(self, tenants: Iterable[int], keys: Iterable[str]) -> None:
        """Forget these tenants and keys. A changed tenant may have any name, so every unknown name is forgotten, too."""
        changed = False
        for number in tenants:
            self._drop_tenant(number)
            self._unknown.pop(("tenant", number), None)
            changed = True
        for key_id in keys:
            self._keys.pop(key_id, None)
            self._unknown.pop(("key", key_id), None)
        if changed:
            self._unknown = {wanted: until for wanted, until in self._unknown.items() if wanted[0] != "name"}

    def clear(self) -> None:
        """Forget everything."""
        self._tenants.clear()
        self._by_name.clear()
        self._keys.clear()
        self._unknown.clear()

    def _drop_tenant(self, number: int) -> None:
        gone = self._tenants.pop(number, None)
        if gone is not None and self._by_name.get(gone.name) == number:
            del self._by_name[gone.name]
