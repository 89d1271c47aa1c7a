"""The key set of an issuer (JWK set, RFC 7517): which of its keys may verify tokens, and how long they may be used.

One malformed or weak key is left out and reported, and never locks out the other keys of its issuer. Only the members that a
public key needs are ever given to the library.
"""

from __future__ import annotations

import asyncio
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from prometheus_client import Counter, Gauge

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.weak_keys import ed25519_weakness, rsa_weakness
from decklog.services.coalescing import Coalescing, shared
from decklog.services.outage import Outage

REFRESH_SECONDS_MIN = 30.0
"""Between two reads of one issuer's keys, however many tokens have unknown key ids."""
KEYS_SECONDS_MAX = 600.0
"""Age at which keys are read again, so that a withdrawn key stops working."""
UNREACHABLE_SECONDS_MAX = 4 * 3_600.0
"""Age at which keys are no longer used, unless configured: most tokens that an issuer signed have expired by then."""
KEY_SET_BYTES_MAX = 256 * 1024
KEYS_MAX = 100
KEY_ID_CHARS_MAX = 256
MEMBER_CHARS_MAX = 2_048
"""Characters of one member of a key; the modulus of the largest accepted RSA key has 1,366."""

USABLE = Gauge("decklog_issuer_keys", "Keys of an issuer that verify tokens.", ["issuer"])
SKIPPED = Gauge(
    "decklog_issuer_keys_skipped", "Keys of an issuer that are not used, by reason; the log names each.", ["issuer", "reason"]
)
READ = Gauge(
    "decklog_issuer_keys_read_timestamp_seconds",
    "Time of the last successful read of an issuer's keys, in seconds since 1970.",
    ["issuer"],
)
FAILURES = Counter(
    "decklog_issuer_key_read_failures_total", "Failed reads of an issuer's keys, which are tried again.", ["issuer"]
)

_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members that only a private or a symmetric key has."""
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_BASE64URL = re.compile(rf"[A-Za-z0-9_-]{{1,{MEMBER_CHARS_MAX}}}")
"""Values of members, the names of curves among them. Decoders differ in what they make of other characters."""
_EXPECTED = frozenset({"purpose", "unsupported"})
"""Reasons that a sound key set may have: keys for encryption, and algorithms that Decklog does not use."""

_log = structlog.get_logger(__name__)


class Skipped(msgspec.Struct, frozen=True):
    """A key that is not used. `reason` is one word of a fixed list, `why` a sentence for the log."""

    kid: str | None
    reason: str
    why: str


class SkippedError(Exception):
    """One key cannot be used."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason
        self.why = why


class KeySet(msgspec.Struct, frozen=True):
    """The usable keys of an issuer, by algorithm and key id, and those that were left out."""

    keys: dict[tuple[str, str | None], Key]
    skipped: list[Skipped]


class _Document(msgspec.Struct):
    keys: list[Any]


def read_key_set(raw: bytes) -> KeySet:
    """Return the keys of a JWK set. Raises ValueError if it is no such set, or larger than allowed."""
    if len(raw) > KEY_SET_BYTES_MAX:
        raise ValueError(f"more than {KEY_SET_BYTES_MAX} bytes")
    try:
        found = msgspec.json.decode(raw, type=_Document).keys
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if len(found) > KEYS_MAX:
        raise ValueError(f"more than {KEYS_MAX} keys")
    keys: dict[tuple[str, str | None], Key] = {}
    skipped: list[Skipped] = []
    for data in found:
        try:
            algorithm, kid, key = _usable(data)
            if (algorithm, kid) in keys:
                raise SkippedError("duplicate", "an earlier key has the same algorithm and key id")
        except SkippedError as error:
            skipped.append(Skipped(_shown(data), error.reason, error.why))
        else:
            keys[algorithm, kid] = key
    _name_single(keys)
    return KeySet(keys, skipped)


def _name_single(keys: dict[tuple[str, str | None], Key]) -> None:
    """Let a token without `kid` mean the only key of its algorithm."""
    for algorithm in {algorithm for algorithm, _ in keys}:
        alone = [key for (fits, _), key in keys.items() if fits == algorithm]
        if len(alone) == 1:
            keys[algorithm, None] = alone[0]


