"""The search part of a tenant: its OpenSearch index, or its documents in the index of a retention class."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from decklog.domain.tenancy.parts.part import Action, Mark
from decklog.domain.tenancy.status import Part


class IndexSeen(msgspec.Struct, frozen=True):
    """`owner` is the uid that the index is marked with, None without a mark; `drift` names what differs."""

    exists: bool = False
    owner: str | None = None
    uuid: str | None = None
    drift: tuple[str, ...] = ()


class RewindIndexer(Action, frozen=True):
    """Let the indexer begin anew for all tenants of the index, as its cursors count for another life of it; they count
    for this one from now on (None: there is no index)."""

    index: str
    index_uuid: str | None
    part: ClassVar[Part] = Part.DATABASE


class CreateIndex(Action, frozen=True):
    index: str
    mark: Mark
    part: ClassVar[Part] = Part.SEARCH


class UpdateIndex(Action, frozen=True):
    index: str
    mark: Mark
    drift: tuple[str, ...]
    part: ClassVar[Part] = Part.SEARCH


class RemoveIndex(Action, frozen=True):
    index: str
    part: ClassVar[Part] = Part.SEARCH


class RemoveDocuments(Action, frozen=True):
    """All that an index which several tenants share holds of this one."""

    index: str
    tenant_id: int
    part: ClassVar[Part] = Part.SEARCH
