"""When a tenant's API keys are replaced. Each role has one key, and for an overlap after a change two are valid. Pure.

A key is *current* while the vault holds it and it has no end. The key before it stays valid until its `expires_at`, which every
process that checks keys applies by itself. The reason for a change makes no difference: clients may still use a key that the
vault has lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from decklog.domain.identity.access import Role
from decklog.domain.log import rfc3339_seconds
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.spec import Rotation
from decklog.domain.tenancy.status import KeyStatus

TENANT_ROLES = (Role.WRITER, Role.AUDITOR, Role.ADMIN)
"""Roles that get an API key in every tenant."""


class IssuedKey(msgspec.Struct, frozen=True):
    """A registered key that is not revoked. It is refused from `expires_at` on; None: it has no end."""

    id: str
    role: Role
    hash: bytes
    created_at: datetime
    expires_at: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Whether the key is past its end."""
        return self.expires_at is not None and self.expires_at <= now


class Reason(StrEnum):
    """Why keys are issued."""

    FIRST = "First"
    LOST = "Lost"
    REQUESTED = "Requested"
    SCHEDULED = "Scheduled"


class Succession(msgspec.Struct, frozen=True):
    """What happens to existing keys: `retired` ones end at `retired_until`, `revoked` ones at once, the others stay."""

    retired: tuple[str, ...] = ()
    retired_until: datetime | None = None
    revoked: tuple[str, ...] = ()


def current_keys(keys: Iterable[IssuedKey], given: Mapping[Role, bytes]) -> dict[Role, IssuedKey]:
    """Return the current key of each role; `given` holds the hashes of the keys in the vault."""
    return {
        key.role: key for key in keys if key.role in TENANT_ROLES and key.expires_at is None and given.get(key.role) == key.hash
    }


def rotate_at(rotation: Rotation, made: Iterable[datetime]) -> datetime | None:
    """Return when the schedule replaces keys that were made at these times; None without a schedule or keys."""
    oldest = min(made, default=None)
    return None if oldest is None or not rotation.interval_days else oldest + timedelta(days=rotation.interval_days)


def valid_until(rotation: Rotation, made: Iterable[datetime]) -> str:
    """Return the least time, RFC 3339, that all keys made at these times stay valid, to the end of the overlap.

    Empty without a schedule or keys. A request to rotate ends the keys earlier.
    """
    at = rotate_at(rotation, made)
    return "" if at is None else rfc3339_seconds(at + timedelta(hours=rotation.overlap_hours))


def due_roles(
    manifest: Manifest, done: str, keys: Collection[IssuedKey], current: Mapping[Role, IssuedKey], now: datetime
) -> tuple[tuple[Role, ...], Reason]:
    """Return the roles that need a new key now, and why. `done` is the last request that was carried out."""
    if manifest.rotate and manifest.rotate != done:
        return TENANT_ROLES, Reason.REQUESTED if keys else Reason.FIRST
    roles = {role for role in TENANT_ROLES if role not in current}
    reason = Reason.SCHEDULED if not roles else Reason.LOST if keys else Reason.FIRST
    rotation = manifest.spec.credentials.rotation
    late = {role for role, key in current.items() if (at := rotate_at(rotation, [key.created_at])) is not None and at <= now}
    if late:
        # All roles together, so that one change serves the whole interval. A role that is still in its overlap is left out,
        # because its older key would end early; its overlap is over when its own interval is.
        overlapping = {key.role for key in keys if key.expires_at is not None and not key.expired(now)}
        roles |= late | (set(TENANT_ROLES) - overlapping)
    return tuple(role for role in TENANT_ROLES if role in roles), reason


def succession(
    rotation: Rotation,
    keys: Collection[IssuedKey],
    current: Mapping[Role, IssuedKey],
    renewed: Collection[Role],
    now: datetime,
) -> Succession:
    """Return what happens to the existing keys when the `renewed` roles get new ones.

    No role keeps more than two keys, and no end that was set before is moved back.
    """
    until = now + timedelta(hours=rotation.overlap_hours)
    kept: set[str] = set()
    retired: list[str] = []
    for role in TENANT_ROLES:
        good = current.get(role)
        live = [key for key in keys if key.role is role and not key.expired(now)]
        if role not in renewed and good is not None:
            kept.add(good.id)
            live = [key for key in live if key.expires_at is not None]
        # The key to keep for an overlap: the current one, or the one that the vault lost, or the one that ends last.
        before = max(live, key=lambda key: (key is good, key.expires_at is None, key.expires_at or now, key.id), default=None)
        if before is None or (role in renewed and until <= now):
            continue
        kept.add(before.id)
        if role in renewed and (before.expires_at is None or before.expires_at > until):
            retired.append(before.id)
    revoked = tuple(sorted(key.id for key in keys if key.id not in kept))
    return Succession(tuple(sorted(retired)), until if retired else None, revoked)


def key_status(
    rotation: Rotation,
    keys: Collection[IssuedKey],
    current: Collection[IssuedKey],
    *,
    revision: int,
    rotated: str,
    now: datetime,
) -> KeyStatus:
    """Return what the status shows of these keys."""
    made = [key.created_at for key in current]
    at = rotate_at(rotation, made)
    ends = [key.expires_at for key in keys if key.expires_at is not None and not key.expired(now)]
    return KeyStatus(
        revision=revision,
        valid_until=valid_until(rotation, made),
        overlap_until=rfc3339_seconds(max(ends)) if ends else "",
        rotated=rotated,
        rotate_at=at,
        wake_at=min((moment for moment in (at, *ends) if moment is not None and moment > now), default=None),
    )
