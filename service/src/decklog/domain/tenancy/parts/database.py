"""The database part of a tenant: its relations, partitions, registry row and heads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from msgspec.structs import replace

from decklog.domain.tenancy.names import schema_name
from decklog.domain.tenancy.parts import archive
from decklog.domain.tenancy.parts.part import Action, Look, Step
from decklog.domain.tenancy.quota import storage_used_up
from decklog.domain.tenancy.registered import DatabaseSeen, HeadSettings, Row, Stopped, head_settings
from decklog.domain.tenancy.spec import DeletionPolicy, retention_class
from decklog.domain.tenancy.status import Part, Verdict
from decklog.domain.tenant import Isolation, State

FORMER_UIDS_MAX = 16
"""Former owners remembered of a tenant that was adopted repeatedly."""
NEWER_TEMPLATE = "this version's template"
"""Name in `DatabaseSeen.missing` for relations that an older version of Decklog made."""
_DAY_DAYS_MAX = 92
"""Days of retention up to which a partition spans one day."""
_WEEK_DAYS_MAX = 731
"""Days of retention up to which a partition spans seven days; above, it spans thirty."""
_GOOD = Verdict("True", "Provisioned", "Relations, partitions, heads and the registry are as asked for.")


def partition_days(retention_days: int) -> int:
    """Return the days that one partition spans: few enough to drop finely, many enough that about 100 exist."""
    if retention_days <= _DAY_DAYS_MAX:
        return 1
    return 7 if retention_days <= _WEEK_DAYS_MAX else 30


class CreateRelations(Action, frozen=True):
    """Create the missing database objects of a schema, and correct those that differ."""

    schema: str
    shared: bool
    partition_days: int
    missing: tuple[str, ...]
    part: ClassVar[Part] = Part.DATABASE


class MakePartitions(Action, frozen=True):
    """Create the partitions of the coming days."""

    schema: str
    part: ClassVar[Part] = Part.DATABASE


class RegisterTenant(Action, frozen=True):
    """Insert a registry row with a number that was never used."""

    row: Row
    part: ClassVar[Part] = Part.DATABASE


class UpdateTenant(Action, frozen=True):
    """Set the row to these values; `changes` names the fields that differ."""

    row: Row
    changes: tuple[str, ...]
    part: ClassVar[Part] = Part.DATABASE


class AdoptTenant(UpdateTenant, frozen=True):
    """Revive a tenant that was deleted and retained, under the UID of the row."""


class SetHeads(Action, frozen=True):
    """Set both heads of the tenant to these settings."""

    settings: HeadSettings
    part: ClassVar[Part] = Part.DATABASE


class RemoveTenant(Action, frozen=True):
    """Drop a Dedicated tenant's relations and delete the tenant from the registry.

    Records of a Shared tenant stay unreadable in the relations of its class until `purged_after`. `archive` is the manifest
    that must hold all records, or nothing is removed; empty where the policy asks for no archive.
    """

    row: Row
    purged_after: datetime | None
    archive: str = ""
    part: ClassVar[Part] = Part.DATABASE


def plan(look: Look, found: DatabaseSeen, now: datetime) -> Iterator[Step]:
    """Yield what relations, registry row and heads need."""
    wanted = _wanted_row(look)
    yield from _relations(look, found, wanted)
    if found.row is None:
        yield Step(RegisterTenant(wanted), (RegisterTenant.__name__,), essential=True)
    elif found.row != wanted:
        changes = tuple(name for name in Row.__struct_fields__ if getattr(found.row, name) != getattr(wanted, name))
        adopts = found.row.state is State.DELETED
        yield Step(
            (AdoptTenant if adopts else UpdateTenant)(wanted, changes),
            tuple(f"registered {name}" for name in changes),
            essential=adopts,
            disabling=not {"state", "schema"}.isdisjoint(changes),
        )
    yield from _heads(look, found)


def _relations(look: Look, found: DatabaseSeen, wanted: Row) -> Iterator[Step]:
    if found.missing:
        days = retention_class(wanted.retention_days) if look.shared else wanted.retention_days
        yield Step(
            CreateRelations(wanted.schema, look.shared, partition_days(days), found.missing),
            found.missing,
            expected=NEWER_TEMPLATE in found.missing,
            essential=True,
            disabling=not all(thing.startswith(("index ", "partition ")) for thing in found.missing),
        )
    if not found.partitions:
        yield Step(MakePartitions(wanted.schema), (MakePartitions.__name__,), expected=True)


def _heads(look: Look, found: DatabaseSeen) -> Iterator[Step]:
    spec = look.manifest.spec
    heads, used_up = found.heads, storage_used_up(spec.quotas, found)
    if heads is not None and heads.storage_used_up is not used_up:
        # A step of its own: the stored volume asks for it. Any other setting that differs is drift.
        heads = replace(heads, storage_used_up=used_up)
        yield _set_heads(found, heads, expected=bool(spec.quotas.storage_gib))
    if heads != (settings := head_settings(spec, storage_used_up=used_up)):
        yield _set_heads(found, settings)


def _set_heads(found: DatabaseSeen, settings: HeadSettings, *, expected: bool = False) -> Step:
    names = found.heads.differing(settings) if found.heads else ()
    return Step(
        SetHeads(settings),
        tuple(f"heads {name}" for name in names) or ("heads",),
        expected=expected,
        essential=True,
        disabling=found.heads is None or not {"state", "storage_used_up"}.isdisjoint(names),
    )


def _wanted_row(look: Look) -> Row:
    manifest, spec, row = look.manifest, look.manifest.spec, look.row
    wanted = Row(
        id=0,
        uid=manifest.uid,
        isolation=spec.isolation,
        schema=schema_name(manifest.name, spec),
        index=look.index,
        queue=look.queue,
        retention_days=spec.retention.days,
        state=head_settings(spec).state,
        display_name=spec.display_name,
        spec=spec,
        generation=manifest.generation,
        cell=spec.cell,
    )
    if row is None:
        return wanted
    former = (*row.former_uids, row.uid) if row.uid != manifest.uid else row.former_uids
    return replace(
        wanted,
        id=row.id,
        former_uids=tuple(dict.fromkeys(former))[-FORMER_UIDS_MAX:],
        conditions=row.conditions,
        keys_revision=row.keys_revision,
        keys_request=row.keys_request,
        settled=row.settled if (row.uid, row.generation) == (manifest.uid, manifest.generation) else (),
    )


def stop(look: Look, found: DatabaseSeen) -> Iterator[Action]:
    """Yield what refuses ingest and reads: the first step of every deletion policy, and all that Retain does."""
    row, spec = look.row, look.manifest.spec
    if row is None:
        return
    wanted = replace(row, state=State.DELETED)
    if spec.deletion_policy is DeletionPolicy.ARCHIVE:
        wanted = replace(wanted, spec=spec)  # the archiver reads the policy from the registry
    if changes := tuple(name for name in ("state", "spec") if getattr(row, name) != getattr(wanted, name)):
        yield UpdateTenant(wanted, changes)
    if found.heads is not None and found.heads.state is not State.DELETED:
        yield SetHeads(replace(found.heads, state=State.DELETED))


def removal(look: Look, found: DatabaseSeen) -> Iterator[Action]:
    """Yield the removal of a registered tenant. It must come after every other removal."""
    if found.row is not None:
        yield RemoveTenant(found.row, purged_after(found.row, look.stopped), archive.archived_in(look.manifest.spec, found))


def purged_after(row: Row, stopped: Stopped | None) -> datetime | None:
    """Return when the last record of a removed Shared tenant is dropped with its partition.

    That is the end of the record's partition plus the days of the retention class. None where no record is left behind.
    """
    if row.isolation is Isolation.DEDICATED or stopped is None or stopped.last_received is None:
        return None
    days = retention_class(row.retention_days)
    span = timedelta(days=partition_days(days))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + ((stopped.last_received - epoch) // span + 1) * span + timedelta(days=days)


def verdict(look: Look, found: DatabaseSeen | None) -> Verdict:
    """Return the verdict of a database that was seen."""
    return _GOOD
