"""Tenants over the API: who exists and how each stands, for the platform, and for a tenant's own people about itself.

Whatever is told was recorded before: in the tenant's access log where its own people ask, in the platform's otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from decklog.domain.access import Permission, Principal, RequestContext, acting_tenant, require
from decklog.domain.errors import Code, DecklogError
from decklog.domain.record import Outcome
from decklog.domain.status import TenantListing
from decklog.domain.tenant import NAME_CHARS_MAX, NAME_PATTERN
from decklog.services.access_log import TENANTS_LIST, TENANTS_READ, AccessLog
from decklog.services.provisioning import TenantDirectory


class Tenants:
    """What the API does about tenants."""

    def __init__(self, directory: TenantDirectory, access_log: AccessLog) -> None:
        self._directory = directory
        self._access_log = access_log

    async def list(self, principal: Principal, request: RequestContext) -> Sequence[TenantListing]:
        """All tenants, by name. Raises `forbidden` for everybody but the platform."""
        require(principal, Permission.LIST_TENANTS)
        found = await self._directory.tenants()
        await self._access_log.write(principal, request, TENANTS_LIST, resource=("tenant", None), details={"count": len(found)})
        return found

    async def get(self, principal: Principal, request: RequestContext, name: str) -> TenantListing:
        """The tenant of this name. Raises `not-found`: for a tenant's own people also where it is another's, which looks
        the same and is looked up by nobody. That someone asked is recorded nevertheless."""
        if principal.tenant is None:
            require(principal, Permission.LIST_TENANTS)
            known = len(name) <= NAME_CHARS_MAX and re.fullmatch(NAME_PATTERN, name) is not None
        else:
            known = acting_tenant(principal, Permission.READ).name == name
        found = await self._directory.tenant(name) if known else None
        await self._access_log.write(
            principal,
            request,
            TENANTS_READ,
            resource=("tenant", name),
            details={"count": 0 if found is None else 1},
            outcome=Outcome.FAILURE if found is None else Outcome.SUCCESS,
        )
        if found is None:
            raise DecklogError(Code.NOT_FOUND, "There is no tenant of this name, or it is not yours.")
        return found
