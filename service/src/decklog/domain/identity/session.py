"""Sessions of browsers: credentials held by name on the server, under a token of which only the hash is stored.

A session and a one-time code never contain a secret of a credential. They name credentials, which are looked up at each use.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, Role

IDENTITIES_MAX = 20
"""Identities of one session."""
SESSIONS_PER_IDENTITY_MAX = 50
SESSIONS_PER_TENANT_MAX = 1_000
"""Sessions of one identity and of one tenant. Beyond that, the one that was used longest ago ends."""
SESSIONS_MAX = 100_000
"""Sessions of a cell. Beyond that, none is opened."""
CODES_PER_TENANT_MAX = 1_000
"""One-time codes of one tenant that are not used yet. Beyond that, the oldest one ends."""
CODES_MAX = 100_000
"""One-time codes of a cell. Beyond that, none is made."""
NO_TENANT = 0
"""Number that stands for the platform, which has no tenant."""

_TOKEN_BYTES = 32
_ID_BYTES = 8
_KINDS = ("api_key", "jwt")


class Held(msgspec.Struct, frozen=True):
    """A credential by name, as `Principal` has it. `expires_at` is in seconds since 1970, None for a credential without an end."""

    kind: str
    subject: str
    role: Role
    tenant_id: int
    tenant: str | None = None
    issuer: str | None = None
    expires_at: float | None = None

    @property
    def id(self) -> str:
        """The id of the identity: the same for the same credential, role and tenant, and 128 bits of a hash of them."""
        named = msgspec.json.encode((self.kind, self.issuer, self.subject, self.role, self.tenant_id))
        return hashlib.sha256(named).hexdigest()[:32]


class Session(msgspec.Struct, frozen=True):
    """A session without its token. `token` is the SHA-256 of the token; `id` is public."""

    id: str
    token: bytes
    identities: tuple[Held, ...]
    created_at: datetime
    last_used_at: datetime
    idle_ends_at: datetime
    ends_at: datetime
    address: str = ""
    user_agent: str = ""

    def over(self, now: datetime) -> bool:
        """Return whether the session has ended by now."""
        return now >= min(self.idle_ends_at, self.ends_at)


class CodeKind(StrEnum):
    """The thing that a one-time code opens: a session, or one stream."""

    LINK = "link"
    TICKET = "ticket"


class OneTimeCode(msgspec.Struct, frozen=True):
    """A one-time code without its text. `code` is its SHA-256, `session` the id of the session that made it, if one did."""

    code: bytes
    kind: CodeKind
    identities: tuple[Held, ...]
    ends_at: datetime
    session: str | None = None


class SessionStore(Protocol):
    """The sessions and one-time codes of a cell. Every method raises `storage-unavailable`.

    The caller gives the time, so that one clock decides. Bounds are those of this module.
    """

    async def open(self, session: Session, *, replaces: str | None) -> bool:
        """Store a session in place of another one, if given, and end those beyond the bounds. Returns False where there is no room."""
        ...

    async def find(self, *, tokens: Sequence[bytes] = (), ids: Sequence[str] = ()) -> list[Session]:
        """Return sessions by hashes of tokens and by ids, those that are over included while they are stored."""
        ...

    async def touch(self, number: str, at: datetime, idle_ends_at: datetime) -> None:
        """Note a use of a session, unless a later one is noted."""
        ...

    async def end(self, number: str) -> bool:
        """Delete a session; return whether there was one."""
        ...

    async def list(self, identity: str, tenant_id: int | None, now: datetime) -> list[Session]:
        """Return the sessions of an identity, or of a tenant if given, that are not over, the one used last first."""
        ...

    async def put_code(self, code: OneTimeCode, now: datetime) -> bool:
        """Store a one-time code, and end those beyond the bounds. Returns False where there is no room."""
        ...

    async def take_code(self, code: bytes, kind: CodeKind) -> OneTimeCode | None:
        """Delete a one-time code and return it: of several callers at once, one gets it. None where there is none of this kind."""
        ...


def new_token() -> str:
    """Return a new token or one-time code: 256 random bits in 43 characters that need no escape in a URL or a cookie."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def new_id() -> str:
    """Return the id of a new session."""
    return secrets.token_hex(_ID_BYTES)


def hashed(token: str) -> bytes:
    """Return what is stored of a token or a code. A secret of 256 random bits needs no slow hash."""
    return hashlib.sha256(token.encode()).digest()


def csrf_of(token: str) -> str:
    """Return the text that requests of a session must repeat: it follows from the token, and the token does not follow from it."""
    return hashlib.sha256(b"decklog csrf\0" + token.encode()).hexdigest()


def held(principal: Principal) -> Held:
    """Return a principal by name. Raises `forbidden` for a credential that must not outlive its own token."""
    if principal.kind not in _KINDS:
        raise DecklogError(
            Code.FORBIDDEN, "This credential opens no session, link or ticket. Use an API key or a token of a trusted issuer."
        )
    tenant = principal.tenant
    return Held(
        principal.kind,
        principal.subject,
        principal.role,
        NO_TENANT if tenant is None else tenant.id,
        None if tenant is None else tenant.name,
        principal.issuer,
        principal.expires_at,
    )


def merged(first: Sequence[Held], then: Sequence[Held]) -> tuple[Held, ...]:
    """Return identities in order, each once. Raises `conflict` where they are more than a session holds."""
    found = {each.id: each for each in [*then, *first]}
    order = dict.fromkeys(each.id for each in [*first, *then])
    if len(order) > IDENTITIES_MAX:
        raise DecklogError(
            Code.CONFLICT, f"A session has at most {IDENTITIES_MAX} identities. Sign out, then sign in with those that you need."
        )
    return tuple(found[number] for number in order)
