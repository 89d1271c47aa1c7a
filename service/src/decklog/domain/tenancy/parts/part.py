"""What the parts of a tenant have in common: their protocol, actions, marks of ownership and reasons for not acting.

Each module beside this one implements `TenantPart` with its functions. This module must not import any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar, Protocol

import msgspec

from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import PREFIX, index_name, queue_name
from decklog.domain.tenancy.registered import DatabaseSeen, Row, Stopped
from decklog.domain.tenancy.status import Part, Verdict
from decklog.domain.tenancy.trouble import Trouble
from decklog.domain.tenant import DEFAULT_CELL, PLATFORM_TENANT, Isolation

WAITING_FOR_OWNER = Verdict("Unknown", "WaitingForDatabase", "The owner can only be verified when the database can be reached.")


class Installation(msgspec.Struct, frozen=True):
    """The installation that provisions. Names of its indices and queues begin with `prefix`.

    `uid` is that of the reserved tenant, which owns what tenants share; None while it is unknown. `cell` names the only
    database that holds records.
    """

    uid: str | None = None
    prefix: str = PREFIX
    cell: str = DEFAULT_CELL


class Mark(msgspec.Struct, frozen=True):
    """The owner that an index or a queue is labelled with. What tenants share carries the reserved tenant."""

    tenant: str
    uid: str


class Action(msgspec.Struct, frozen=True, tag=True, tag_field="action"):
    """One change to one backend for one tenant. Every action is idempotent. `part` names the backend that carries it out."""

    part: ClassVar[Part]


class Step(msgspec.Struct, frozen=True):
    """An action of a plan, and what the decision must know of it.

    `differing` names the things that the action corrects, as status and metrics show them. `expected` actions become due
    without an outside change: time has passed, or this version of Decklog is newer. While an `essential` action is left
    to do, its part is not ready. `disabling`: the part does not work as long as `driftPolicy: Report` withholds this action.
    """

    action: Action
    differing: tuple[str, ...]
    expected: bool = False
    essential: bool = False
    disabling: bool = True


class Look(msgspec.Struct, frozen=True):
    """What every part decides by: the manifest, the installation, and the tenant as the database shows it.

    `stopped` is None unless the tenant is being deleted and is already marked as deleted.
    """

    manifest: Manifest
    installation: Installation
    database: DatabaseSeen | Trouble
    stopped: Stopped | None = None

    @property
    def shared(self) -> bool:
        """Whether the manifest asks for the relations, index and queue of a retention class."""
        return self.manifest.spec.isolation is Isolation.SHARED

    @property
    def row(self) -> Row | None:
        """The tenant's registry row; None where there is none or the database cannot be reached."""
        return self.database.row if isinstance(self.database, DatabaseSeen) else None

    @property
    def index(self) -> str:
        """Name of the index that the manifest asks for."""
        return index_name(self.manifest.name, self.manifest.spec, self.installation.prefix)

    @property
    def queue(self) -> str:
        """Name of the queue that the manifest asks for."""
        return queue_name(self.manifest.name, self.manifest.spec, self.installation.prefix)

    @property
    def owner(self) -> str | None:
        """The UID that index and queue must be marked with; None while it is unknown."""
        if not self.shared:
            return self.manifest.uid
        if self.manifest.name == PLATFORM_TENANT:
            # Two processes may have chosen different UIDs for the reserved tenant; the registered one is valid.
            return self.row.uid if self.row else None
        return self.installation.uid

    @property
    def mark(self) -> Mark | None:
        """The mark that index and queue must carry; None while the owner is unknown."""
        uid = self.owner
        return None if uid is None else Mark(PLATFORM_TENANT if self.shared else self.manifest.name, uid)

    @property
    def former(self) -> frozenset[str]:
        """UIDs that owned a Dedicated tenant before it was adopted; their marks are the tenant's own."""
        return frozenset() if self.shared or self.row is None else frozenset((self.row.uid, *self.row.former_uids))

    @property
    def removable(self) -> frozenset[str]:
        """UIDs whose index and queue a deletion of this Tenant removes."""
        return frozenset((self.manifest.uid, *(self.row.former_uids if self.row else ())))

    @property
    def made_shared(self) -> bool:
        """Whether the tenant was created Shared, whatever its manifest says now."""
        return (self.row.isolation if self.row else self.manifest.spec.isolation) is Isolation.SHARED

    def unverified(self, *owners: str | None) -> bool:
        """Whether these marks cannot be told from a foreign owner's because the database cannot be reached."""
        return isinstance(self.database, Trouble) and (self.owner is None or not {*owners} <= {self.owner, None})


class TenantPart(Protocol):
    """One part of a tenant. `found` is what a look found of its backend."""

    def plan(self, look: Look, found: Any, now: datetime) -> Iterator[Step]:
        """Yield what must be done so that the backend matches the manifest at this time. Never removes data."""
        ...

    def removal(self, look: Look, found: Any) -> Iterator[Action]:
        """Yield what must be removed once a deletion may remove anything."""
        ...

    def verdict(self, look: Look, found: Any | None) -> Verdict:
        """Return the verdict of a backend that was seen, where nothing essential is left to do.

        `found` is None where the backend is not configured.
        """
        ...
