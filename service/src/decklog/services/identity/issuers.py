"""JSON Web Tokens (RFC 7519): the trusted issuers, the tenants each may speak for, and the verification of tokens.

Only EdDSA (Ed25519), ES256 (P-256) and RS256 (2048 bits and more) are supported, and each key fits exactly one of them,
so neither `none` nor a public key used as an HMAC secret can verify. Keys come from a file or an address that an
operator configured, never from a token's header.
"""

from __future__ import annotations

import asyncio
import hmac
import time
import warnings
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import structlog
from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import Key
from joserfc.jwt import JWTClaimsRegistry
from msgspec import Meta

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.tenant import PLATFORM_TENANT
from decklog.services.identity.key_sets import KEY_SET_BYTES_MAX, UNREACHABLE_SECONDS_MAX, IssuerKeys

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns the bytes at an address; raises OSError. Injected, so that this module does no network I/O."""

LEEWAY_SECONDS = 30
"""Largest accepted difference between the clocks of issuer and service."""
TOKEN_SECONDS_MAX = 24 * 3_600.0
"""Longest accepted life of a token, unless configured. It also finds issuers that write milliseconds."""
SUBJECT_CHARS_MAX = 512
_TIME_MAX = 1 << 53
"""Largest time that is looked at, in seconds since 1970: as a number of 64 bits it is exact."""

_TYPES = ("jwt", "at+jwt")
"""Accepted values of `typ`: an access token (RFC 9068), or a JWT of no special type. ID tokens have types of their own."""

# RFC 9864 names Ed25519 by itself; issuers still send EdDSA, and here the key decides the curve.
warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)

_log = structlog.get_logger(__name__)


class IssuerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One trusted issuer, as an entry of the issuers file."""

    issuer: Annotated[str, Meta(min_length=1, max_length=2048, description="Exactly the token's `iss`.")]
    audience: Annotated[str, Meta(min_length=1, max_length=2048, description="The value that `aud` must be or contain.")]
    algorithms: Annotated[
        list[Literal["EdDSA", "ES256", "RS256"]], Meta(min_length=1, description="Signatures that this issuer uses.")
    ]
    tenants: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(description="Names of the tenants it may speak for; `*` for all but the reserved one."),
    ] = []
    jwks_file: Annotated[str, Meta(description="File with its keys (a JWK set), beside this file.")] = ""
    jwks_url: Annotated[str, Meta(description="https address of its keys (a JWK set).")] = ""
    tenant_claim: Annotated[str, Meta(min_length=1, description="The claim that holds the tenant's name.")] = "decklog_tenant"
    role_claim: Annotated[str, Meta(min_length=1, description="The claim that holds writer, auditor or admin.")] = "decklog_role"
    platform: Annotated[bool, Meta(description="Whether the role `platform` may be given by this issuer.")] = False


class Claims(msgspec.Struct, frozen=True):
    """The claims of a verified token. `generation` counts the issuer's key sets and names the one that verified the token."""

    issuer: str
    subject: str
    role: Role
    tenant: str | None
    expires_at: float
    generation: int


