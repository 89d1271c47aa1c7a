"""API keys over the API: an admin lists the keys of its tenant, makes further ones and revokes them. Each request is recorded.

The secret of a key is in the answer of its making and nowhere else: not in the database, a log line or an access record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from prometheus_client import Counter

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, Principal, RequestContext, Role, acting_tenant
from decklog.domain.records.record import Outcome
from decklog.domain.tenancy.api_keys import (
    KEYS_MAX,
    KEYS_PER_HOUR_MAX,
    ApiKeys,
    KeyInput,
    KeyRefusal,
    KeySource,
    ListedKey,
    NewKey,
)
from decklog.domain.tenant import Tenant
from decklog.services.identity.keys import new_key
from decklog.services.records.access_log import KEYS_CREATE, KEYS_LIST, KEYS_REVOKE, AccessLog
from decklog.services.records.searches import owner_of
from decklog.services.turns import Turns

_TURN_SECONDS = 5.0
_RETRY_SECONDS = 600.0
"""Wait that a tenant is told which has made too many keys in an hour."""
_ID = re.compile("[0-9a-z]{8,32}")
"""The form of the id of a key. Another text goes neither to the database nor into an access record."""

_changes = Counter("decklog_keys_changes_total", "API keys that were made and revoked over the API, by change.", ["change"])


class GivenKey(msgspec.Struct, frozen=True):
    """A new key, with the text that is shown once."""

    listed: ListedKey
    token: str

    def __repr__(self) -> str:
        return f"GivenKey({self.listed.id!r})"  # a log or a traceback must not show the key


class Keys:
    """The keys of tenants, for their admins. `turns` are those at the database.

    A change is recorded before it is made, so none goes unrecorded.
    """

    def __init__(self, keys: ApiKeys, access_log: AccessLog, turns: Turns) -> None:
        self._keys = keys
        self._access_log = access_log
        self._turns = turns

    async def list(self, principal: Principal, request: RequestContext) -> Sequence[ListedKey]:
        """Return the keys of the tenant. Raises `forbidden` without the permission to manage."""
        tenant = acting_tenant(principal, Permission.MANAGE)
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            found = await self._keys.all(tenant)
        await self._access_log.write(principal, request, KEYS_LIST, resource=("key", None), details={"count": len(found)})
        return found

    async def make(self, principal: Principal, request: RequestContext, asked: KeyInput) -> GivenKey:
        """Make a key. It is recorded before it is made, and once more where it is not.

        Raises:
            DecklogError: `forbidden`, `conflict` where the tenant has the most keys it may have, `rate-limited` where it has made too
                many within an hour.
        """
        tenant = acting_tenant(principal, Permission.MANAGE)
        key_id, token, hashed = new_key()
        key = NewKey(key_id, Role(asked.role), hashed, asked.name, owner_of(principal), asked.expires_in)
        facts: dict[str, Any] = {"key_role": asked.role, "name": asked.name, "expires_in": asked.expires_in}
        await self._access_log.write(principal, request, KEYS_CREATE, resource=("key", key_id), details=facts)
        try:
            made = await self._made(tenant, key)
        except DecklogError as error:
            facts = {"key_role": asked.role, "code": error.code.value}
            await self._access_log.write_late(
                principal, request, KEYS_CREATE, resource=("key", key_id), details=facts, outcome=Outcome.FAILURE
            )
            raise
        _changes.labels("made").inc()
        return GivenKey(made, token)

    async def revoke(self, principal: Principal, request: RequestContext, key_id: str) -> None:
        """Revoke a key that was made over the API; every process refuses it within two seconds. May be repeated.

        Raises:
            DecklogError: `forbidden`, `not-found`, and `conflict` for a provisioned key.
        """
        tenant = acting_tenant(principal, Permission.MANAGE)
        if not _ID.fullmatch(key_id):
            raise _no_key(key_id)
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            source = await self._keys.source(tenant, key_id)
        outcome = Outcome.SUCCESS if source is KeySource.API else Outcome.FAILURE
        await self._access_log.write(
            principal, request, KEYS_REVOKE, resource=("key", key_id), details={"source": source}, outcome=outcome
        )
        if source is KeySource.PROVISIONED:
            raise _provisioned(key_id, tenant.name)
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            if source is None or not await self._keys.revoke(tenant, key_id):
                raise _no_key(key_id)
        _changes.labels("revoked").inc()

    async def _made(self, tenant: Tenant, key: NewKey) -> ListedKey:
        async with self._turns.turn(tenant.id, seconds=_TURN_SECONDS):
            made = await self._keys.make(tenant, key)
        if isinstance(made, KeyRefusal):
            raise _refused(made, tenant.name)
        return made


def _refused(refusal: KeyRefusal, tenant: str) -> DecklogError:
    if refusal is KeyRefusal.TOO_FAST:
        return DecklogError(
            Code.RATE_LIMITED,
            f"The tenant has made {KEYS_PER_HOUR_MAX} keys within an hour, which is the maximum. Use a key for longer.",
            retry_after=_RETRY_SECONDS,
        )
    if refusal is KeyRefusal.GONE:
        return DecklogError(Code.TENANT_SUSPENDED, f"The tenant {tenant!r} is not active any more, so it gets no key.")
    return DecklogError(
        Code.CONFLICT,
        f"The tenant has {KEYS_MAX} keys that were made over the API, which is the maximum. Revoke one first; "
        "GET /api/v1/keys shows when each was used last.",
    )


def _provisioned(key_id: str, tenant: str) -> DecklogError:
    return DecklogError(
        Code.CONFLICT,
        f"The key {key_id!r} is provisioned, and provisioning would issue it again. To replace the provisioned keys, give the annotation "
        f"decklog.dev/rotate of the Tenant {tenant!r} a new value; with spec.credentials.rotation.overlapHours: 0 they end at once.",
    )


def _no_key(key_id: str) -> DecklogError:
    return DecklogError(Code.NOT_FOUND, f"Your tenant has no key {key_id[:40]!r}. List its keys with GET /api/v1/keys.")
