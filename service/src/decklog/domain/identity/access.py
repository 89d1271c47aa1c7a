"""Who may do what: principals, roles and the actions they are allowed.

A credential speaks for exactly one tenant, or for the platform; a request can name neither.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenant import State, Tenant


class Role(StrEnum):
    WRITER = "writer"
    AUDITOR = "auditor"
    ADMIN = "admin"
    PLATFORM = "platform"


class Permission(StrEnum):
    APPEND = "append"
    READ = "read"
    MANAGE = "manage"
    LIST_TENANTS = "list-tenants"
    CREATE_TENANTS = "create-tenants"


GRANTS: dict[Role, frozenset[Permission]] = {
    Role.WRITER: frozenset({Permission.APPEND}),
    Role.AUDITOR: frozenset({Permission.READ}),
    Role.ADMIN: frozenset({Permission.APPEND, Permission.READ, Permission.MANAGE}),
    Role.PLATFORM: frozenset({Permission.LIST_TENANTS, Permission.CREATE_TENANTS}),
}


class Principal(msgspec.Struct, frozen=True):
    """Who is asking, as their credential proves. `tenant` is None for the platform.

    `kind` is `api_key` or `jwt`; `subject` is the key's id or the token's `sub`, never a secret. `expires_at` is in
    seconds since 1970, where the credential ends by itself.
    """

    kind: str
    subject: str
    role: Role
    tenant: Tenant | None
    issuer: str | None = None
    expires_at: float | None = None

    @property
    def permissions(self) -> frozenset[Permission]:
        return GRANTS[self.role]


class RequestContext(msgspec.Struct, frozen=True):
    """What an access record says of the request itself."""

    request_id: str
    ip: str | None = None
    user_agent: str | None = None


def require(principal: Principal, permission: Permission) -> None:
    """Raises `forbidden` where the role lacks the permission."""
    if permission not in principal.permissions:
        raise DecklogError(
            Code.FORBIDDEN,
            f"The role {principal.role.value!r} may not {permission.value}; it may: {', '.join(sorted(principal.permissions))}.",
        )


def acting_tenant(principal: Principal, permission: Permission) -> Tenant:
    """The tenant that the principal acts in. Raises `forbidden` and `tenant-suspended`."""
    require(principal, permission)
    tenant = principal.tenant
    if tenant is None:
        raise DecklogError(Code.FORBIDDEN, "This credential speaks for no tenant.")
    if tenant.state is not State.ACTIVE:
        raise DecklogError(
            Code.TENANT_SUSPENDED,
            f"The tenant {tenant.name!r} is suspended: nothing is taken in or given out. Its data is kept.",
        )
    return tenant
