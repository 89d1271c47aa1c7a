"""After a disaster: a database that was restored from a copy, and tenants whose objects are lost.

Nothing here makes or restores anything. It says once what nobody else can know: that numbers which were given are given again, or that the
owner of what is there will not come back. Provisioning and the workers do the rest.
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
from decklog.services.tenancy.ports import IndexProvisioning, TenantDirectory
from decklog.services.tenancy.provisioning import Provisioner


class Epochs(Protocol):
    async def begin_epochs(self, entry: RecordInput) -> int: ...


class Recovered(msgspec.Struct, frozen=True):
    """How many logs began a new epoch, which indices were removed, and why others were not."""

    logs: int
    indices: tuple[str, ...]
    left: dict[str, str]


async def recover_database(database: Epochs, search: IndexProvisioning | None, directory: TenantDirectory) -> Recovered:
    """Say that the database lost records that it had acknowledged. Every log begins a new epoch, so that a number which is given
    again is not taken for the one that is lost. Indices go: they know what was lost, and they are made and filled again by
    provisioning and workers, from the records. May run again.

    Raises `storage-unavailable` and `misconfigured`; an index that could not be removed is told.
    """
    tenants = await directory.tenants()
    actor, resource = Actor(id="recovery", type="decklog"), Resource(type="tenant", id=PLATFORM_TENANT)
    logs = await database.begin_epochs(RecordInput(action="database.recover", actor=actor, resource=resource))
    if search is None:
        return Recovered(logs, (), {})
    removed, left, ours = list[str](), dict[str, str](), {tenant.uid for tenant in tenants}
    for index in sorted({tenant.index for tenant in tenants}):
        try:
            seen = await search.observe(index)
            if seen.exists and seen.owner in ours:
                await search.apply(RemoveIndex(index))
                removed.append(index)
            elif seen.exists:
                left[index] = f"It belongs to UID {seen.owner}, which the registry does not know."
        except DecklogError as error:
            left[index] = error.detail
    return Recovered(logs, tuple(removed), left)


async def recover_tenants(provisioner: Provisioner, names: Collection[str] | None) -> dict[str, str]:
    """Say that the objects of these tenants (None: of all) are lost: each is stopped and retained, as if its object had been deleted
    with the policy Retain, and taken over by the next one of its name. May run again.

    Gives why not, by name, empty where it was done. Raises `storage-unavailable`.
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