def _shown(data: Any) -> str | None:
    """Return the id of a key for the log, cut, and None where it has none."""
    kid = data.get("kid") if isinstance(data, dict) else None
    return kid[:KEY_ID_CHARS_MAX] if isinstance(kid, str) else None


def _usable(data: Any) -> tuple[str, str | None, Key]:
    """Return the algorithm, the id and the verification key of a JWK. Raises `SkippedError`."""
    if not isinstance(data, dict):
        raise SkippedError("malformed", "a key is not an object")
    kid, kind = data.get("kid"), data.get("kty")
    if not (kid is None or (isinstance(kid, str) and len(kid) <= KEY_ID_CHARS_MAX)):
        raise SkippedError("malformed", f"kid is not a text of at most {KEY_ID_CHARS_MAX} characters")
    if private := sorted(_PRIVATE & data.keys()):
        raise SkippedError("private", f"it has members of a private or symmetric key: {', '.join(private)}")
    if not isinstance(kind, str) or kind not in _MEMBERS:
        raise SkippedError("unsupported", "kty is not one of RSA, EC, OKP")
    _check_purpose(data)
    algorithm, key = _loaded(kind, data)
    if data.get("alg", algorithm) != algorithm:
        raise SkippedError("unsupported", f"alg is not {algorithm}, the one that Decklog uses such a key with")
    return algorithm, kid, key


def _check_purpose(data: dict[str, Any]) -> None:
    if data.get("use", "sig") != "sig":
        raise SkippedError("purpose", "use is not sig")
    operations = data.get("key_ops")
    if operations is None:
        return
    if not isinstance(operations, list):
        raise SkippedError("malformed", "key_ops is not a list")
    if "verify" not in operations:
        raise SkippedError("purpose", "key_ops has no verify")


def _loaded(kind: str, data: dict[str, Any]) -> tuple[str, Key]:
    """Return the one algorithm of a public key, and the key. Raises `SkippedError`."""
    members: dict[str, str] = {"kty": kind}
    for name in _MEMBERS[kind]:
        value = data.get(name)
        if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
            raise SkippedError("malformed", f"{name} is not a text of 1 to {MEMBER_CHARS_MAX} characters of base64url")
        members[name] = value
    try:
        return _LOAD[kind](members)
    except SkippedError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the library raises for a key, only that key is left out
        raise SkippedError("malformed", f"it is not a key of its type ({type(error).__name__})") from None


def _rsa(members: dict[str, str]) -> tuple[str, Key]:
    # The library may refuse or even warn of a weak key, so the numbers are judged first.
    _refuse_weak(rsa_weakness(_number(members["n"]), _number(members["e"])))
    return "RS256", RSAKey.import_key({**members})


def _ec(members: dict[str, str]) -> tuple[str, Key]:
    if members["crv"] != "P-256":
        raise SkippedError("unsupported", "crv is not P-256")
    return "ES256", ECKey.import_key({**members})


def _okp(members: dict[str, str]) -> tuple[str, Key]:
    if members["crv"] != "Ed25519":
        raise SkippedError("unsupported", "crv is not Ed25519")
    _refuse_weak(ed25519_weakness(_bytes(members["x"])))
    return "EdDSA", OKPKey.import_key({**members})


_LOAD: dict[str, Callable[[dict[str, str]], tuple[str, Key]]] = {"RSA": _rsa, "EC": _ec, "OKP": _okp}


def _refuse_weak(weakness: str | None) -> None:
    if weakness is not None:
        raise SkippedError("weak", weakness)


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(text: str) -> int:
    return int.from_bytes(_bytes(text), "big")


