"""Reasons for which nothing is done for a tenant: another owner, an immutable field, a full cell. Pure."""

from __future__ import annotations

import msgspec

from decklog.domain.errors import DecklogError
from decklog.domain.tenancy.manifest import Manifest, check_request
from decklog.domain.tenancy.names import check_name, schema_name
from decklog.domain.tenancy.observation import Observation
from decklog.domain.tenancy.parts import queue, search
from decklog.domain.tenancy.parts.part import Look
from decklog.domain.tenancy.parts.queue import QueueSeen
from decklog.domain.tenancy.parts.search import IndexSeen
from decklog.domain.tenancy.registered import DatabaseSeen, Row
from decklog.domain.tenancy.spec import AdoptionPolicy, parse_spec, retention_class
from decklog.domain.tenancy.trouble import Refusal, Trouble
from decklog.domain.tenant import PLATFORM_TENANT, State

DEDICATED_MAX = 200
"""Dedicated tenants of one cell: thousands of hypertables or indices do not scale. Shared tenants are not counted."""


def refusal(look: Look, seen: Observation) -> Refusal | None:
    """Return why nothing may be done for this manifest; None where everything may."""
    asked, cell = look.manifest.spec.cell, look.installation.cell
    if asked != cell:
        return Refusal(
            "UnknownCell",
            f"There is no cell {asked!r} in this installation, which has {cell!r} alone. Create the Tenant again with that "
            "cell, or apply it to the installation that has the other one (DECKLOG_CELL).",
        )
    return _by_registry(look) or _by_marks(look, seen)


def _by_registry(look: Look) -> Refusal | None:
    if look.row is not None:
        return _by_owner(look, look.row) or _by_immutable(look, look.row) or _by_generation(look, look.row)
    if isinstance(look.database, DatabaseSeen) and not look.shared and look.database.dedicated >= DEDICATED_MAX:
        return Refusal(
            "TooManyDedicated",
            f"This cell has its {DEDICATED_MAX} Dedicated tenants. Use isolation Shared, or another cell.",
        )
    return None


def _by_owner(look: Look, row: Row) -> Refusal | None:
    manifest = look.manifest
    if row.uid == manifest.uid:
        return None
    if row.state is not State.DELETED:
        return Refusal(
            "Conflict",
            f"A tenant {manifest.name!r} is registered for another object, with UID {row.uid}. "
            "Delete that one first, or use another name.",
        )
    if manifest.spec.adoption_policy is AdoptionPolicy.REFUSE:
        return Refusal(
            "AdoptionRefused",
            f"A deleted tenant {manifest.name!r} left its data, and spec.adoptionPolicy is Refuse. "
            "Set it to Adopt to take that over, or use another name.",
        )
    return None


def _by_immutable(look: Look, row: Row) -> Refusal | None:
    manifest, spec = look.manifest, look.manifest.spec
    if row.isolation is not spec.isolation:
        return Refusal("Immutable", f"spec.isolation is {row.isolation.value} and cannot be changed.")
    if row.cell != spec.cell:
        return Refusal("Immutable", f"spec.cell is {row.cell!r} and cannot be changed: the records are there.")
    if row.schema != schema_name(manifest.name, spec):
        kept = row.schema.removeprefix("shared_")
        return Refusal(
            "Immutable",
            f"spec.retention.days may change only within the class of {kept} days that the tenant was created in; "
            f"{spec.retention.days} is of the class of {retention_class(spec.retention.days)} days.",
        )
    if (row.index, row.queue) != (look.index, look.queue):
        return Refusal("Immutable", f"The tenant was made with the index {row.index!r}; the prefix of names cannot be changed.")
    return None


def _by_generation(look: Look, row: Row) -> Refusal | None:
    if row.uid == look.manifest.uid and row.generation > look.manifest.generation:
        return Refusal("Superseded", f"Generation {row.generation} of this tenant was already applied.")
    return None


def _by_marks(look: Look, seen: Observation) -> Refusal | None:
    """A foreign mark on the tenant's index or queue; one without any mark counts as foreign."""
    found: list[tuple[str, str | None]] = []
    if isinstance(seen.search, IndexSeen):
        found += search.marks(look, seen.search)
    if isinstance(seen.queue, QueueSeen):
        found += queue.marks(look, seen.queue)
    # Without the registry former owners are unknown; until it can be reached, a strange mark is not written to.
    unknown = look.owner is None or (isinstance(look.database, Trouble) and not look.shared)
    for thing, mark in found:
        if mark == look.owner or mark in look.former or (mark is not None and unknown):
            continue
        owner = f"belongs to UID {mark}" if mark else "was not made by Decklog"
        return Refusal("Conflict", f"The {thing} {owner}. Nothing is written to it. Remove it, or use another name.")
    return None


RESERVED = Refusal("InvalidSpec", f"The name {PLATFORM_TENANT!r} is reserved for the platform itself. Use another name.")


def unacceptable(manifest: Manifest) -> Refusal | None:
    """Return what is wrong with the manifest itself, whatever the backends show; None where it is valid."""
    if manifest.name == PLATFORM_TENANT:
        return RESERVED
    try:
        check_name(manifest.name)
        check_request(manifest.rotate)
        parse_spec(msgspec.to_builtins(manifest.spec))
    except DecklogError as error:
        return Refusal("InvalidSpec", error.detail)
    return None
