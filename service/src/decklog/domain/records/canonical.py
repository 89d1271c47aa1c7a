"""Canonical JSON: one sequence of bytes for each value, so that a digest identifies the value and not its spelling.

It is RFC 8785 (JSON Canonicalization Scheme) with one difference (docs/decisions/0005): integers keep their exact digits, because
RFC 8785 rounds 2^70 to a double. msgspec encodes in C. It writes floats differently, and sorts keys by code point instead of by
UTF-16 unit; such values are rewritten first.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any

import msgspec

_SORTED = msgspec.json.Encoder(order="sorted")
_AS_GIVEN = msgspec.json.Encoder()

_LAST_PLAIN = "\ud7ff"
"""Up to here, UTF-16 code units and code points have the same order."""
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that `text` in Postgres cannot hold: U+0000 and lone surrogates."""


def number(value: float) -> str:
    """Return a finite double as ECMAScript writes it (RFC 8785, 3.2.2.3): the shortest digits that read back the same.

    Raises:
        ValueError: The number is infinite or NaN.
    """
    if not math.isfinite(value):
        raise ValueError("JSON has no infinity and no NaN")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # `point`: digits before the decimal point, counted from the first significant digit.
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    power = f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return sign + digits[0] + ("." + digits[1:] if count > 1 else "") + power


def in_plain_order(key: str) -> bool:
    """Return whether msgspec sorts this key of an object as RFC 8785 does."""
    return key.isascii() or max(key) <= _LAST_PLAIN


def _needs_rewriting(value: Any) -> bool:
    if isinstance(value, float):
        return True
    if isinstance(value, dict):
        return any(not in_plain_order(key) or _needs_rewriting(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(_needs_rewriting, value))
    return False


def _rewritten(value: Any) -> Any:
    if isinstance(value, float):
        return msgspec.Raw(number(value).encode())
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return {key: _rewritten(value[key]) for key in keys}
    if isinstance(value, list):
        return [_rewritten(item) for item in value]
    return value


def canonical(value: Any) -> bytes:
    """Return the canonical bytes of JSON made of dict, list, str, int, float, bool and None.

    Raises:
        ValueError: A number is infinite or NaN.
        UnicodeEncodeError: A string has a lone surrogate.
    """
    if _needs_rewriting(value):
        return _AS_GIVEN.encode(_rewritten(value))
    return _SORTED.encode(value)


def canonical_plain(value: Any) -> bytes:
    """Return the canonical bytes of a value without floats, with all keys `in_plain_order`; the caller must have checked both.

    Structs are allowed. A `msgspec.Raw` must be canonical already.
    """
    return _SORTED.encode(value)


def digest(content: bytes) -> bytes:
    """Return the SHA-256 of canonical bytes: 32 bytes."""
    return hashlib.sha256(content).digest()


def digest_text(value: bytes) -> str:
    """Return a digest as APIs write it: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + value.hex()
