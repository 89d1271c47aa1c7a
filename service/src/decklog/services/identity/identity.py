"""Authentication: API keys, JSON Web Tokens and viewer tokens become principals here, and nowhere else.

The credential alone decides tenant and role. Every refusal is the same `unauthenticated` with the same text, so that an
answer does not reveal which part of a guess was right. The reason is logged, without the token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from typing import TypeGuard

import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, Role
from decklog.domain.identity.scope import Scope, ViewerClaims
from decklog.domain.identity.session import NO_TENANT, Held
from decklog.domain.store import ApiKey
from decklog.domain.tenant import State, Tenant
from decklog.services.identity.issuers import Claims, Issuers, UntrustedError
from decklog.services.identity.keys import KEY_PREFIX
from decklog.services.identity.registry import RegistryCache
from decklog.services.identity.viewer_tokens import MINTERS, VIEWER_PREFIX, ViewerTokens, scope_of

TOKEN_CHARS_MAX = 8 * 1024
VERIFIED_MAX = 4_096
"""Verified tokens that are cached, by their SHA-256; verifying a signature costs about as much as storing a record."""
VIEWERS_MAX = 1_024
"""Verified viewer tokens that are cached with their scopes, by their SHA-256."""
RECOGNISED_MAX = 16_384
"""API keys whose principals are cached, by their SHA-256, until the registry changes or `take_used` is called."""
USED_MAX = 10_000
"""Keys whose use is noted until `take_used`; the uses of further ones are lost."""

_KEY = re.compile(r"dlk_([0-9a-z]{8,32})_([0-9A-Za-z]{32,128})")
_NO_HASH = bytes(32)
VIEWER = "viewer"
"""Kind of the principal of a viewer token."""

_log = structlog.get_logger(__name__)


def unauthenticated() -> DecklogError:
    """Return the one refusal of every credential that is not valid."""
    return DecklogError(
        Code.UNAUTHENTICATED,
        "The credential is not valid: malformed, unknown, revoked, expired, or not meant for this service.",
    )


class CredentialRefusedError(DecklogError):
    """The refusal of a credential that names a tenant. The answer is that of any other; the rest is for the tenant's access log."""

    def __init__(self, tenant: Tenant, reason: str, *, kind: str, subject: str, issuer: str | None = None) -> None:
        usual = unauthenticated()
        super().__init__(usual.code, usual.detail)
        self.tenant = tenant
        self.reason = reason
        self.kind = kind
        self.subject = subject
        self.issuer = issuer


