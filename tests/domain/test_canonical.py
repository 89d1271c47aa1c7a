"""Canonical JSON is RFC 8785, by its own examples, with integers kept exact."""

from __future__ import annotations

import hashlib
import math
import random
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.records.canonical import canonical, canonical_plain, digest, digest_text, in_plain_order, number
from tests.support.json_values import floats, objects, respelled, texts, values

# RFC 8785, appendix B: the bits of a double and its serialisation.
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


def double(bits: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(bits))[0])


@pytest.mark.parametrize(("bits", "text"), NUMBERS)
def test_number_writes_doubles_as_rfc_8785_does(bits: str, text: str) -> None:
    assert number(double(bits)) == text
    assert canonical({"x": double(bits)}) == f'{{"x":{text}}}'.encode()


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_number_rejects_infinity_and_nan(bits: str) -> None:
    with pytest.raises(ValueError, match="infinity"):
        canonical({"x": [double(bits)]})


def test_canonical_reproduces_the_example_of_rfc_8785() -> None:
    sent = rb"""{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"""
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical(msgspec.json.decode(sent)) == expected.encode()


def test_canonical_sorts_keys_by_utf_16_code_units() -> None:
    sent = rb"""{
      "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
      "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"
    }"""
    written = msgspec.json.decode(canonical(msgspec.json.decode(sent)))
    assert list(written.values()) == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]


def test_canonical_sorts_keys_of_objects_in_arrays() -> None:
    assert canonical([{"\U0001f600": 1, "\ufb33": 2}]) == '[{"\U0001f600":1,"\ufb33":2}]'.encode()


def test_canonical_escapes_only_what_json_requires() -> None:
    controls = "".join(map(chr, range(0x20)))
    expected = "".join({8: r"\b", 9: r"\t", 10: r"\n", 12: r"\f", 13: r"\r"}.get(i, f"\\u{i:04x}") for i in range(0x20))
    assert canonical(controls).decode() == f'"{expected}"'
    assert canonical('"\\/\x7f\u2028é\U0001f600').decode() == '"\\"\\\\/\x7f\u2028é\U0001f600"'


@given(st.integers(min_value=-(10**4_000), max_value=10**4_000))
@settings(deadline=None)
def test_canonical_keeps_every_digit_of_integers(value: int) -> None:
    assert canonical({"n": value}) == f'{{"n":{value}}}'.encode()
    assert msgspec.json.decode(canonical({"n": value})) == {"n": value}


def test_canonical_does_not_round_integers_beyond_doubles() -> None:
    assert canonical(2**70) == b"1180591620717411303424"
    assert canonical(float(2**70)) == b"1.1805916207174113e+21"


@given(floats)
@settings(deadline=None)
def test_canonical_double_reads_back_as_itself(value: float) -> None:
    text = number(value)
    assert float(text) == value
    assert "E" not in text
    assert not text.endswith(".0")
    assert ("e" in text) == (value != 0 and not 1e-6 <= abs(value) < 1e21)


def equal(left: Any, right: Any) -> bool:
    """Equality of JSON values: a number is a number however it is spelled, true is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, float) and isinstance(right, int) and not isinstance(right, bool):
        return left == float(right)  # a double of 2^53 and more is written without a fraction
    return type(left) is type(right) and bool(left == right)


@given(values)
@settings(deadline=None)
def test_canonical_bytes_parse_to_the_same_value(value: Any) -> None:
    assert equal(value, msgspec.json.decode(canonical(value)))


@given(values)
@settings(deadline=None)
def test_canonical_form_of_canonical_bytes_is_the_same(value: Any) -> None:
    once = canonical(value)
    assert canonical(msgspec.json.decode(once)) == once


@given(objects, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_canonical_ignores_order_and_spelling(value: dict[str, Any], chance: random.Random) -> None:
    assert canonical(msgspec.json.decode(respelled(value, chance))) == canonical(value)


@given(values, values)
@settings(deadline=None)
def test_canonical_bytes_differ_for_different_values(left: Any, right: Any) -> None:
    assert (canonical(left) == canonical(right)) == equal(
        msgspec.json.decode(canonical(left)), msgspec.json.decode(canonical(right))
    )


@given(st.dictionaries(texts, texts))
@settings(deadline=None)
def test_in_plain_order_agrees_with_utf_16_order(value: dict[str, str]) -> None:
    plain = {key: item for key, item in value.items() if in_plain_order(key)}
    assert canonical_plain(plain) == canonical(plain)
    assert list(msgspec.json.decode(canonical(value))) == sorted(value, key=lambda key: key.encode("utf-16-be"))


def test_canonical_rejects_lone_surrogates() -> None:
    for value in ("\ud800", {"\udfff": 1}, {"\udfff": 1.5}, [1.5, "\ud800"]):
        with pytest.raises(UnicodeEncodeError):
            canonical(value)


def test_digest_is_sha_256_of_the_bytes() -> None:
    assert digest(b"{}") == hashlib.sha256(b"{}").digest()
    assert digest_text(digest(b"{}")) == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_number_writes_zero_without_sign() -> None:
    assert canonical([0, 0.0, -0.0]) == b"[0,0,0]"
    assert math.copysign(1, -0.0) < 0
