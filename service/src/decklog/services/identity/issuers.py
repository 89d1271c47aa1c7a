"""JSON Web Tokens (RFC 7519): the trusted issuers, the tenants each may speak for, and the verification of tokens.

Only EdDSA (Ed25519), ES256 (P-256) and RS256 (2048 bits and more) are supported, and each key fits exactly one of them,
so neither `none` nor a public key used as an HMAC secret can verify. Keys come from a file or an address that an
operator configured, never from a token's header.
"""

from __future__ import annotations

import asyncio
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
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jwt import JWTClaimsRegistry
from msgspec import Meta

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.tenant import PLATFORM_TENANT
from decklog.services.coalescing import Coalescing, shared

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns the bytes at an address; raises OSError. Injected, so that this module does no network I/O."""

LEEWAY_SECONDS = 30
"""Largest accepted difference between the clocks of issuer and service."""
REFRESH_SECONDS_MIN = 30.0
"""Between two reads of one issuer's keys, however many tokens have unknown key ids."""
KEYS_SECONDS_MAX = 600.0
"""Age at which keys are read again, so that a withdrawn key stops working."""
KEY_SET_BYTES_MAX = 256 * 1024
KEYS_MAX = 100
RSA_BITS_MIN = 2_048
RSA_BITS_MAX = 8_192
SUBJECT_CHARS_MAX = 512

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
    """The token is not valid. `reason` is for the log only."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_T = TypeVar("_T")


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    typ: str | None = None


class _Issued(msgspec.Struct):
    iss: str


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def _fits(key: Key) -> str | None:
    """Return the one algorithm that this key may be used with, or None."""
    if isinstance(key, RSAKey):
        return "RS256" if RSA_BITS_MIN <= key.public_key.key_size <= RSA_BITS_MAX else None
    if isinstance(key, ECKey):
        return "ES256" if key.curve_name == "P-256" else None
    if isinstance(key, OKPKey):
        return "EdDSA" if key.curve_name == "Ed25519" else None
    return None


_IMPORT: dict[str, Callable[[dict[str, Any]], Key]] = {
    "RSA": RSAKey.import_key,
    "EC": ECKey.import_key,
    "OKP": OKPKey.import_key,
}


def _usable(data: dict[str, Any]) -> tuple[str, Key] | None:
    """Return the algorithm of a JWK and its verification key; None for symmetric, private, weak and other-purpose keys."""
    load = _IMPORT.get(str(data.get("kty")))
    if load is None or "d" in data or data.get("use", "sig") != "sig":
        return None
    operations = data.get("key_ops")
    if operations is not None and "verify" not in operations:
        return None
    try:
        key = load(data)
        algorithm = _fits(key)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if algorithm is None or data.get("alg", algorithm) != algorithm:
        return None
    return algorithm, key


class _Issuer:
    """One issuer, and its keys as they were read last."""

    def __init__(self, config: IssuerConfig, read: Callable[[], Awaitable[bytes]], monotonic: Callable[[], float]) -> None:
        self.config = config
        self.generation = 0
        self._read = read
        self._monotonic = monotonic
        self._keys: dict[tuple[str, str | None], Key] = {}
        self._raw = b""
        self._asked = float("-inf")
        self._reads: Coalescing[None, None] = Coalescing(shared(self._refresh))

    async def key(self, algorithm: str, kid: str | None) -> Key | None:
        """Return the key for a token's header, or None.

        An unknown key and old keys cause a read of the key set, at most one per `REFRESH_SECONDS_MIN`.
        """
        found = self._keys.get((algorithm, kid))
        age = self._monotonic() - self._asked
        if (found is None and age >= REFRESH_SECONDS_MIN) or age >= KEYS_SECONDS_MAX:
            await self._reads(None)
            found = self._keys.get((algorithm, kid))
        return found

    async def _refresh(self, _: None) -> None:
        if self._monotonic() - self._asked < REFRESH_SECONDS_MIN:
            return  # the read that this caller waited for has just ended
        self._asked = self._monotonic()
        try:
            raw = await self._read()
            if len(raw) > KEY_SET_BYTES_MAX:
                raise ValueError(f"more than {KEY_SET_BYTES_MAX} bytes")
            if raw != self._raw:
                self._take(raw)
        except (OSError, ValueError) as error:
            # The keys at hand stay valid: an issuer that cannot be reached must not lock its users out at once.
            _log.warning("keys of an issuer cannot be read", issuer=self.config.issuer, cause=repr(error))

    def _take(self, raw: bytes) -> None:
        found = msgspec.json.decode(raw, type=_KeySet).keys
        if len(found) > KEYS_MAX:
            raise ValueError(f"more than {KEYS_MAX} keys")
        usable = [(item, data) for data in found if (item := _usable(data)) is not None]
        keys: dict[tuple[str, str | None], Key] = {}
        for (algorithm, key), data in usable:
            kid = data.get("kid")
            keys[algorithm, kid if isinstance(kid, str) else None] = key
        for algorithm in self.config.algorithms:
            alone = [key for (fits, key), _ in usable if fits == algorithm]
            if len(alone) == 1:
                keys.setdefault((algorithm, None), alone[0])  # a token without `kid` means the only key
        if len(usable) < len(found):
            _log.warning("keys of an issuer were left out", issuer=self.config.issuer, left_out=len(found) - len(usable))
        self._keys, self._raw = keys, raw
        self.generation += 1


class Issuers:
    """All trusted issuers. `now` returns seconds since 1970, `monotonic` seconds that never jump."""

    def __init__(
        self,
        configs: Sequence[IssuerConfig],
        *,
        fetch: Fetch,
        folder: Path | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._issuers = {
            config.issuer: _Issuer(config, _reader(config, fetch, folder or Path()), monotonic) for config in configs
        }

    def current(self, claims: Claims) -> bool:
        """Return whether the issuer still has the key set that verified these claims."""
        issuer = self._issuers.get(claims.issuer)
        return issuer is not None and issuer.generation == claims.generation

    async def verify(self, token: str) -> Claims:
        """Verify a token and return its claims. Raises `UntrustedError`."""
        parts = token.split(".")
        if len(parts) != 3 or not token.isascii():
            raise UntrustedError("not a signed JWT in compact form")
        header = _part(parts[0], _Header)
        issuer = self._issuers.get(_part(parts[1], _Issued).iss)
        if issuer is None:
            raise UntrustedError("unknown issuer")
        if header.alg not in issuer.config.algorithms:
            raise UntrustedError("algorithm not allowed")
        if header.typ is not None and header.typ.lower().removeprefix("application/") not in _TYPES:
            raise UntrustedError("not an access token")
        key = await issuer.key(header.alg, header.kid)
        if key is None:
            raise UntrustedError("unknown key id")
        return self._claims(issuer, _verified_payload(token, header.alg, key))

    def _claims(self, issuer: _Issuer, payload: dict[str, Any]) -> Claims:
        config = issuer.config
        checks = JWTClaimsRegistry(
            now=int(self._now()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": config.issuer},
            aud={"essential": True, "value": config.audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            checks.validate(payload)
        except JoseError as error:
            raise UntrustedError(f"claims: {error}") from None
        if len(payload["sub"]) > SUBJECT_CHARS_MAX:
            raise UntrustedError("subject too long")
        role, tenant = _mandate(config, payload)
        return Claims(
            issuer=config.issuer,
            subject=payload["sub"],
            role=role,
            tenant=tenant,
            expires_at=float(payload["exp"]) + LEEWAY_SECONDS,
            generation=issuer.generation,
        )


def _mandate(config: IssuerConfig, payload: dict[str, Any]) -> tuple[Role, str | None]:
    """Return role and tenant of a token. Raises `UntrustedError` where its issuer may not grant them."""
    try:
        role = Role(str(payload.get(config.role_claim)))
    except ValueError:
        raise UntrustedError("no role, or an unknown one") from None
    tenant = payload.get(config.tenant_claim)
    if role is Role.PLATFORM:
        if not config.platform or tenant is not None:
            raise UntrustedError("issuer may not speak for the platform, or the token names a tenant beside it")
        return role, None
    if not isinstance(tenant, str):
        raise UntrustedError("no tenant")
    if tenant not in config.tenants and ("*" not in config.tenants or tenant == PLATFORM_TENANT):
        raise UntrustedError("issuer is not bound to the tenant")
    return role, tenant


def _part(text: str, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, RecursionError):
        raise UntrustedError("malformed") from None


def _verified_payload(token: str, algorithm: str, key: Key) -> dict[str, Any]:
    try:
        verified = jws.deserialize_compact(token, key, registry=jws.JWSRegistry(algorithms=[algorithm]))
        payload = msgspec.json.decode(verified.payload or b"", type=dict[str, Any])
    except (JoseError, ValueError, RecursionError) as error:
        raise UntrustedError(f"signature: {error!r}") from None
    if "crit" in verified.headers() or "b64" in verified.headers():
        raise UntrustedError("critical header")
    return payload


def _reader(config: IssuerConfig, fetch: Fetch, folder: Path) -> Callable[[], Awaitable[bytes]]:
    if config.jwks_url:
        return lambda: fetch(config.jwks_url)
    return lambda: asyncio.to_thread((folder / config.jwks_file).read_bytes)


def load_issuers(path: str, *, fetch: Fetch, now: Callable[[], float] = time.time) -> Issuers:
    """Load the issuers from a file; none where `path` is empty. Raises `misconfigured`."""
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
    return Issuers(configs, fetch=fetch, folder=Path(path).parent, now=now)