class Identity:
    """Verifies credentials against the registry and the trusted issuers.

    `viewers` verifies viewer tokens, None where none are valid; `now` returns seconds since 1970.
    """

    def __init__(
        self,
        registry: RegistryCache,
        issuers: Issuers,
        *,
        viewers: ViewerTokens | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._issuers = issuers
        self._viewers = viewers
        self._now = now
        self._scopes: dict[bytes, tuple[ViewerClaims, Scope]] = {}
        self._verified: dict[bytes, Claims] = {}
        self._recognised: dict[bytes, Principal] = {}
        self._recognised_in: int | None = None
        self._used: set[str] = set()

    async def authenticate(self, token: str) -> Principal:
        """Return the principal of a token.

        Raises:
            DecklogError: `unauthenticated`; `registry-stale` where the registry is too old, and `issuer-unavailable` where the
                keys of the token's issuer could not be read.
        """
        await self._registry.current()
        principal = self.recognise(token)
        if principal is not None:
            return principal
        if token.startswith(KEY_PREFIX):
            return await self._by_key(token, _name(token))
        if token.startswith(VIEWER_PREFIX):
            return await self._by_viewer_token(token)
        return await self._by_token(token)

    def recognise(self, token: str) -> Principal | None:
        """Return the principal of a token without I/O; None where `authenticate` must decide. Raises `unauthenticated`."""
        if len(token) > TOKEN_CHARS_MAX:
            raise _refused("too long")
        version = self._registry.version_if_fresh
        if version is None:
            return None
        name = _name(token)
        if token.startswith(KEY_PREFIX):
            return self._remembered(name, version) or self._by_cached_key(token, name)
        if token.startswith(VIEWER_PREFIX):
            return self._by_cached_viewer_token(name)
        claims = self._verified.get(name)
        if claims is None or not self._issuers.current(claims):
            return None
        tenant = None if claims.tenant is None else self._registry.cached_named(claims.tenant)
        return None if claims.tenant is not None and tenant is None else self._principal(claims, tenant)

    async def still_valid(self, principal: Principal) -> bool:
        """Return whether the credential would be accepted now, for streams and exports. Raises `registry-stale`."""
        if principal.expires_at is not None and principal.expires_at <= self._now():
            return False
        if principal.scope is not None:
            if not self._mints(await self._registry.key(principal.scope.key), principal.tenant):
                return False
        elif principal.kind == "api_key":
            key = await self._registry.key(principal.subject)
            if not self._holds(key, principal.role):
                return False
            self._note_use(key)
        if principal.tenant is None:
            return self._registry.version is not None
        known = await self._registry.tenant(principal.tenant.id)
        return known is not None and known.state is State.ACTIVE

    def take_used(self) -> set[str]:
        """Return the ids of the keys that were accepted since the last call.

        Each key is checked anew afterwards, which notes its next use: so a request with a cached principal notes nothing.
        """
        used, self._used = self._used, set()
        self._recognised = {}
        return used

    def _note_use(self, key: ApiKey) -> None:
        if len(self._used) < USED_MAX:
            self._used.add(key.id)

    async def named(self, held: Held) -> Principal | None:
        """Return the principal of a credential that is held by name; None where it would not be accepted now. Raises `registry-stale`."""
        await self._registry.current()
        if held.expires_at is not None and held.expires_at <= self._now():
            return None
        tenant = None
        if held.kind == "api_key":
            key = await self._registry.key(held.subject)
            if not self._holds(key, held.role) or (key.tenant_id or NO_TENANT) != held.tenant_id:
                return None
            self._note_use(key)
        elif not self._issuers.grants(held.issuer or "", held.role, held.tenant):
            return None
        if held.tenant_id != NO_TENANT:
            tenant = await self._registry.tenant(held.tenant_id)
            if tenant is None or tenant.state is State.DELETED or tenant.name != held.tenant:
                return None
        return Principal(held.kind, held.subject, held.role, tenant, held.issuer, held.expires_at)

    def _remembered(self, name: bytes, version: int) -> Principal | None:
        """Return the cached principal of a key by its SHA-256, as long as the registry has not changed.

        Only a hash of what was sent is compared, so the time of the look-up reveals nothing about keys.
        """
        if self._recognised_in != version or len(self._recognised) >= RECOGNISED_MAX:
            self._recognised, self._recognised_in = {}, version
        principal = self._recognised.get(name)
        if principal is None or (principal.expires_at is not None and principal.expires_at <= self._now()):
            return None
        return principal

    def _by_cached_key(self, token: str, hashed: bytes) -> Principal | None:
        """Return the principal of a key; None where the key or its tenant must be looked up. Raises `unauthenticated`."""
        key = self._registry.cached_key(_key_id(token))
        if key is None:
            return None
        tenant = None if key.tenant_id is None else self._registry.cached_tenant(key.tenant_id)
        if key.tenant_id is not None and tenant is None:
            return None
        return self._accepted(hashed, key, tenant, self._registry.version)

    async def _by_key(self, token: str, hashed: bytes) -> Principal:
        """Return the principal of a key. Raises `unauthenticated`."""
        version = self._registry.version
        key = await self._registry.key(_key_id(token))
        if key is None:
            hmac.compare_digest(hashed, _NO_HASH)  # an unknown id costs the same comparison as a known one
            raise _refused("unknown key")
        tenant = None if key.tenant_id is None else await self._registry.tenant(key.tenant_id)
        return self._accepted(hashed, key, tenant, version)

    def _accepted(self, hashed: bytes, key: ApiKey, tenant: Tenant | None, version: int) -> Principal:
        """Return the principal of a key whose id was found, at a version of the registry or later. Raises `unauthenticated`."""
        if not hmac.compare_digest(hashed, key.hash):
            raise _refused_key("wrong secret", key, tenant)
        if self._expired(key):
            raise _refused_key("expired key", key, tenant)
        if key.tenant_id is not None and (tenant is None or tenant.state is State.DELETED):
            raise _refused("deleted tenant", key=key.id)
        if (tenant is None) is not (key.role is Role.PLATFORM):
            raise _refused("key of no tenant that is not the platform's, or the reverse", key=key.id)
        principal = Principal(
            kind="api_key",
            subject=key.id,
            role=key.role,
            tenant=tenant,
            expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
        )
        self._note_use(key)
        # Not where a change was followed meanwhile: it may have revoked this key.
        if self._recognised_in == version == self._registry.version:
            self._recognised[hashed] = principal
        return principal

    def _holds(self, key: ApiKey | None, role: Role) -> TypeGuard[ApiKey]:
        """Return whether a key that was accepted with this role would be accepted now."""
        return key is not None and key.role is role and not self._expired(key)

    def _expired(self, key: ApiKey) -> bool:
        return key.expires_at is not None and key.expires_at.timestamp() <= self._now()

    async def _by_viewer_token(self, token: str) -> Principal:
        """Return the principal of a viewer token. Raises `unauthenticated`."""
        name = _name(token)
        if (known := self._scopes.get(name)) is None:
            try:
                if self._viewers is None:
                    raise UntrustedError("viewer tokens are not valid here")
                claims = self._viewers.verify(token)
                known = claims, scope_of(claims)
            except UntrustedError as error:
                raise _refused(error.reason) from None
            while len(self._scopes) >= VIEWERS_MAX:
                del self._scopes[next(iter(self._scopes))]
            self._scopes[name] = known
        claims, scope = known
        return self._viewer(claims, scope, await self._registry.key(claims.key), await self._registry.tenant(claims.tenant))

    def _by_cached_viewer_token(self, name: bytes) -> Principal | None:
        """Return the principal of a viewer token; None where its key or tenant must be looked up. Raises `unauthenticated`."""
        if (known := self._scopes.get(name)) is None:
            return None
        claims, scope = known
        key, tenant = self._registry.cached_key(claims.key), self._registry.cached_tenant(claims.tenant)
        return None if key is None or tenant is None else self._viewer(claims, scope, key, tenant)

    def _viewer(self, claims: ViewerClaims, scope: Scope, key: ApiKey | None, tenant: Tenant | None) -> Principal:
        """Return the principal of verified claims. Raises `unauthenticated` after their end and without the key that minted them."""
        if tenant is None or tenant.state is State.DELETED:
            raise _refused("deleted tenant", viewer=claims.id)
        if claims.expires_at <= self._now():
            raise CredentialRefusedError(tenant, "expired viewer token", kind=VIEWER, subject=claims.subject)
        if not self._mints(key, tenant):
            raise CredentialRefusedError(tenant, "revoked key of a viewer token", kind=VIEWER, subject=claims.subject)
        return Principal(
            kind=VIEWER, subject=claims.subject, role=Role.VIEWER, tenant=tenant, expires_at=claims.expires_at, scope=scope
        )

    def _mints(self, key: ApiKey | None, tenant: Tenant | None) -> bool:
        """Return whether a key may still show the records of a tenant to the holders of its viewer tokens."""
        if key is None or tenant is None or key.tenant_id != tenant.id:
            return False
        return key.role in MINTERS and not self._expired(key)

    def trusts(self, issuer: str) -> bool:
        """Return whether tokens of this issuer are accepted at all."""
        return self._issuers.knows(issuer)

    async def by_id_token(self, token: str, *, client: str, nonce: str) -> Principal:
        """Return the principal of an ID token that this client got in a sign-in. Raises what `authenticate` raises."""
        await self._registry.current()
        if len(token) > TOKEN_CHARS_MAX:
            raise _refused("too long")
        claims = await self._verified_claims(token, client=client, nonce=nonce)
        return self._principal(claims, None if claims.tenant is None else await self._registry.named(claims.tenant))

    async def _verified_claims(self, token: str, *, client: str | None = None, nonce: str | None = None) -> Claims:
        """Return the claims of a token. Raises `unauthenticated`, for the access log of the tenant that it names."""
        try:
            return await self._issuers.verify(token, client=client, nonce=nonce)
        except UntrustedError as error:
            refused = _refused(error.reason)
            named = None if error.tenant is None else await self._registry.named(error.tenant)
            if named is None or named.state is State.DELETED:
                raise refused from None
            raise CredentialRefusedError(named, error.reason, kind="jwt", subject=error.subject, issuer=error.issuer) from None

    async def _by_token(self, token: str) -> Principal:
        claims = await self._verified_claims(token)
        tenant = None if claims.tenant is None else await self._registry.named(claims.tenant)
        principal = self._principal(claims, tenant)
        while len(self._verified) >= VERIFIED_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified[_name(token)] = claims
        return principal

    def _principal(self, claims: Claims, tenant: Tenant | None) -> Principal:
        if claims.expires_at <= self._now():
            refused = _refused("expired token")
            if tenant is None or tenant.state is State.DELETED:
                raise refused
            raise CredentialRefusedError(tenant, "expired token", kind="jwt", subject=claims.subject, issuer=claims.issuer)
        if claims.tenant is not None and (tenant is None or tenant.state is State.DELETED):
            raise _refused("unknown tenant", tenant=claims.tenant)
        return Principal(
            kind="jwt",
            subject=claims.subject,
            role=claims.role,
            tenant=tenant,
            issuer=claims.issuer,
            expires_at=claims.expires_at,
        )


def _key_id(token: str) -> str:
    """Return the id in an API key. Raises `unauthenticated`."""
    match = _KEY.fullmatch(token)
    if match is None:
        raise _refused("malformed key")
    return match[1]


def _name(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _refused(reason: str, **facts: str) -> DecklogError:
    _log.info("credential refused", reason=reason, **facts)
    return unauthenticated()


def _refused_key(reason: str, key: ApiKey, tenant: Tenant | None) -> DecklogError:
    refused = _refused(reason, key=key.id)
    if tenant is None or tenant.state is State.DELETED:
        return refused
    return CredentialRefusedError(tenant, reason, kind="api_key", subject=key.id)
