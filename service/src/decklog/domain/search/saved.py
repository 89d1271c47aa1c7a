"""Saved searches: the parameters of a list under a name, for a credential or for all readers of a tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from decklog.domain.errors import invalid_parameter
from decklog.domain.json_body import decoded
from decklog.domain.records.canonical import UNSTORABLE
from decklog.domain.search.order import parse_order
from decklog.domain.search.query import parse
from decklog.domain.tenant import Tenant

NAME_CHARS_MAX = 200
PARAMETERS_BYTES_MAX = 16 * 1024
"""Bytes of the parameters of one search, as JSON."""
VALUES_MAX = 100
"""Values of the parameters of one search."""
SEARCHES_MAX = 200
"""Saved searches of one tenant."""

Parameters = Mapping[str, str | list[str]]
"""Parameters of `GET /api/v1/logs` by name, with a list where one is repeated."""


class SearchInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client saves."""

    name: str
    parameters: dict[str, str | list[str]]
    shared: bool = False


class SavedSearch(msgspec.Struct, frozen=True):
    """A search that was saved. `owner` names the credential that saved it first."""

    id: str
    name: str
    parameters: dict[str, str | list[str]]
    shared: bool
    owner: str
    saved_at: datetime


class SavedSearches(Protocol):
    """The saved searches of the tenants of a cell. Every method raises `storage-unavailable`."""

    async def all(self, tenant: Tenant) -> list[SavedSearch]:
        """Return all searches of a tenant, by name."""
        ...

    async def add(self, tenant: Tenant, search: SavedSearch, *, most: int) -> datetime | None:
        """Add a search and return the time; None where the tenant has `most` of them."""
        ...

    async def replace(self, tenant: Tenant, search: SavedSearch, *, any_owner: bool) -> datetime | None:
        """Replace name, parameters and sharing of a search of its owner, or of any, and return the time; None if there is none."""
        ...

    async def delete(self, tenant: Tenant, number: str, owner: str, *, any_owner: bool) -> bool:
        """Delete a search of this owner, or of any, and return whether there was one."""
        ...


def read_search(body: bytes) -> SearchInput:
    """Return the search that a client saves.

    Raises:
        DecklogError: `invalid-json`, `invalid-parameter`, and `unknown-parameter`, as a list with these parameters would.
    """
    found = decoded(body, SearchInput)
    if not found.name.strip() or len(found.name) > NAME_CHARS_MAX or UNSTORABLE.search(found.name):
        raise invalid_parameter("name", f"must have 1 to {NAME_CHARS_MAX} characters, none of them U+0000 or a lone surrogate.")
    given = pairs(found.parameters)
    if len(given) > VALUES_MAX or len(msgspec.json.encode(found.parameters)) > PARAMETERS_BYTES_MAX:
        raise invalid_parameter("parameters", f"may have {VALUES_MAX} values and {PARAMETERS_BYTES_MAX} bytes at most.")
    parse(given, others=("sort", "order"))
    parse_order(*(_single(found.parameters, name) for name in ("sort", "order")))
    return found


def pairs(parameters: Parameters) -> list[tuple[str, str]]:
    """Return the parameters as a query string has them."""
    return [(name, value) for name, values in parameters.items() for value in ([values] if isinstance(values, str) else values)]


def _single(parameters: Parameters, name: str) -> str | None:
    value = parameters.get(name)
    if isinstance(value, list):
        raise invalid_parameter(name, "may be given once only.")
    return value


def visible(searches: Sequence[SavedSearch], owner: str, *, any_owner: bool) -> list[SavedSearch]:
    """Return the searches that a credential may see: its own, shared ones, and all with `any_owner`."""
    return [search for search in searches if any_owner or search.shared or search.owner == owner]


def shown(search: SavedSearch) -> dict[str, Any]:
    """Return a search as plain JSON."""
    plain: dict[str, Any] = msgspec.to_builtins(search)
    return plain
