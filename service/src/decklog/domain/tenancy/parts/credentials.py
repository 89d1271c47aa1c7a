"""The credentials part of a tenant: API keys in the registry, and the same keys in the vault of the tenant's users.

When keys change is decided in `parts/keys.py`. No plain key passes through this module, only hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import ClassVar

import msgspec

from decklog.domain.identity.access import Role
from decklog.domain.tenancy.parts.keys import (
    Reason,
    Succession,
    current_keys,
    due_roles,
    key_status,
    succession,
    valid_until,
)
from decklog.domain.tenancy.parts.part import Action, Look, Step
from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenancy.status import KeyStatus, Part, Verdict
from decklog.domain.tenancy.trouble import Trouble

_GOOD = Verdict("True", "Issued", "The roles writer, auditor and admin each have an API key that is issued and accepted.")
_NOT_CONFIGURED = Verdict("True", "NotConfigured", "No API keys are wanted for this tenant.")
_NO_KEYS = Verdict("Unknown", "WaitingForDatabase", "Keys can only be checked when the database can be reached.")


class VaultSeen(msgspec.Struct, frozen=True):
    """What the vault holds: the hash of each role's key, and the notes stored beside the keys.

    `revision` and `valid_until` are None where this kind of vault does not store them; `drift` names other things that
    differ from what was written.
    """

    hashes: Mapping[Role, bytes] = {}
    revision: int | None = None
    valid_until: str | None = None
    drift: tuple[str, ...] = ()


def held(database: DatabaseSeen) -> VaultSeen:
    """Return a vault that holds every registered key without an end, for use where no vault can be read."""
    return VaultSeen({key.role: key.hash for key in database.keys if key.expires_at is None})


class IssueKeys(Action, frozen=True):
    """Create a key for each of these roles `at` this time, and retire or revoke older keys as `succession` says.

    `valid_until` is written beside the keys. Afterwards `request` counts as carried out.
    """

    roles: tuple[Role, ...]
    reason: Reason
    revision: int
    at: datetime
    valid_until: str
    request: str
    succession: Succession
    part: ClassVar[Part] = Part.CREDENTIALS


class RestateKeys(Action, frozen=True):
    """Write the same keys to the vault again, with correct notes beside them."""

    revision: int
    valid_until: str
    drift: tuple[str, ...]
    part: ClassVar[Part] = Part.CREDENTIALS


class RevokeKeys(Action, frozen=True):
    """Revoke the keys with these ids."""

    ids: tuple[str, ...]
    part: ClassVar[Part] = Part.CREDENTIALS


def plan(look: Look, found: VaultSeen, now: datetime) -> Iterator[Step]:
    """Yield which keys are issued, restated and revoked now. Without the database none can be checked."""
    database, rotation = look.database, look.manifest.spec.credentials.rotation
    if isinstance(database, Trouble):
        return
    revision, done = (look.row.keys_revision, look.row.keys_request) if look.row else (0, "")
    current = current_keys(database.keys, found.hashes)
    roles, reason = due_roles(look.manifest, done, database.keys, current, now)
    after = succession(rotation, database.keys, current, roles, now)
    if roles:
        made = [now, *(key.created_at for role, key in current.items() if role not in roles)]
        # A request covers all roles, so issuing any key carries it out.
        request = look.manifest.rotate or done
        yield Step(
            IssueKeys(roles, reason, revision + 1, now, valid_until(rotation, made), request, after),
            tuple(f"key of {role.value}" for role in roles),
            expected=reason is not Reason.LOST,
            essential=True,
        )
        return
    until = valid_until(rotation, [key.created_at for key in current.values()])
    if drift := _drift(found, revision, until):
        yield Step(RestateKeys(revision + 1, until, drift), drift, disabling=False)
    if after.revoked:
        # Keys past their end, and keys without an end that no vault holds: both are useless.
        yield Step(RevokeKeys(after.revoked), (RevokeKeys.__name__,), expected=True)


def _drift(found: VaultSeen, revision: int, until: str) -> tuple[str, ...]:
    notes = {"revision": (found.revision, revision), "validUntil": (found.valid_until, until)}
    differing = [name for name, (there, wanted) in notes.items() if there is not None and there != wanted]
    return (*differing, *(name for name in found.drift if name not in differing))


def stop(database: DatabaseSeen) -> Iterator[Action]:
    """Yield what revokes every key: part of the first step of every deletion policy."""
    if database.keys:
        yield RevokeKeys(tuple(sorted(key.id for key in database.keys)))


def removal(look: Look, found: VaultSeen) -> Iterator[Action]:
    """Yield nothing: the keys were revoked when the tenant was stopped."""
    yield from ()


def verdict(look: Look, found: VaultSeen | None) -> Verdict:
    """Return the verdict of a vault that was seen."""
    if found is None:
        return _NOT_CONFIGURED
    return _NO_KEYS if isinstance(look.database, Trouble) else _GOOD


def status(look: Look, found: VaultSeen, now: datetime) -> KeyStatus | None:
    """Return what the status shows of the keys; None where they are not registered or could not be seen."""
    database, row = look.database, look.row
    if isinstance(database, Trouble) or row is None:
        return None
    current = current_keys(database.keys, found.hashes).values()
    rotation = look.manifest.spec.credentials.rotation
    return key_status(rotation, database.keys, current, revision=row.keys_revision, rotated=row.keys_request, now=now)
