"""The key set of an issuer: one bad key is left out alone, and keys of an issuer that cannot be reached end."""

from __future__ import annotations

import asyncio
import json
import secrets
import warnings
from base64 import urlsafe_b64encode
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, RSAKey
from structlog.testing import CapturingLogger

from decklog.domain.identity.weak_keys import ed25519_weakness, rsa_weakness
from decklog.services.identity.key_sets import (
    FAILURES,
    KEYS_SECONDS_MAX,
    REFRESH_SECONDS_MIN,
    SKIPPED,
    UNREACHABLE_SECONDS_MAX,
    read_key_set,
)
from tests.support import json_values
from tests.support.issuers import EC, ED, ISSUER, RSA, key_set, world

pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


def number(value: int) -> str:
    return urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8 or 1, "big")).rstrip(b"=").decode()


def roca_modulus() -> int:
    """A modulus with the pattern of the broken generator: a power of 65537 modulo the product of the first primes."""
    primes = [n for n in range(2, 168) if all(n % divisor for divisor in range(2, n))]
    base = prod(primes)
    return ((secrets.randbits(2048) | 1 << 2047) // base) * base + pow(65_537, secrets.randbits(64), base)


def close_modulus() -> int:
    prime = next(n for n in range(1 << 1030, (1 << 1030) + 100_000) if pow(2, n - 1, n) == 1)
    following = next(n for n in range(prime + 2, prime + 100_000) if pow(2, n - 1, n) == 1)
    return prime * following


def weak_rsa() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(RSAKey.generate_key(1024, {"kid": "weak"}).as_dict(private=False))


def public(key: Any, **members: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": "bad", **members}


MODULUS = RSA.public_key.public_numbers().n

BAD: dict[str, tuple[str, Any]] = {
    "no object": ("malformed", 7),
    "null": ("malformed", None),
    "a list": ("malformed", [["kty", "RSA"]]),
    "no members": ("unsupported", {}),
    "kty unknown": ("unsupported", {"kty": "ML-DSA", "kid": "future"}),
    "kty a number": ("unsupported", public(EC, kty=7)),
    "kty a list": ("unsupported", public(EC, kty=["EC"])),
    "key_ops a number": ("malformed", public(EC, key_ops=7)),
    "key_ops a text": ("malformed", public(EC, key_ops="verify")),
    "key_ops an object": ("malformed", public(EC, key_ops={"verify": 1})),
    "key_ops of another purpose": ("purpose", public(EC, key_ops=["encrypt"])),
    "use of another purpose": ("purpose", public(EC, use="enc")),
    "use a number": ("purpose", public(EC, use=7)),
    "kid a number": ("malformed", public(EC, kid=7)),
    "kid too long": ("malformed", public(EC, kid="k" * 300)),
    "alg of another algorithm": ("unsupported", public(RSA, alg="RS512")),
    "alg a number": ("unsupported", public(RSA, alg=7)),
    "symmetric": ("private", {"kty": "oct", "k": "AAAA", "kid": "oct"}),
    "private": ("private", {**ECKey.generate_key("P-256").as_dict(private=True), "kid": "private"}),
    "private in part": ("private", public(RSA, p="AQAB")),
    "curve unknown": ("unsupported", public(EC, crv="P-384")),
    "curve a number": ("malformed", public(EC, crv=7)),
    "point not on the curve": ("malformed", public(EC, y=EC.as_dict(private=False)["x"])),
    "coordinate with other characters": ("malformed", public(EC, y="=+/ ")),
    "modulus of 1024 bits": ("weak", weak_rsa()),
    "modulus even": ("weak", public(RSA, n=number(MODULUS + 1))),
    "modulus of a small factor": ("weak", public(RSA, n=number(MODULUS - MODULUS % 101))),
    "modulus of the ROCA pattern": ("weak", public(RSA, n=number(roca_modulus()))),
    "modulus of close primes": ("weak", public(RSA, n=number(close_modulus()))),
    "modulus of 16384 bits": ("malformed", public(RSA, n=number(1 << 16_383 | 1))),
    "modulus of 10000 bits": ("weak", public(RSA, n=number(1 << 9_999 | 1))),
    "modulus missing": ("malformed", {"kty": "RSA", "e": "AQAB"}),
    "modulus a number": ("malformed", public(RSA, n=7)),
    "exponent 3": ("weak", public(RSA, e=number(3))),
    "exponent even": ("weak", public(RSA, e=number(65_538))),
    "exponent 1": ("weak", public(RSA, e=number(1))),
    "exponent of 300 bits": ("weak", public(RSA, e=number(1 << 299 | 1))),
    "Ed25519 of 31 bytes": ("weak", public(ED, x=urlsafe_b64encode(bytes(31)).decode().rstrip("="))),
    "Ed25519 of small order": ("weak", public(ED, x=urlsafe_b64encode(b"\1" + bytes(31)).decode().rstrip("="))),
    "duplicate key id": ("duplicate", {**ECKey.generate_key("P-256").as_dict(private=False), "kid": "ec"}),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_key_is_left_out_and_locks_out_no_other_key(name: str) -> None:
    reason, bad = BAD[name]
    async with world() as it:
        good = [key.as_dict(private=False) for key in (RSA, EC, ED)]
        it.server.body = json.dumps({"keys": [*good, bad]}).encode()
        for algorithm in ("RS256", "ES256", "EdDSA"):
            assert (await it.identity.authenticate(it.token(algorithm))).tenant == it.acme
        [skipped] = read_key_set(it.server.body).skipped
        assert (skipped.reason, bool(skipped.why)) == (reason, True)
        assert SKIPPED.labels(ISSUER, reason)._value.get() == 1


async def test_skipped_key_is_logged_with_issuer_and_key_id(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = CapturingLogger()
    monkeypatch.setattr("decklog.services.identity.key_sets._log", logged)
    async with world() as it:
        it.server.body = json.dumps({"keys": [public(EC), {**weak_rsa(), "kid": "tiny"}]}).encode()
        await it.identity.authenticate(it.token(header={"kid": "bad"}))
        [line] = [str(call) for call in logged.calls if "is not used" in str(call)]
        assert all(text in line for text in (ISSUER, "tiny", "weak", "1024 bits"))


async def test_token_of_a_key_that_was_left_out_is_refused() -> None:
    private = ECKey.generate_key("P-256", {"kid": "private"})
    async with world() as it:
        it.server.body = json.dumps({"keys": [private.as_dict(private=True), ED.as_dict(private=False)]}).encode()
        await it.refused(it.token("ES256", key=private))
        await it.refused(it.token("ES256"))
        assert (await it.identity.authenticate(it.token("EdDSA"))).tenant == it.acme


async def test_first_of_two_keys_with_one_id_is_used() -> None:
    second = ECKey.generate_key("P-256", {"kid": "ec"})
    async with world() as it:
        it.server.body = key_set(EC, second)
        assert (await it.identity.authenticate(it.token())).tenant == it.acme
        await it.refused(it.token("ES256", key=second))


@given(st.integers(0, 1 << 2_100), st.integers(0, 1 << 300))
def test_weakness_of_any_rsa_numbers_is_a_text_or_none(modulus: int, exponent: int) -> None:
    assert isinstance(rsa_weakness(modulus, exponent), str | None)


def test_generated_keys_are_not_weak() -> None:
    for _ in range(3):
        numbers = RSAKey.generate_key(2048).public_key.public_numbers()
        assert rsa_weakness(numbers.n, numbers.e) is None
    assert ed25519_weakness(ED.public_key.public_bytes_raw()) is None


def test_points_of_small_order_are_those_whose_eighth_multiple_is_neutral() -> None:
    """By the doubling of RFC 8032, section 5.1.4, on the encodings of all small y and of the points named as small."""
    prime = 2**255 - 19
    d = -121_665 * pow(121_666, -1, prime) % prime

    def is_small(y: int) -> bool:
        square = (y * y - 1) * pow(d * y * y + 1, -1, prime) % prime
        x = pow(square, (prime + 3) // 8, prime)
        x = x if x * x % prime == square else x * pow(2, (prime - 1) // 4, prime) % prime
        if x * x % prime != square:
            return False  # there is no such point
        for _ in range(3):
            product = d * x * x * y * y
            x, y = 2 * x * y * pow(1 + product, -1, prime) % prime, (y * y + x * x) * pow(1 - product, -1, prime) % prime
        return (x, y) == (0, 1)

    small = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
    for y in (*range(60), small, prime - small, *range(prime - 20, prime)):
        assert (ed25519_weakness(y.to_bytes(32, "little")) is not None) is is_small(y), y


_KEY_MEMBERS = st.sampled_from(["kty", "kid", "use", "key_ops", "alg", "n", "e", "crv", "x", "y", "d", "k", "x5c"])


@given(
    st.lists(
        json_values.values
        | st.tuples(st.sampled_from([RSA, EC, ED]), st.dictionaries(_KEY_MEMBERS, json_values.values, max_size=4)),
        max_size=4,
    )
)
def test_any_key_set_is_read_or_skipped_key_by_key(keys: list[Any]) -> None:
    document = [{**each[0].as_dict(private=False), **each[1]} if isinstance(each, tuple) else each for each in keys]
    found = read_key_set(json.dumps({"keys": document}).encode())
    assert len({id(key) for key in found.keys.values()}) + len(found.skipped) == len(document)


# Reading


async def test_issuer_keys_are_read_again_for_an_unknown_key_id_at_most_every_30_seconds() -> None:
    async with world() as it:
        await it.identity.authenticate(it.token())
        assert it.server.asked == 1
        rotated = ECKey.generate_key("P-256", {"kid": "rotated"})
        it.server.body = key_set(rotated)
        for _ in range(20):
            await it.refused(it.token("ES256", key=rotated))
        assert it.server.asked == 1
        it.uptime += 31
        tokens = [it.token("ES256", key=rotated, sub=f"user-{n}") for n in range(20)]
        principals = await asyncio.gather(*(it.identity.authenticate(token) for token in tokens))
        assert {principal.tenant for principal in principals} == {it.acme}
        assert it.server.asked == 2


async def test_issuer_keys_stay_valid_for_a_time_while_the_issuer_cannot_be_reached() -> None:
    async with world() as it:
        cached = it.token()
        await it.identity.authenticate(cached)
        failures = FAILURES.labels(ISSUER)._value.get()
        it.server.down = True
        it.uptime += KEYS_SECONDS_MAX
        assert it.identity.recognise(cached) is None
        assert (await it.identity.authenticate(it.token(sub="bob"))).subject == "bob"
        assert it.server.asked == 2
        assert FAILURES.labels(ISSUER)._value.get() == failures + 1
        it.uptime = UNREACHABLE_SECONDS_MAX - 1
        assert (await it.identity.authenticate(cached)).subject == "alice"
        it.uptime = UNREACHABLE_SECONDS_MAX
        assert it.identity.recognise(cached) is None
        assert 1 <= await it.unavailable(cached) <= REFRESH_SECONDS_MIN
        it.server.down = False
        it.uptime += REFRESH_SECONDS_MIN
        assert (await it.identity.authenticate(cached)).subject == "alice"


async def test_issuer_keys_end_after_the_configured_time() -> None:
    async with world(unreachable_seconds_max=900) as it:
        await it.identity.authenticate(it.token())
        it.server.down = True
        it.uptime = 899
        await it.identity.authenticate(it.token(sub="bob"))
        it.uptime = 900
        await it.unavailable(it.token(sub="carol"))


async def test_token_of_a_known_key_does_not_wait_for_an_issuer_that_does_not_answer() -> None:
    async with world() as it:
        await it.identity.authenticate(it.token())
        it.server.down = True
        it.uptime = KEYS_SECONDS_MAX
        await it.identity.authenticate(it.token(sub="bob"))
        it.server.down, it.server.hangs = False, True
        it.uptime += REFRESH_SECONDS_MIN
        async with asyncio.timeout(5):
            for number in range(20):
                await it.identity.authenticate(it.token(sub=f"user-{number}"))
        assert it.server.asked <= 3


async def test_token_waits_for_the_first_read_of_its_issuer_that_another_began() -> None:
    async with world() as it:
        it.server.hangs = True
        first = asyncio.create_task(it.identity.authenticate(it.token()))
        while not it.server.asked:
            await asyncio.sleep(0)
        second = asyncio.create_task(it.identity.authenticate(it.token(sub="bob")))
        await asyncio.sleep(0)
        it.server.hangs = False
        it.server.goes_on.set()
        assert [principal.subject for principal in await asyncio.gather(first, second)] == ["alice", "bob"]
        assert it.server.asked == 1


async def test_token_is_not_judged_before_the_keys_of_its_issuer_were_read() -> None:
    async with world() as it:
        it.server.down = True
        for _ in range(20):
            assert 1 <= await it.unavailable(it.token()) <= REFRESH_SECONDS_MIN
        assert it.server.asked == 1
        it.server.down = False
        it.uptime += REFRESH_SECONDS_MIN
        assert (await it.identity.authenticate(it.token())).tenant == it.acme


async def test_token_of_an_unknown_key_is_not_judged_while_its_issuer_cannot_be_reached() -> None:
    rotated = ECKey.generate_key("P-256", {"kid": "rotated"})
    async with world() as it:
        await it.identity.authenticate(it.token())
        await it.refused(it.token("ES256", key=rotated))
        it.server.down = True
        it.uptime += REFRESH_SECONDS_MIN
        await it.unavailable(it.token("ES256", key=rotated))
        await it.refused(it.token("ES256", key=ECKey.generate_key("P-256", {"kid": "ec"})))


async def test_withdrawn_key_ends_tokens_that_are_cached() -> None:
    async with world() as it:
        token = it.token()
        await it.identity.authenticate(token)
        it.server.body = key_set(ED)
        assert it.identity.recognise(token) is not None
        it.uptime += KEYS_SECONDS_MAX
        assert it.identity.recognise(token) is None
        await it.refused(token)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"keys": 7}', b'{"keys":[' + b"{}," * 200 + b"{}]}", b" " * 300_000, b'{"keys":' + b"[" * 9_000],
    ids=range(7),
)
async def test_broken_key_set_verifies_no_token_and_leaves_the_keys_of_before(body: bytes) -> None:
    async with world() as it:
        it.server.body, good = body, it.server.body
        await it.unavailable(it.token())
        it.server.body = good
        it.uptime += REFRESH_SECONDS_MIN
        await it.identity.authenticate(it.token())
        it.server.body = body
        it.uptime += KEYS_SECONDS_MAX
        assert (await it.identity.authenticate(it.token(sub="bob"))).subject == "bob"


@pytest.mark.parametrize("body", [b'{"keys": []}', b'{"keys": [7]}'])
async def test_key_set_without_a_usable_key_refuses_every_token(body: bytes) -> None:
    async with world() as it:
        it.server.body = body
        await it.refused(it.token())


async def test_key_file_above_the_limit_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(key_set(EC) + b" " * 300_000)
    async with world(jwks_url="", jwks_file=str(tmp_path / "keys.json")) as it:
        await it.unavailable(it.token())
