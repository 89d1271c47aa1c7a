"""Tenants over the API: list and read them, and create them where Decklog itself owns its tenants.

Every answer is recorded before it is given: in the tenant's access log for its own credentials, in the platform's otherwise.
Where Kubernetes owns the tenants, this module has no provisioner and cannot create any.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, Principal, RequestContext, Role, acting_tenant, require
from decklog.domain.records.record import Outcome
from decklog.domain.tenancy.manifest import Manifest, TenantManifest, parse_manifest
from decklog.domain.tenancy.names import NAME_CHARS_MAX, NAME_PATTERN
from decklog.domain.tenancy.spec import spec_changes
from decklog.domain.tenancy.status import READY, Part, StoredUsage, TenantListing, TenantStatus
from decklog.domain.tenant import State
from decklog.services.records.access_log import TENANTS_CREATE_CLOSE, TENANTS_CREATE_OPEN, TENANTS_LIST, TENANTS_READ, AccessLog
from decklog.services.tenancy.ports import TenantDirectory, Usages
from decklog.services.tenancy.provisioning import Provisioner
from decklog.services.tenancy.vaults import Handover, KeyVault

CREATIONS_MAX = 16
"""Concurrent creations of one process, including those that wait for each other; more get 503."""
_ATTEMPTS_MAX = 2
"""Another request may register the same name first, under a UID of its own choice."""
_RETRY_SECONDS = 5


class Created(msgspec.Struct, frozen=True):
    """An existing tenant. `new`: it did not exist before; `keys` are those that this request made, shown only now."""

    listing: TenantListing
    new: bool
    keys: Mapping[Role, str]

    def __repr__(self) -> str:
        return f"Created({self.listing.name!r})"  # a log or a traceback must not show the keys


class Tenants:
    """What the API does with tenants.

    `provisioner` is None where Kubernetes owns them, `vault` where no vault stores keys, `usages` where no usage can be read.
    """

    def __init__(
        self,
        directory: TenantDirectory,
        access_log: AccessLog,
        usages: Usages | None = None,
        *,
        provisioner: Provisioner | None = None,
        vault: KeyVault | None = None,
    ) -> None:
        self._directory = directory
        self._access_log = access_log
        self._provisioner = provisioner
        self._vault = vault
        self._usages = usages
        self._creating = 0

    async def list(self, principal: Principal, request: RequestContext) -> Sequence[TenantListing]:
        """Return all tenants, by name. Raises `forbidden` unless the platform asks."""
        require(principal, Permission.LIST_TENANTS)
        found = await self._directory.tenants()
        await self._access_log.write(principal, request, TENANTS_LIST, resource=("tenant", None), details={"count": len(found)})
        return found

    async def get(self, principal: Principal, request: RequestContext, name: str) -> tuple[TenantListing, StoredUsage | None]:
        """Return the tenant of this name and what it uses. The request is recorded also where it fails.

        Raises `not-found`; for a tenant's own credentials also for another tenant, which is not looked up, so that existing
        and missing names cannot be told apart.
        """
        if principal.tenant is None:
            require(principal, Permission.LIST_TENANTS)
            known = len(name) <= NAME_CHARS_MAX and re.fullmatch(NAME_PATTERN, name) is not None
        else:
            known = acting_tenant(principal, Permission.READ).name == name
        found = await self._directory.tenant(name) if known else None
        used = None if found is None or self._usages is None else await self._usages.usage(name)
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
        return found, used

    async def create(self, principal: Principal, request: RequestContext, sent: TenantManifest) -> Created:
        """Create a tenant, or complete one that exists with the same spec. Idempotent.

        Raises `invalid-tenant`, `managed-by-kubernetes`, `conflict` for a name that exists with another spec, `overloaded`, and
        `storage-unavailable` or `misconfigured` where the tenant has no database or no keys yet; the same request then
        continues the creation.
        """
        require(principal, Permission.CREATE_TENANTS)
        name, spec = parse_manifest(msgspec.to_builtins(sent))
        if self._provisioner is None:
            raise DecklogError(
                Code.MANAGED_BY_KUBERNETES,
                "Kubernetes owns the tenants of this installation. Apply the Tenant in `manifest`: kubectl apply -f -.",
                extra={"manifest": msgspec.to_builtins(sent)},
            )
        if self._vault is None and spec.credentials.rotation.interval_days:
            raise DecklogError(
                Code.INVALID_TENANT,
                "spec.credentials.rotation.intervalDays must be 0 here, because new keys are shown only in this answer. "
                "A Tenant in the files of decklog provision may have a schedule, because that command stores its keys.",
            )
        if self._creating >= CREATIONS_MAX:
            raise DecklogError(
                Code.OVERLOADED, "Too many tenants are being created concurrently. Try again.", retry_after=_RETRY_SECONDS
            )
        self._creating += 1
        try:
            return await self._recorded(
                self._provisioner,
                principal,
                request,
                Manifest(name, "", 1, spec, sent.metadata.annotations.rotate, (_requester(principal),)),
            )
        finally:
            self._creating -= 1

    async def _recorded(
        self, provisioner: Provisioner, principal: Principal, request: RequestContext, asked: Manifest
    ) -> Created:
        """Record the request before anything is done, and its result afterwards."""
        resource = ("tenant", asked.name)
        wanted = {"spec": msgspec.to_builtins(asked.spec), "rotate": bool(asked.rotate)}
        await self._access_log.write(principal, request, TENANTS_CREATE_OPEN, resource=resource, details=wanted)
        came: dict[str, Any] = {"code": Code.INTERNAL.value}
        outcome = Outcome.FAILURE
        try:
            made = await self._made(provisioner, asked)
            ids = {role.value: key.split("_")[1] for role, key in made.keys.items()}
            came, outcome = {"new": made.new, "roles": sorted(made.keys), "keyIds": ids}, Outcome.SUCCESS
            return made
        except DecklogError as error:
            came = {"code": error.code.value}
            raise
        finally:
            await self._access_log.write_late(
                principal, request, TENANTS_CREATE_CLOSE, resource=resource, details=came, outcome=outcome
            )

    async def _made(self, provisioner: Provisioner, asked: Manifest) -> Created:
        for attempt in range(_ATTEMPTS_MAX):
            there = await self._directory.tenant(asked.name)
            new = there is None or there.state is State.DELETED
            handover = Handover(self._vault)
            status = await provisioner.reconcile(_manifest(asked, there), handover)
            if not (new and status.condition(READY).reason == "Conflict" and attempt + 1 < _ATTEMPTS_MAX):
                break
        _check(asked.name, status)
        listing = await self._directory.tenant(asked.name)
        if listing is None:
            raise DecklogError(Code.INTERNAL, f"The tenant {asked.name!r} was created, but the registry does not list it.")
        return Created(listing, new, handover.made)


def _manifest(asked: Manifest, there: TenantListing | None) -> Manifest:
    """The manifest under the UID of the existing tenant, or under a new UID. Raises `conflict`."""
    if there is None or there.state is State.DELETED:
        return msgspec.structs.replace(asked, uid=str(uuid.uuid4()))
    if there.spec != asked.spec:
        fields = ", ".join(f"spec.{path}" for path in spec_changes(there.spec, asked.spec)) if there.spec else "all of spec"
        raise DecklogError(
            Code.CONFLICT, f"The tenant {asked.name!r} exists with another spec ({fields}). This request does not change it."
        )
    return msgspec.structs.replace(asked, uid=there.uid, generation=there.generation)


def _check(name: str, status: TenantStatus) -> None:
    """Raise what kept the tenant from having a database and keys. Its conditions show what else is missing."""
    bad = [status.condition(part) for part in (Part.DATABASE, Part.CREDENTIALS) if status.condition(part).status != "True"]
    if not bad:
        return
    ready = status.condition(READY)
    if ready.reason != "NotReady":
        code = Code.INVALID_TENANT if ready.reason == "UnknownCell" else Code.CONFLICT
        raise DecklogError(code, f"{ready.message} ({ready.reason})")
    reasons = f"The tenant {name!r} is not ready yet. " + " ".join(f"{condition.type}: {condition.message}" for condition in bad)
    if any(condition.reason == "Misconfigured" for condition in bad):
        raise DecklogError(Code.MISCONFIGURED, reasons)
    raise DecklogError(Code.STORAGE_UNAVAILABLE, f"{reasons} Send the same request again.", retry_after=_RETRY_SECONDS)


def _requester(principal: Principal) -> str:
    """Return the credential that asked, as provisioning records name it."""
    return " ".join(filter(None, (principal.kind, principal.issuer, principal.subject)))
