"""The database part of a tenant: its relations, partitions, registry row and heads."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from decklog.domain.tenancy.parts.part import Action
from decklog.domain.tenancy.registered import HeadSettings, Row
from decklog.domain.tenancy.spec import TenantSpec, seconds
from decklog.domain.tenancy.status import Part
from decklog.domain.tenant import State


def partition_days(retention_days: int) -> int:
    """Days that one partition spans: short enough that dropping is fine-grained, long enough that there are ~100."""
    if retention_days <= 92:
        return 1
    return 7 if retention_days <= 731 else 30


DEDICATED_MAX = 200
"""Dedicated tenants of one cell: thousands of hypertables or indices do not scale. Shared ones are not counted."""
FORMER_UIDS_MAX = 16
"""Former owners remembered of a tenant that was adopted again and again."""
NEWER_TEMPLATE = "this version's template"
"""What is missing of relations that an older version of Decklog made."""


class CreateRelations(Action, frozen=True):
    schema: str
    shared: bool
    partition_days: int
    missing: tuple[str, ...]
    part: ClassVar[Part] = Part.DATABASE


class MakePartitions(Action, frozen=True):
    schema: str
    part: ClassVar[Part] = Part.DATABASE


class RegisterTenant(Action, frozen=True):
    """A new row of the registry, with a number that was never used."""

    row: Row
    part: ClassVar[Part] = Part.DATABASE


class UpdateTenant(Action, frozen=True):
    """The row with these values; `changes` names the fields that differ."""

    row: Row
    changes: tuple[str, ...]
    part: ClassVar[Part] = Part.DATABASE


class AdoptTenant(UpdateTenant, frozen=True):
    """As `UpdateTenant`, for a tenant that was deleted and retained: it lives on under this uid."""


class SetHeads(Action, frozen=True):
    settings: HeadSettings
    part: ClassVar[Part] = Part.DATABASE


def head_settings(spec: TenantSpec, *, storage_used_up: bool = False) -> HeadSettings:
    return HeadSettings(
        State.SUSPENDED if spec.suspend else State.ACTIVE,
        spec.quotas.events_per_second,
        spec.quotas.burst,
        seconds(spec.ingest.dedup_window),
        spec.quotas.events_per_day or 0,
        spec.quotas.queries_per_minute or 0,
        storage_used_up,
    )


class RemoveTenant(Action, frozen=True):
    """The relations of a Dedicated tenant, and all that the registry has of any. What a Shared one leaves in the relations of
    its class can be read by nobody, and is gone at `purged_after`. `archive` is the manifest that must hold all records, or
    nothing is removed; empty where none has to."""

    row: Row
    purged_after: datetime | None
    archive: str = ""
    part: ClassVar[Part] = Part.DATABASE
