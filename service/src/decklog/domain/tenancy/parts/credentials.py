"""The credentials part of a tenant: the API keys in the vault of the tenant's people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

import msgspec

from decklog.domain.identity.access import Role
from decklog.domain.tenancy.parts.keys import Reason, Succession
from decklog.domain.tenancy.parts.part import Action
from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenancy.status import Part


class VaultSeen(msgspec.Struct, frozen=True):
    """What the tenant's people were given: the hashes of their keys, by role, and what is said of them. `revision` and
    `valid_until` are None where this kind of vault does not keep them; `drift` names what else differs from what was put."""

    hashes: Mapping[Role, bytes] = {}
    revision: int | None = None
    valid_until: str | None = None
    drift: tuple[str, ...] = ()


def held(database: DatabaseSeen) -> VaultSeen:
    """A vault with the keys that the registry has and nothing ends: what is taken for granted where none can be asked."""
    return VaultSeen({key.role: key.hash for key in database.keys if key.expires_at is None})


class IssueKeys(Action, frozen=True):
    """A new key for each of these roles, made `at`; with them the keys before go as `succession` says. `valid_until` is
    put beside them, and `request` is done thereby."""

    roles: tuple[Role, ...]
    reason: Reason
    revision: int
    at: datetime
    valid_until: str
    request: str
    succession: Succession
    part: ClassVar[Part] = Part.CREDENTIALS


class RestateKeys(Action, frozen=True):
    """The same keys, with everything that is put beside them as it should be."""

    revision: int
    valid_until: str
    drift: tuple[str, ...]
    part: ClassVar[Part] = Part.CREDENTIALS


class RevokeKeys(Action, frozen=True):
    ids: tuple[str, ...]
    part: ClassVar[Part] = Part.CREDENTIALS
