"""Saved searches over the API: who may see and change them, and the access record of each request.

A search belongs to the credential that saved it. Readers of the tenant see it if it is shared; admins see and change all of their tenant,
also those whose credential is gone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, Principal, RequestContext, acting_tenant
from decklog.domain.records.record import Outcome
from decklog.domain.search.saved import SEARCHES_MAX, SavedSearch, SavedSearches, SearchInput, visible
from decklog.domain.tenant import Tenant
from decklog.services.records.access_log import SEARCHES_DELETE, SEARCHES_READ, SEARCHES_SAVE, AccessLog
from decklog.services.turns import Turns

_TURN_SECONDS = 5.0
_OWNER_CHARS_MAX = 2_000

_NUMBER_BYTES = 8
_NUMBER = re.compile(f"[0-9a-f]{{{2 * _NUMBER_BYTES}}}")
"""The form of the id of a saved search. Another text goes neither to the database nor into an access record."""


def owner_of(principal: Principal) -> str:
    """Return the name of a credential: that of a key, or of an issuer's subject."""
    return f"{principal.kind}:{principal.issuer or ''}:{principal.subject}"[:_OWNER_CHARS_MAX]


class Searches:
    """The saved searches of one process. `turns` are those at the database.

    A change is recorded before it is made, so none goes unrecorded.
    """

    def __init__(self, saved: SavedSearches, access_log: AccessLog, turns: Turns) -> None:
        self._saved = saved
        self._access_log = access_log
        self._turns = turns

    async def list(self, principal: Principal, request: RequestContext) -> Sequence[SavedSearch]:
        """Return the searches that this credential may see, by name."""
        tenant, everyone = self._admit(principal)
        found = await self._visible(principal, tenant, any_owner=everyone)
        await self._access_log.write(principal, request, SEARCHES_READ, resource=("search", None), details={"count": len(found)})
        return found

    async def get(self, principal: Principal, request: RequestContext, number: str) -> SavedSearch:
        """Return a search. Raises `not-found`, also for one that this credential may not see."""
        tenant, everyone = self._admit(principal, number)
        found = [each for each in await self._visible(principal, tenant, any_owner=everyone) if each.id == number]
        outcome = Outcome.SUCCESS if found else Outcome.FAILURE
        await self._access_log.write(
            principal, request, SEARCHES_READ, resource=("search", number), details={"count": len(found)}, outcome=outcome
        )
        if not found:
            raise _no_search(number)
        return found[0]

    async def save(
        self, principal: Principal, request: RequestContext, search: SearchInput, number: str | None = None
    ) -> SavedSearch:
        """Save a new search, or replace the one with this number.

        Raises:
            DecklogError: `not-found` where this credential may not change it, `conflict` for one more than a tenant may have.
        """
        tenant, everyone = self._admit(principal, number)
        saved = SavedSearch(
            number or secrets.token_hex(_NUMBER_BYTES),
            search.name,
            search.parameters,
            search.shared,
            owner_of(principal),
            datetime.now(UTC),
        )
        await self._access_log.write(
            principal,
            request,
            SEARCHES_SAVE,
            resource=("search", saved.id),
            details={"name": search.name, "shared": search.shared},
        )
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            if number is None:
                at = await self._saved.add(tenant, saved, most=SEARCHES_MAX)
            else:
                at = await self._saved.replace(tenant, saved, any_owner=everyone)
        if at is None:
            raise _no_room() if number is None else _no_search(number)
        found = [each for each in await self._visible(principal, tenant, any_owner=True) if each.id == saved.id]
        if not found:
            raise _no_search(saved.id)  # deleted meanwhile
        return found[0]

    async def delete(self, principal: Principal, request: RequestContext, number: str) -> None:
        """Delete a search. Raises `not-found` where this credential may not."""
        tenant, everyone = self._admit(principal, number)
        await self._access_log.write(principal, request, SEARCHES_DELETE, resource=("search", number), details={})
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            if not await self._saved.delete(tenant, number, owner_of(principal), any_owner=everyone):
                raise _no_search(number)

    def _admit(self, principal: Principal, number: str | None = None) -> tuple[Tenant, bool]:
        """Return the tenant, and whether this credential acts for all owners.

        Raises:
            DecklogError: `forbidden`, `tenant-suspended`, and `not-found` for a text that is no number of a search.
        """
        tenant = acting_tenant(principal, Permission.READ)
        if number is not None and not _NUMBER.fullmatch(number):
            raise _no_search(number)
        return tenant, Permission.MANAGE in principal.permissions

    async def _visible(self, principal: Principal, tenant: Tenant, *, any_owner: bool) -> Sequence[SavedSearch]:
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            return visible(await self._saved.all(tenant), owner_of(principal), any_owner=any_owner)


def _no_search(number: str) -> DecklogError:
    return DecklogError(
        Code.NOT_FOUND,
        f"There is no saved search {number[:40]!r} that this credential may use. List them with GET /api/v1/searches.",
    )


def _no_room() -> DecklogError:
    return DecklogError(Code.CONFLICT, f"The tenant has {SEARCHES_MAX} saved searches, which is the maximum. Delete one first.")
