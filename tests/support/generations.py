"""Generations of search indices for tests that have no provisioning."""

from __future__ import annotations

from datetime import date
from typing import Any

from msgspec.structs import replace
from opensearchpy import AsyncOpenSearch

from decklog.domain.index_generation import IndexGeneration
from decklog.domain.tenant import Tenant
from decklog.opensearch import mapping

LONG_AGO = date(2000, 1, 1)


def generation(index: str, *starts: date, build: int = 1) -> IndexGeneration:
    """Return a generation of an index with this version's mapping, and one range for all times unless `starts` are given."""
    return IndexGeneration(index, f"v{mapping.VERSION}-{build}", starts or (LONG_AGO,))


def living(tenant: Tenant, *starts: date) -> Tenant:
    """Return the tenant with a live generation of its index."""
    return replace(tenant, live=generation(tenant.index, *starts))


async def make_indices(client: AsyncOpenSearch, of: IndexGeneration, meta: dict[str, Any] | None = None) -> None:
    """Create the indices of all ranges, as provisioning does."""
    for name in of.range_indices:
        await client.indices.create(index=name, body=mapping.new_index(name, meta or {}, 0))


async def remove_indices(client: AsyncOpenSearch, index: str) -> None:
    """Delete all indices of a name."""
    await client.indices.delete(index=f"{index},{index}.*", params={"ignore_unavailable": "true"})