class UntrustedError(Exception):
    """The token is not valid. `reason` is for the log only.

    `tenant`, `subject` and `issuer` are set where the issuer signed the token for a tenant that it may not speak for.
    """

    def __init__(self, reason: str, *, tenant: str | None = None, subject: str = "", issuer: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.tenant = tenant
        self.subject = subject
        self.issuer = issuer


_T = TypeVar("_T")


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    typ: str | None = None
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Issued(msgspec.Struct):
    iss: str


class _Issuer(msgspec.Struct, frozen=True):
    config: IssuerConfig
    keys: IssuerKeys


class Issuers:
    """All trusted issuers.

    Args:
        configs: The issuers.
        fetch: Reads key sets over the network.
        folder: Where key files are.
        token_seconds_max: Longest accepted life of a token.
        unreachable_seconds_max: Age at which the keys of an issuer that cannot be reached are no longer used.
        now: Returns seconds since 1970.
        monotonic: Returns seconds that never jump.
    """

    def __init__(
        self,
        configs: Sequence[IssuerConfig],
        *,
        fetch: Fetch,
        folder: Path | None = None,
        token_seconds_max: float = TOKEN_SECONDS_MAX,
        unreachable_seconds_max: float = UNREACHABLE_SECONDS_MAX,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._token_seconds_max = token_seconds_max
        self._issuers: dict[str, _Issuer] = {}
        for config in configs:
            read = _reader(config, fetch, folder or Path())
            keys = IssuerKeys(config.issuer, read, seconds_max=unreachable_seconds_max, monotonic=monotonic)
            self._issuers[config.issuer] = _Issuer(config, keys)

    def current(self, claims: Claims) -> bool:
        """Return whether the issuer still has the key set that verified these claims, and need not be asked again."""
        issuer = self._issuers.get(claims.issuer)
        return issuer is not None and issuer.keys.current(claims.generation)

    def grants(self, issuer: str, role: Role, tenant: str | None) -> bool:
        """Return whether this issuer is still trusted to give this role in this tenant; None for the platform."""
        found = self._issuers.get(issuer)
        if found is None:
            return False
        return found.config.platform if role is Role.PLATFORM else tenant is not None and _bound(found.config, tenant)

    def knows(self, issuer: str) -> bool:
        """Return whether this issuer is trusted."""
        return issuer in self._issuers

    async def verify(self, token: str, *, client: str | None = None, nonce: str | None = None) -> Claims:
        """Verify a token and return its claims.

        `client` and `nonce` are those of an ID token (OpenID Connect Core 1.0, 3.1.3.7), whose audience is the client.

        Raises:
            UntrustedError: The token is not valid.
            DecklogError: `issuer-unavailable`, as the keys of its issuer could not be read.
        """
        parts = token.split(".")
        if len(parts) != 3 or not token.isascii():
            raise UntrustedError("not a signed JWT in compact form")
        header = _part(parts[0], _Header)
        if header.crit is not msgspec.UNSET or header.b64 is not msgspec.UNSET:
            raise UntrustedError("critical header")
        issuer = self._issuers.get(_part(parts[1], _Issued).iss)
        if issuer is None:
            raise UntrustedError("unknown issuer")
        if header.alg not in issuer.config.algorithms:
            raise UntrustedError("algorithm not allowed")
        if header.typ is not None and header.typ.lower().removeprefix("application/") not in _TYPES:
            raise UntrustedError("not an access token")
        key = await issuer.keys.find(header.alg, header.kid)
        if key is None:
            raise UntrustedError("unknown key id")
        payload = _verified_payload(token, header.alg, key)
        if client is not None:
            _check_id_token(payload, client, nonce)
        return self._claims(issuer, payload, client or issuer.config.audience)

    def _claims(self, issuer: _Issuer, payload: dict[str, Any], audience: str) -> Claims:
        config = issuer.config
        expires_at = _expiry(payload, self._now(), self._token_seconds_max)
        checks = JWTClaimsRegistry(
            now=int(self._now()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": config.issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            checks.validate(payload)
        except JoseError as error:
            raise UntrustedError(f"claims: {error}") from None
        role, tenant = _mandate(config, payload)
        return Claims(
            issuer=config.issuer,
            subject=_subject(payload["sub"]),
            role=role,
            tenant=tenant,
            expires_at=expires_at + LEEWAY_SECONDS,
            generation=issuer.keys.generation,
        )


def _check_id_token(payload: dict[str, Any], client: str, nonce: str | None) -> None:
    """Check what binds an ID token to one sign-in of this client. Raises `UntrustedError`."""
    sent = payload.get("nonce")
    if nonce is None or not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), nonce.encode()):
        raise UntrustedError("the nonce is not that of the sign-in")
    if payload.get("azp", client) != client:
        raise UntrustedError("azp is another client")


def _expiry(payload: dict[str, Any], now: float, seconds_max: float) -> float:
    """Return the `exp` of a token. Raises `UntrustedError` where a time is no time, or the token lives too long."""
    times = {name: _time(name, payload[name]) for name in ("exp", "nbf", "iat") if name in payload}
    if "exp" not in times:
        raise UntrustedError("exp is missing")
    expires_at = times["exp"]
    if expires_at > now + seconds_max + LEEWAY_SECONDS:
        raise UntrustedError(
            f"exp is {expires_at - now:.0f} seconds ahead, and {seconds_max:.0f} are allowed; it counts seconds, not milliseconds"
        )
    if (lives := expires_at - times.get("iat", expires_at)) > seconds_max:
        raise UntrustedError(f"the token lives for {lives:.0f} seconds from iat to exp, and {seconds_max:.0f} are allowed")
    return expires_at


def _time(name: str, value: Any) -> float:
    """Return a NumericDate (RFC 7519, section 2). The type is compared, as a boolean is a number for Python."""
    if type(value) not in (int, float) or not 0 <= value <= _TIME_MAX:
        raise UntrustedError(f"{name} is not a number from 0 to 2^53")
    return float(value)


def _subject(value: str) -> str:
    """Return the `sub` of a token, which access records contain."""
    if len(value) > SUBJECT_CHARS_MAX:
        raise UntrustedError("sub is too long")
    if not value.isprintable():
        raise UntrustedError("sub has characters that cannot be printed")
    return value


def _mandate(config: IssuerConfig, payload: dict[str, Any]) -> tuple[Role, str | None]:
    """Return role and tenant of a token. Raises `UntrustedError` where its issuer may not grant them."""
    try:
        role = Role(str(payload.get(config.role_claim)))
    except ValueError:
        raise UntrustedError("no role, or an unknown one") from None
    if role is Role.VIEWER:
        raise UntrustedError("the role viewer, which is that of viewer tokens")
    tenant = payload.get(config.tenant_claim)
    if role is Role.PLATFORM:
        if not config.platform or tenant is not None:
            raise UntrustedError("issuer may not speak for the platform, or the token names a tenant beside it")
        return role, None
    if not isinstance(tenant, str):
        raise UntrustedError("no tenant")
    if not _bound(config, tenant):
        raise UntrustedError(
            "issuer is not bound to the tenant", tenant=tenant, subject=_subject(str(payload["sub"])), issuer=config.issuer
        )
    return role, tenant


def _bound(config: IssuerConfig, tenant: str) -> bool:
    """Return whether an issuer may speak for this tenant."""
    return tenant in config.tenants or ("*" in config.tenants and tenant != PLATFORM_TENANT)


def _part(text: str, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, RecursionError):
        raise UntrustedError("malformed") from None


def _verified_payload(token: str, algorithm: str, key: Key) -> dict[str, Any]:
    try:
        verified = jws.deserialize_compact(token, key, registry=jws.JWSRegistry(algorithms=[algorithm]))
        payload = msgspec.json.decode(verified.payload or b"", type=dict[str, Any])
    except Exception as error:  # noqa: BLE001 - whatever header the library stumbles over, the token is not verified
        raise UntrustedError(f"signature: {error!r}"[:300]) from None
    return payload


def _reader(config: IssuerConfig, fetch: Fetch, folder: Path) -> Callable[[], Awaitable[bytes]]:
    if config.jwks_url:
        return lambda: fetch(config.jwks_url)
    return lambda: asyncio.to_thread(_read_file, folder / config.jwks_file)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(KEY_SET_BYTES_MAX + 1)  # one byte more shows that the file is too large


def load_issuers(
    path: str,
    *,
    fetch: Fetch,
    token_seconds_max: float = TOKEN_SECONDS_MAX,
    unreachable_seconds_max: float = UNREACHABLE_SECONDS_MAX,
    now: Callable[[], float] = time.time,
) -> Issuers:
    """Load the issuers from a file; none where `path` is empty. The limits are those of `Issuers`. Raises `misconfigured`."""
    if not path:
        return Issuers([], fetch=fetch, now=now)
    try:
        configs = msgspec.json.decode(Path(path).read_bytes(), type=list[IssuerConfig])
    except OSError as error:
        raise DecklogError(Code.MISCONFIGURED, f"The issuers file cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DecklogError(Code.MISCONFIGURED, f"The issuers file is not valid: {error}.") from None
    for config in configs:
        if bool(config.jwks_file) is bool(config.jwks_url):
            raise DecklogError(
                Code.MISCONFIGURED, f"Issuer {config.issuer!r} must have either jwks_file or jwks_url in the issuers file."
            )
    if len({config.issuer for config in configs}) < len(configs):
        raise DecklogError(Code.MISCONFIGURED, "The issuers file names an issuer twice.")
    return Issuers(
        configs,
        fetch=fetch,
        folder=Path(path).parent,
        token_seconds_max=token_seconds_max,
        unreachable_seconds_max=unreachable_seconds_max,
        now=now,
    )
