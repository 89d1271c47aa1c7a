"""Principals, roles and permissions.

A credential belongs to exactly one tenant, or to the platform. The tenant must never come from a request.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.scope import Scope
from decklog.domain.tenant import State, Tenant


class Role(StrEnum):
    """The role of a credential; `GRANTS` lists the permissions of each."""

    WRITER = "writer"
    AUDITOR = "auditor"
    ADMIN = "admin"
    PLATFORM = "platform"
    VIEWER = "viewer"
    """The holder of a viewer token. No API key and no JWT has this role."""


class Permission(StrEnum):
    """One thing that a principal may be allowed to do."""

    APPEND = "append"
    READ = "read"
    VIEW = "view"
    """Read within a scope. No other permission comes with it, so what does not know scopes refuses their holders."""
    MINT = "mint-viewer-tokens"
    MANAGE = "manage"
    LIST_TENANTS = "list-tenants"
    CREATE_TENANTS = "create-tenants"
    READ_PLATFORM = "read-platform-log"


GRANTS: dict[Role, frozenset[Permission]] = {
    Role.WRITER: frozenset({Permission.APPEND}),
    Role.AUDITOR: frozenset({Permission.READ, Permission.MINT}),
    Role.ADMIN: frozenset({Permission.APPEND, Permission.READ, Permission.MINT, Permission.MANAGE}),
    Role.PLATFORM: frozenset({Permission.LIST_TENANTS, Permission.CREATE_TENANTS, Permission.READ_PLATFORM}),
    Role.VIEWER: frozenset({Permission.VIEW}),
}


class Principal(msgspec.Struct, frozen=True):
    """The identity that a credential proves. `tenant` is None for the platform.

    `kind` is `api_key`, `jwt` or `viewer`; `subject` is the key's id or the token's `sub`, never a secret. `issuer` is None but for a
    JWT. `expires_at` is in seconds since 1970, None for a credential without an end. `session` is the id of the session that the
    request came by, None where it carried the credential itself. `scope` is what a viewer may read, None for every other role.
    """

    kind: str
    subject: str
    role: Role
    tenant: Tenant | None
    issuer: str | None = None
    expires_at: float | None = None
    session: str | None = None
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if (self.scope is None) is (self.role is Role.VIEWER):
            raise ValueError("a viewer has a scope, and no other role has one")

    @property
    def permissions(self) -> frozenset[Permission]:
        """The permissions of the role."""
        return GRANTS[self.role]


class RequestContext(msgspec.Struct, frozen=True):
    """The facts about a request that its access record contains; None if unknown."""

    request_id: str
    ip: str | None = None
    user_agent: str | None = None


def require(principal: Principal, permission: Permission) -> None:
    """Raise `forbidden` if the role lacks the permission."""
    if permission not in principal.permissions:
        raise DecklogError(
            Code.FORBIDDEN,
            f"The role {principal.role.value!r} may not {permission.value}; it may: {', '.join(sorted(principal.permissions))}.",
        )


def acting_tenant(principal: Principal, permission: Permission) -> Tenant:
    """Return the tenant that the principal acts in.

    Raises:
        DecklogError: `forbidden` without the permission or without a tenant, `tenant-suspended` in a suspended tenant.
    """
    require(principal, permission)
    tenant = principal.tenant
    if tenant is None:
        raise DecklogError(Code.FORBIDDEN, "This credential belongs to no tenant.")
    if tenant.state is not State.ACTIVE:
        raise DecklogError(
            Code.TENANT_SUSPENDED,
            f"The tenant {tenant.name!r} is suspended: it can neither append nor read. Its data is kept.",
        )
    return tenant
