"""API keys as a tenant's admins see them: provisioned ones, and those that they make over the API.

Provisioning (`parts/keys.py`) replaces provisioned keys and knows nothing of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta

from decklog.domain.errors import invalid_parameter
from decklog.domain.identity.access import Role
from decklog.domain.json_body import decoded
from decklog.domain.records.canonical import UNSTORABLE
from decklog.domain.tenant import Tenant

KEY_NAME_CHARS_MAX = 200
KEY_SECONDS_MIN = 60
KEY_SECONDS_MAX = 10 * 365 * 24 * 3600
"""Seconds after which a key may end: ten years."""
KEYS_MAX = 100
"""Keys in force that a tenant may have made over the API. `decklog.make_key` applies it."""
KEYS_PER_HOUR_MAX = 100
"""Keys that a tenant may make in an hour: every change of a key is read by every process. `decklog.make_key` applies it."""
ENDED_KEYS_MAX = 200
"""Keys no longer in force that are listed, and that are kept of those made over the API."""


class KeySource(StrEnum):
    """The maker of a key: provisioning, or an admin over the API."""

    PROVISIONED = "provisioned"
    API = "api"


class KeyRefusal(StrEnum):
    """Why a key was not made."""

    FULL = "full"
    TOO_FAST = "too-fast"
    GONE = "gone"


class KeyInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The key that a client asks for. `expires_in` is in seconds; None for a key without an end."""

    role: Annotated[Literal["writer", "auditor", "admin"], Meta(description="What the key may do.")]
    name: Annotated[str, Meta(min_length=1, max_length=KEY_NAME_CHARS_MAX, description="What the key is for, as it is listed.")]
    expires_in: Annotated[
        int | None,
        Meta(description="Seconds after which the key ends, 60 to 315360000 (ten years). Without it the key has no end."),
    ] = None


class NewKey(msgspec.Struct, frozen=True):
    """A key to store: the SHA-256 of its secret, and its description. `seconds` is None for one without an end."""

    id: str
    role: Role
    hash: bytes
    name: str
    created_by: str
    seconds: int | None


class ListedKey(msgspec.Struct, frozen=True):
    """A key as it is listed. A provisioned one has neither `name` nor `created_by`."""

    id: str
    role: Role
    name: str | None
    source: KeySource
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class ApiKeys(Protocol):
    """The keys of the tenants of an installation. Every method raises `storage-unavailable`."""

    async def all(self, tenant: Tenant) -> Sequence[ListedKey]:
        """Return the keys in force, newest first, then the `ENDED_KEYS_MAX` others that ended last."""
        ...

    async def source(self, tenant: Tenant, key_id: str) -> KeySource | None:
        """Return who made a key of the tenant; None where it has none of this id."""
        ...

    async def make(self, tenant: Tenant, key: NewKey) -> ListedKey | KeyRefusal:
        """Accept a key. Every process accepts it once it is committed."""
        ...

    async def revoke(self, tenant: Tenant, key_id: str) -> bool:
        """Revoke a key that was made over the API, also one that is revoked already; return whether there is one."""
        ...


def read_key(body: bytes) -> KeyInput:
    """Return the key that a client asks for.

    Raises:
        DecklogError: `invalid-json` and `invalid-parameter`.
    """
    found = decoded(body, KeyInput)
    if not found.name.strip() or UNSTORABLE.search(found.name):
        raise invalid_parameter(
            "name", f"must have 1 to {KEY_NAME_CHARS_MAX} characters, none of them U+0000 or a lone surrogate."
        )
    if found.expires_in is not None and not KEY_SECONDS_MIN <= found.expires_in <= KEY_SECONDS_MAX:
        raise invalid_parameter("expires_in", f"must be {KEY_SECONDS_MIN} to {KEY_SECONDS_MAX} seconds.")
    return found


def shown(key: ListedKey) -> dict[str, Any]:
    """Return a key as plain JSON, without its secret."""
    plain: dict[str, Any] = msgspec.to_builtins(key)
    return plain
