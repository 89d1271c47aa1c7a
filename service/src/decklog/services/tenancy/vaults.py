"""Where a tenant's plain API keys are stored for its users, and how new keys get there.

Plain keys pass through this module only: the registry gets hashes, and nothing here logs a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from decklog.domain.identity.access import Role
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.credentials import IssueKeys, RestateKeys, RevokeKeys, VaultSeen
from decklog.domain.tenancy.parts.keys import TENANT_ROLES, IssuedKey
from decklog.domain.tenancy.parts.part import Action
from decklog.services.identity.keys import key_hash, new_key
from decklog.services.tenancy.ports import DatabaseVisit


class Handout(msgspec.Struct, frozen=True):
    """A tenant's plain keys, and the notes stored beside them; see `VaultSeen` for what may be None, and for `drift`."""

    keys: Mapping[Role, str]
    revision: int | None = None
    valid_until: str | None = None
    drift: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Handout(revision={self.revision})"  # a log or a traceback must not show the keys


class KeyVault(Protocol):
    """Where a tenant's plain keys are stored for its users: a Kubernetes Secret, or a file."""

    async def read(self, manifest: Manifest) -> Handout | None:
        """Return what the vault holds; None where it holds no key of the tenant."""
        ...

    async def write(self, manifest: Manifest, handout: Handout) -> None:
        """Store exactly these keys, and the notes as far as this kind of vault stores them."""
        ...


class Handover:
    """A `KeyVault` for a request that gets the new keys in its answer: `made` holds those of this visit.

    `kept` is a vault that stores the keys besides. Where it is None, no vault stores them: the registered keys count as held
    by the users, and only keys that are missing or asked for are made.
    """

    def __init__(self, kept: KeyVault | None) -> None:
        self.kept = kept
        self.made: dict[Role, str] = {}

    async def read(self, manifest: Manifest) -> Handout | None:
        """Return what the other vault holds."""
        return None if self.kept is None else await self.kept.read(manifest)

    async def write(self, manifest: Manifest, handout: Handout) -> None:
        """Store the keys in the other vault, and remember those that are new."""
        before = await self.read(manifest)
        if self.kept is not None:
            await self.kept.write(manifest, handout)
        known = before.keys if before is not None else {}
        self.made |= {role: token for role, token in handout.keys.items() if known.get(role) != token}


async def observe(vault: KeyVault, manifest: Manifest) -> VaultSeen:
    """Return the hashes of the keys that the vault holds, and the notes beside them."""
    kept = await vault.read(manifest)
    if kept is None:
        return VaultSeen()
    hashes = {role: key_hash(token) for role, token in kept.keys.items()}
    return VaultSeen(hashes, kept.revision, kept.valid_until, kept.drift)


async def apply(visit: DatabaseVisit, vault: KeyVault, manifest: Manifest, actions: Sequence[Action]) -> dict[Role, str]:
    """Carry out the actions of the credentials part, in order. Returns the ids of the keys that were issued, by role."""
    issued: dict[Role, str] = {}
    for action in actions:
        match action:
            case IssueKeys():
                issued |= await _issue(visit, vault, manifest, action)
            case RestateKeys():
                if (kept := await vault.read(manifest)) is not None:
                    await visit.take_revision(action.revision)
                    await vault.write(manifest, Handout(kept.keys, action.revision, action.valid_until))
            case RevokeKeys():
                await visit.revoke(action.ids)
    return issued


async def _issue(visit: DatabaseVisit, vault: KeyVault, manifest: Manifest, action: IssueKeys) -> dict[Role, str]:
    """Write new keys to the vault before they are registered. Returns their ids by role.

    A key that no user received must never be accepted; one that is stored and not registered is replaced by the next visit.
    Until then the older keys stay valid. The revision is taken first, so that no two contents of the vault have the same one.
    """
    made = {role: new_key() for role in action.roles}
    kept = await vault.read(manifest) if made.keys() < set(TENANT_ROLES) else None
    tokens = {role: token for role, token in (kept.keys if kept else {}).items() if role in TENANT_ROLES}
    tokens |= {role: token for role, (_, token, _) in made.items()}
    await visit.take_revision(action.revision)
    await vault.write(manifest, Handout(tokens, action.revision, action.valid_until))
    await visit.issue([IssuedKey(key_id, role, hashed, action.at) for role, (key_id, _, hashed) in made.items()], action)
    return {role: key_id for role, (key_id, _, _) in made.items()}
