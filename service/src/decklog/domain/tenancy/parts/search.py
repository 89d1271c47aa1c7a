"""The search part of a tenant: its OpenSearch indices, or its documents in the indices of a retention class.

Provisioning makes the first generation of an index, and a new one where a range was lost or the mapping is older than this version's.
Workers make ranges ahead, drop old ones and build generations (`services/search/tending.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar

import msgspec

from decklog.domain.index_generation import (
    GenerationRow,
    GenerationState,
    first_starts,
    next_name,
    parse_name,
    parse_range_index,
)
from decklog.domain.tenancy.parts.database import partition_days
from decklog.domain.tenancy.parts.part import WAITING_FOR_OWNER, Action, Look, Mark, Step
from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenancy.spec import TenantSpec, retention_class
from decklog.domain.tenancy.status import Part, Verdict
from decklog.domain.tenant import Isolation

_GOOD = Verdict("True", "Provisioned", "The index is as asked for.")
_NOT_CONFIGURED = Verdict("True", "NotConfigured", "No OpenSearch is configured: Postgres searches.")
_NO_INDEX = Verdict(
    "Unknown", "WaitingForDatabase", "The index is created once the database can record that the new index is empty."
)


CLOCKS_DIFFER_MAX = timedelta(hours=1)
"""The first range of a new tenant begins on the day of this long ago, as that of a registered one does (`generations.sql`)."""


class RangeSeen(msgspec.Struct, frozen=True):
    """An index whose name begins with the tenant's. `owner` is the UID of its mark, None without a mark.

    `drift` names the settings and fields that differ from this version's.
    """

    name: str
    uuid: str
    owner: str | None
    drift: tuple[str, ...] = ()


class IndexSeen(msgspec.Struct, frozen=True):
    """The indices of a tenant or a class. `version` is that of the mapping that this process makes."""

    version: int = 1
    ranges: tuple[RangeSeen, ...] = ()

    def starts(self, index: str, generation: str) -> dict[date, RangeSeen]:
        """Return the ranges of one generation, by their first day."""
        parsed = ((parse_range_index(index, each.name), each) for each in self.ranges)
        return dict(sorted((place[1], each) for place, each in parsed if place is not None and place[0] == generation))

    def generations(self, index: str) -> set[str]:
        """Return the names of generations that have ranges."""
        return {place[0] for each in self.ranges if (place := parse_range_index(index, each.name))}


class RetireGenerations(Action, frozen=True):
    """Let nothing use these generations any more, because ranges of them are lost. Their cursors are deleted."""

    index: str
    generations: tuple[str, ...]
    part: ClassVar[Part] = Part.DATABASE


class RecordGeneration(Action, frozen=True):
    """Let searches read this generation, which is empty, and workers fill it. An older one is retired."""

    index: str
    generation: str
    starts: tuple[date, ...]
    uuids: tuple[str, ...]
    part: ClassVar[Part] = Part.DATABASE


class CreateIndex(Action, frozen=True):
    """Create the indices of these ranges of a generation, marked with their owner."""

    index: str
    generation: str
    starts: tuple[date, ...]
    mark: Mark
    part: ClassVar[Part] = Part.SEARCH


class UpdateIndex(Action, frozen=True):
    """Correct the settings and fields that `drift` names, in these indices."""

    index: str
    indices: tuple[str, ...]
    mark: Mark
    drift: tuple[str, ...]
    part: ClassVar[Part] = Part.SEARCH


class RemoveIndex(Action, frozen=True):
    """Delete these indices of a tenant."""

    index: str
    indices: tuple[str, ...]
    part: ClassVar[Part] = Part.SEARCH


class RemoveDocuments(Action, frozen=True):
    """Delete all documents of one tenant from indices that several tenants share."""

    index: str
    tenant_id: int
    part: ClassVar[Part] = Part.SEARCH


def marks(look: Look, found: IndexSeen) -> Iterator[tuple[str, str | None]]:
    """Yield the description and the owner of what exists under the tenant's name."""
    for each in found.ranges:
        yield f"index {each.name!r}", each.owner


