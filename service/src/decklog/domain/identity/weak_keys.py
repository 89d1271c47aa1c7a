"""Public keys that anybody may forge signatures for, found by arithmetic that takes at most a few milliseconds.

An issuer publishes its keys, so a weak one lets any reader of the key set issue tokens. These checks find known faults of
generators; they do not prove that a key is strong.
"""

from __future__ import annotations

from math import gcd, isqrt, prod

RSA_BITS_MIN = 2_048
RSA_BITS_MAX = 8_192
"""Largest accepted modulus: the time of a verification grows with its square."""
RSA_EXPONENT_MIN = 65_537
RSA_EXPONENT_BITS_MAX = 256
"""Bounds of the public exponent (FIPS 186-5, section 5.4)."""
_FERMAT_STEPS = 64
"""Steps of Fermat's method, which finds primes that a generator took from one neighbourhood (CVE-2022-26320)."""

_PRIMES = tuple(number for number in range(3, 168) if all(number % divisor for divisor in range(2, isqrt(number) + 1)))
"""The odd primes up to 167, by which every modulus of the ROCA generator is fixed."""
_SMALL = 2 * prod(_PRIMES)
_ED25519_PRIME = 2**255 - 19
_ED25519_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
"""The y coordinate of a point of order 8, as RFC 8032 encodes it."""
_ED25519_SMALL = frozenset(
    {0, 1, _ED25519_PRIME - 1, _ED25519_PRIME, _ED25519_PRIME + 1, _ED25519_ORDER_8, _ED25519_PRIME - _ED25519_ORDER_8}
)
"""The y coordinates of all points of small order, encodings above the prime included."""


def _powers(prime: int) -> frozenset[int]:
    """Return the powers of 65537 modulo a prime."""
    found, power = set(), 1
    while power not in found:
        found.add(power)
        power = power * 65_537 % prime
    return frozenset(found)


_ROCA = {prime: _powers(prime) for prime in _PRIMES}


def rsa_weakness(modulus: int, exponent: int) -> str | None:
    """Return why an RSA public key must not be used, or None.

    The last two checks are those of CVE-2017-15361 (ROCA; Nemec et al., "The Return of Coppersmith's Attack", 2017) and of
    CVE-2022-26320 (close primes).
    """
    if not RSA_BITS_MIN <= modulus.bit_length() <= RSA_BITS_MAX:
        return f"the modulus has {modulus.bit_length()} bits, not {RSA_BITS_MIN} to {RSA_BITS_MAX}"
    if exponent % 2 == 0 or exponent < RSA_EXPONENT_MIN or exponent.bit_length() > RSA_EXPONENT_BITS_MAX:
        return f"the exponent is not an odd number from {RSA_EXPONENT_MIN} to 2^{RSA_EXPONENT_BITS_MAX}"
    if gcd(modulus, _SMALL) != 1:
        return "the modulus has a small factor"
    if all(modulus % prime in powers for prime, powers in _ROCA.items()):
        return "the modulus has the pattern of a broken generator (ROCA)"
    if _close_factors(modulus):
        return "the factors of the modulus are too close to each other"
    return None


def _close_factors(modulus: int) -> bool:
    middle = isqrt(modulus) + 1
    for candidate in range(middle, middle + _FERMAT_STEPS):
        rest = candidate * candidate - modulus
        if isqrt(rest) ** 2 == rest:
            return True
    return False


def ed25519_weakness(encoded: bytes) -> str | None:
    """Return why an Ed25519 public key (RFC 8032, 32 bytes) must not be used, or None.

    A point of small order verifies signatures that anybody can make.
    """
    if len(encoded) != 32:
        return "the key is not 32 bytes long"
    y = int.from_bytes(encoded, "little") & ((1 << 255) - 1)
    return "the point has a small order" if y in _ED25519_SMALL else None
