"""When API keys are changed for new ones. Two alternate per role, and for a while after a change both are let in. Pure.

A key is *current* while its tenant's people have it in their vault and nothing ends it; the one before it is let in
until its `expires_at`, which every process that checks keys sees for itself. Why keys are changed makes no difference
to the one before: a key that was lost from the vault is still in the hands of whoever read it in time.
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
"""Each tenant gets one API key per role, and has one more for a while after each change."""


class IssuedKey(msgspec.Struct, frozen=True):
    """A key as the registry has it, not revoked. From `expires_at` on it is not let in; None where nothing ends it."""

    id: str
    role: Role
    hash: bytes
    created_at: datetime
    expires_at: datetime | None = None

    def expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Reason(StrEnum):
    """Why keys are issued."""

    FIRST = "First"
    LOST = "Lost"
    REQUESTED = "Requested"
    SCHEDULED = "Scheduled"


class Succession(msgspec.Struct, frozen=True):
    """What becomes of the keys there are: `retired` end at `retired_until`, `revoked` at once, all others stay."""

    retired: tuple[str, ...] = ()
    retired_until: datetime | None = None
    revoked: tuple[str, ...] = ()


def current_keys(keys: Iterable[IssuedKey], given: Mapping[Role, bytes]) -> dict[Role, IssuedKey]:
    """By role the key that the vault holds (`given` has its hash) and that nothing ends."""
    return {
        key.role: key for key in keys if key.role in TENANT_ROLES and key.expires_at is None and given.get(key.role) == key.hash
    }


def rotate_at(rotation: Rotation, made: Iterable[datetime]) -> datetime | None:
    """When the schedule asks for new keys instead of those that were made at these times; None without a schedule or keys."""
    oldest = min(made, default=None)
    return None if oldest is None or not rotation.interval_days else oldest + timedelta(days=rotation.interval_days)


def valid_until(rotation: Rotation, made: Iterable[datetime]) -> str:
    """RFC 3339: until when all keys that were made at these times are good at least, as each is let in to the end of its
    overlap; or empty. A request ends them earlier."""
    at = rotate_at(rotation, made)
    return "" if at is None else rfc3339_seconds(at + timedelta(hours=rotation.overlap_hours))


def due_roles(
    manifest: Manifest, done: str, keys: Collection[IssuedKey], current: Mapping[Role, IssuedKey], now: datetime
) -> tuple[tuple[Role, ...], Reason]:
    """The roles that need a new key now, none where all is in order, and why. `done` is the request that was done last."""
    if manifest.rotate and manifest.rotate != done:
        return TENANT_ROLES, Reason.REQUESTED if keys else Reason.FIRST
    roles = {role for role in TENANT_ROLES if role not in current}
    reason = Reason.SCHEDULED if not roles else Reason.LOST if keys else Reason.FIRST
    rotation = manifest.spec.credentials.rotation
    late = {role for role, key in current.items() if (at := rotate_at(rotation, [key.created_at])) is not None and at <= now}
    if late:
        # All at once, so that one change does for the whole interval; but nobody is cut off for it who still uses the
        # key before a current one. When that one's own interval is over, so is this overlap.
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
    """What becomes of the keys there are when these roles get new ones: no role has more than two, and no end that was
    set before is moved back."""
    until = now + timedelta(hours=rotation.overlap_hours)
    kept: set[str] = set()
    retired: list[str] = []
    for role in TENANT_ROLES:
        good = current.get(role)
        live = [key for key in keys if key.role is role and not key.expired(now)]
        if role not in renewed and good is not None:
            kept.add(good.id)
            live = [key for key in live if key.expires_at is not None]
        # The last one before: the one that is current, or was before the vault lost it, or ends last.
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
    """What may be told of these keys."""
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