def plan(look: Look, found: IndexSeen, now: datetime) -> Iterator[Step]:
    """Yield what the index needs, and what the database must know of its generations."""
    database, mark = look.database, look.mark
    if isinstance(database, DatabaseSeen):
        if lost := tuple(row.name for row in _used(database) if _is_lost(look.index, row, found)):
            yield Step(RetireGenerations(look.index, lost), (RetireGenerations.__name__,), expected=True)
            return
        if mark is not None and not any(_made_with(row, found.version) for row in _used(database)):
            yield _new_generation(look, mark, found, database, now)
    if mark is not None:
        yield from _corrections(look, mark, found)


def _used(database: DatabaseSeen) -> list[GenerationRow]:
    return [row for row in database.generations if row.state is not GenerationState.RETIRED]


def _is_lost(index: str, row: GenerationRow, found: IndexSeen) -> bool:
    there = found.starts(index, row.name)
    return any(start not in there or there[start].uuid != uuid for start, uuid in zip(row.starts, row.uuids, strict=True))


def _made_with(row: GenerationRow, version: int) -> bool:
    return parse_name(row.name)[0] >= version


def _new_generation(look: Look, mark: Mark, found: IndexSeen, database: DatabaseSeen, now: datetime) -> Step:
    """Return the next step towards a generation with this version's mapping: its indices, then its row."""
    recorded = [row.name for row in database.generations]
    begun = [name for name in found.generations(look.index) - set(recorded) if parse_name(name)[0] == found.version]
    name = max(begun, key=parse_name) if begun else next_name(found.version, recorded)
    first = database.indexed_from or (now - CLOCKS_DIFFER_MAX).astimezone(UTC).date()
    wanted = first_starts(first, now.astimezone(UTC).date(), _partition_days(look.manifest.spec), kept_days(look.manifest.spec))
    there = found.starts(look.index, name)
    expected = bool(_used(database))
    if missing := tuple(start for start in wanted if start not in there):
        return Step(CreateIndex(look.index, name, missing, mark), ("index",), expected=expected, essential=True)
    uuids = tuple(each.uuid for each in there.values())
    return Step(RecordGeneration(look.index, name, tuple(there), uuids), ("index",), expected=True)


def _partition_days(spec: TenantSpec) -> int:
    shared = spec.isolation is Isolation.SHARED
    return partition_days(retention_class(spec.retention.days) if shared else spec.retention.days)


def kept_days(spec: TenantSpec) -> int:
    """Return the days that a new index of this tenant, or of its class, is divided for."""
    if spec.isolation is Isolation.SHARED:
        return retention_class(spec.retention.days)
    return spec.retention.search_days or spec.retention.days


def _corrections(look: Look, mark: Mark, found: IndexSeen) -> Iterator[Step]:
    ours = [each for each in found.ranges if each.owner == mark.uid or each.owner in look.former]
    differing = {each.name: (*each.drift, *(("owner",) if each.owner != mark.uid else ())) for each in ours}
    if names := tuple(name for name, drift in differing.items() if drift):
        drift = tuple(dict.fromkeys(thing for name in names for thing in differing[name]))
        yield Step(UpdateIndex(look.index, names, mark, drift), drift, disabling=False)


def removal(look: Look, found: IndexSeen) -> Iterator[Action]:
    """Yield the removal of a Dedicated tenant's indices, or of a Shared tenant's documents."""
    row = look.row
    if not look.made_shared:
        if names := _owned(found, look.removable):
            yield RemoveIndex(row.index if row else look.index, names)
    elif row is not None and look.installation.uid is not None and _owned(found, {look.installation.uid}):
        yield RemoveDocuments(row.index, row.id)


def _owned(found: IndexSeen, owners: Iterable[str]) -> tuple[str, ...]:
    return tuple(each.name for each in found.ranges if each.owner in set(owners))


def verdict(look: Look, found: IndexSeen | None) -> Verdict:
    """Return the verdict of indices that were seen."""
    if found is None:
        return _NOT_CONFIGURED
    if not found.generations(look.index):
        return _NO_INDEX
    return WAITING_FOR_OWNER if look.unverified(*(each.owner for each in found.ranges)) else _GOOD
