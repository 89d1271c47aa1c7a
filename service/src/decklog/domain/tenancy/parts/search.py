"""The search part of a tenant: its OpenSearch index, or its documents in the index of a retention class."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import ClassVar

import msgspec

from decklog.domain.tenancy.parts.part import WAITING_FOR_OWNER, Action, Look, Mark, Step
from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenancy.status import Part, Verdict

_GOOD = Verdict("True", "Provisioned", "The index is as asked for.")
_NOT_CONFIGURED = Verdict("True", "NotConfigured", "No OpenSearch is configured: Postgres searches.")
_NO_INDEX = Verdict(
    "Unknown", "WaitingForDatabase", "The index is created once the database can record that the new index is empty."
)


class IndexSeen(msgspec.Struct, frozen=True):
    """An index. `owner` is the UID of its mark, None without a mark; `drift` names the settings and fields that differ."""

    exists: bool = False
    owner: str | None = None
    uuid: str | None = None
    drift: tuple[str, ...] = ()


class RewindIndexer(Action, frozen=True):
    """Restart the indexer for all tenants of the index, because its cursors count for another index of this name.

    From then on they count for `index_uuid`; None: no index exists.
    """

    index: str
    index_uuid: str | None
    part: ClassVar[Part] = Part.DATABASE


class CreateIndex(Action, frozen=True):
    """Create the index, marked with its owner."""

    index: str
    mark: Mark
    part: ClassVar[Part] = Part.SEARCH


class UpdateIndex(Action, frozen=True):
    """Correct the settings and fields of the index that `drift` names."""

    index: str
    mark: Mark
    drift: tuple[str, ...]
    part: ClassVar[Part] = Part.SEARCH


class RemoveIndex(Action, frozen=True):
    """Delete the index."""

    index: str
    part: ClassVar[Part] = Part.SEARCH


class RemoveDocuments(Action, frozen=True):
    """Delete all documents of one tenant from an index that several tenants share."""

    index: str
    tenant_id: int
    part: ClassVar[Part] = Part.SEARCH


def marks(look: Look, found: IndexSeen) -> Iterator[tuple[str, str | None]]:
    """Yield the description and the owner of what exists under the tenant's name."""
    if found.exists:
        yield f"index {look.index!r}", found.owner


def plan(look: Look, found: IndexSeen, now: datetime) -> Iterator[Step]:
    """Yield what the index needs, and what the indexer's cursors need because of it."""
    database, mark = look.database, look.mark
    if isinstance(database, DatabaseSeen) and found.uuid != database.index_uuid:
        yield Step(RewindIndexer(look.index, found.uuid), (RewindIndexer.__name__,), expected=True)
    if mark is None:
        return
    if not found.exists:
        # Only after the cursors are rewound: an empty index must never count as one that holds records.
        if isinstance(database, DatabaseSeen) and database.index_uuid is None:
            yield Step(CreateIndex(look.index, mark), ("index",), essential=True)
        return
    if found.owner != mark.uid and found.owner not in look.former:
        return
    if drift := (*found.drift, *(("owner",) if found.owner != mark.uid else ())):
        yield Step(UpdateIndex(look.index, mark, drift), drift, expected="version" in drift, disabling=False)


def removal(look: Look, found: IndexSeen) -> Iterator[Action]:
    """Yield the removal of a Dedicated tenant's index, or of a Shared tenant's documents."""
    row = look.row
    if not look.made_shared:
        if found.owner in look.removable:
            yield RemoveIndex(row.index if row else look.index)
    elif row is not None and found.owner is not None and found.owner == look.installation.uid:
        yield RemoveDocuments(row.index, row.id)


def verdict(look: Look, found: IndexSeen | None) -> Verdict:
    """Return the verdict of an index that was seen."""
    if found is None:
        return _NOT_CONFIGURED
    if not found.exists:
        return _NO_INDEX
    return WAITING_FOR_OWNER if look.unverified(found.owner) else _GOOD
