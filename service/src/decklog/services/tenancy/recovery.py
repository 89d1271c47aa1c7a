"""Recovery after a disaster: a database that was restored from a copy, and tenants whose objects are lost.

This module restores no data. It records two facts that only an administrator knows: sequence numbers will be assigned again, or
the owner of existing data will not return. Provisioning and the workers do the rest.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import msgspec
from msgspec.structs import replace

from decklog.domain.errors import DecklogError
from decklog.domain.records.record import Actor, RecordInput, Resource
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.search import RemoveIndex
from decklog.domain.tenancy.spec import DeletionPolicy, Retention, TenantSpec
from decklog.domain.tenancy.status import SYNCED
from decklog.domain.tenant import PLATFORM_TENANT, State
from decklog.services.records.access_log import RECOVER
from decklog.services.tenancy.ports import IndexProvisioning, TenantDirectory
from decklog.services.tenancy.provisioning import Provisioner


class Epochs(Protocol):
    """The database as far as it begins new epochs."""

    async def begin_epochs(self, entry: RecordInput) -> int:
        """Begin a new epoch of every log, record the entry, and return the number of logs."""
        ...


class Recovered(msgspec.Struct, frozen=True):
    """Number of logs that began a new epoch, indices that were removed, and why others were not, by name."""

    logs: int
    indices: tuple[str, ...]
    left: dict[str, str]


async def recover_database(database: Epochs, search: IndexProvisioning | None, directory: TenantDirectory) -> Recovered:
    """Declare that the database lost acknowledged records. Idempotent.

    Every log begins a new epoch, so that a sequence number that is assigned again is not mistaken for the lost one. Indices are
    removed, because they hold the lost records; provisioning and workers rebuild them. Raises `storage-unavailable` and
    `misconfigured`. An index that could not be removed is in the result, with the reason.
    """
    tenants = await directory.tenants()
    actor, resource = Actor(id="recovery", type="decklog"), Resource(type="tenant", id=PLATFORM_TENANT)
    logs = await database.begin_epochs(RecordInput(action=RECOVER, actor=actor, resource=resource))
    if search is None:
        return Recovered(logs, (), {})
    removed, left, ours = list[str](), dict[str, str](), {tenant.uid for tenant in tenants}
    for index in sorted({tenant.index for tenant in tenants}):
        try:
            seen = await search.observe(index)
            names = tuple(each.name for each in seen.ranges if each.owner in ours)
            if names:
                await search.apply(RemoveIndex(index, names))
                removed.append(index)
            if strange := {str(each.owner) for each in seen.ranges} - ours:
                left[index] = f"It belongs to UID {', '.join(sorted(strange))}, which the registry does not know."
        except DecklogError as error:
            left[index] = error.detail
    return Recovered(logs, tuple(removed), left)


async def recover_tenants(provisioner: Provisioner, names: Collection[str] | None) -> dict[str, str]:
    """Declare that the objects of these tenants (None: of all tenants) are lost. Idempotent.

    Each tenant is stopped and retained, as by a deletion with the policy Retain; the next object of its name adopts it. Returns
    why that failed, by name, empty where it succeeded. Raises `storage-unavailable`.
    """
    known = {each.name: each for each in await provisioner.tenants() if each.name != PLATFORM_TENANT}
    told = dict.fromkeys(sorted(set(names or ()) - known.keys()), "There is no such tenant.")
    for name in sorted(known if names is None else known.keys() & set(names)):
        listing = known[name]
        if listing.state is State.DELETED:
            told[name] = ""
            continue
        spec = listing.spec or TenantSpec(retention=Retention(listing.retention_days), isolation=listing.isolation)
        kept = replace(spec, deletion_policy=DeletionPolicy.RETAIN, deletion_protection=False, legal_hold=False)
        status = await provisioner.remove(Manifest(name, listing.uid, listing.generation, kept))
        synced = next(each for each in status.conditions if each.type == SYNCED)
        told[name] = "" if synced.status == "True" else synced.message
    return told