class IssuerKeys:
    """The keys of one issuer, as they were read last.

    Args:
        issuer: Its name, for the log and metrics.
        read: Returns the key set; raises OSError.
        seconds_max: Age at which keys are no longer used, because the issuer could not be reached since.
        monotonic: Returns seconds that never jump.
    """

    def __init__(
        self, issuer: str, read: Callable[[], Awaitable[bytes]], *, seconds_max: float, monotonic: Callable[[], float]
    ) -> None:
        self.generation = 0
        self._issuer = issuer
        self._read = read
        self._seconds_max = seconds_max
        self._monotonic = monotonic
        self._keys: dict[tuple[str, str | None], Key] = {}
        self._raw: bytes | None = None
        self._asked = float("-inf")
        self._read_at = float("-inf")
        self._reading = False
        self._failed = False
        self._outage = Outage("issuer", "keys of an issuer cannot be read", clock=monotonic)
        self._reads: Coalescing[None, None] = Coalescing(shared(self._refresh))
        self._background: asyncio.Task[None] | None = None

    @property
    def _usable(self) -> bool:
        return self._monotonic() - self._read_at < self._seconds_max

    @property
    def _due(self) -> bool:
        return self._monotonic() - self._asked >= (REFRESH_SECONDS_MIN if self._failed else KEYS_SECONDS_MAX)

    def current(self, generation: int) -> bool:
        """Return whether the key set of this number may still be used, and need not be read again."""
        return generation == self.generation and self._usable and not self._due

    async def find(self, algorithm: str, kid: str | None) -> Key | None:
        """Return the key for a token's header, or None where a recent key set does not have it.

        An unknown key and old keys cause a read of the key set, at most one per `REFRESH_SECONDS_MIN`. While reads fail,
        a token of a known key does not wait for one.

        Raises:
            DecklogError: `issuer-unavailable` where the keys could not be read, or not for too long, so the token may be valid.
        """
        found = self._keys.get((algorithm, kid)) if self._usable else None
        if found is not None and self._failed:
            if self._due:
                self._refresh_later()
            return found
        if self._due or (found is None and (self._reading or self._monotonic() - self._asked >= REFRESH_SECONDS_MIN)):
            await self._reads(None)
            found = self._keys.get((algorithm, kid)) if self._usable else None
        if found is None and self._failed:
            raise self._unavailable()
        return found

    def _unavailable(self) -> DecklogError:
        return DecklogError(
            Code.ISSUER_UNAVAILABLE,
            "The keys of the token's issuer could not be read, so the token cannot be verified. Try again.",
            retry_after=max(1.0, self._asked + REFRESH_SECONDS_MIN - self._monotonic()),
        )

    def _refresh_later(self) -> None:
        if self._background is None or self._background.done():
            self._background = asyncio.create_task(self._reads(None), name="issuer-keys")

    async def _refresh(self, _: None) -> None:
        if self._monotonic() - self._asked < REFRESH_SECONDS_MIN:
            return  # the read that this caller waited for has just ended
        asked = self._asked = self._monotonic()
        self._reading = True
        try:
            raw = await self._read()
            if raw != self._raw:
                self._take(raw)
        except (OSError, ValueError) as error:
            # The keys at hand stay valid for a time: an issuer that cannot be reached must not lock its users out at once.
            self._failed = True
            FAILURES.labels(self._issuer).inc()
            self._outage.failed(error, issuer=self._issuer, cause=repr(error)[:300])
        else:
            self._failed, self._read_at = False, asked
            self._outage.well()
            READ.labels(self._issuer).set(time.time())
        finally:
            self._reading = False

    def _take(self, raw: bytes) -> None:
        found = read_key_set(raw)
        self._report(found)
        self._keys, self._raw = found.keys, raw
        self.generation += 1

    def _report(self, found: KeySet) -> None:
        USABLE.labels(self._issuer).set(len({id(key) for key in found.keys.values()}))
        reasons = [each.reason for each in found.skipped]
        for reason in ("duplicate", "malformed", "private", "purpose", "unsupported", "weak"):
            SKIPPED.labels(self._issuer, reason).set(reasons.count(reason))
        for each in found.skipped:
            level = _log.info if each.reason in _EXPECTED else _log.warning
            level("a key of an issuer is not used", issuer=self._issuer, kid=each.kid, reason=each.reason, why=each.why)
