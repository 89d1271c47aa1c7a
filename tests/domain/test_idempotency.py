"""The key of a request: how it is written, and the content that the key of a bulk belongs to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.idempotency import KEY_CHARS_MAX, binding, item_form, read_key
from tests.support.records import FINGERPRINT_KEY, body


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([], None),
        ([b"order-77"], "order-77"),
        ([b'"order-77"'], "order-77"),
        ([b' "a, b" '], "a, b"),
        ([rb'"say \"yes\" \\"'], 'say "yes" \\'),
        ([rb"a\b"], r"a\b"),
        ([b'a"b c'], 'a"b c'),
        ([b"x" * KEY_CHARS_MAX], "x" * KEY_CHARS_MAX),
    ],
)
def test_key_is_read_with_quotes_and_without(values: list[bytes], key: str | None) -> None:
    assert read_key(values) == key


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b'""'],
        [b'"open'],
        [b'"a" "b"'],
        [b'"k4", "k5"'],
        [b"k4, k5"],
        [b'"a";q=1'],
        [rb'"a\n"'],
        [b"caf\xc3\xa9"],
        [b"a\tb"],
        [b"x" * (KEY_CHARS_MAX + 1)],
        [b"a", b"a"],
    ],
)
def test_key_is_refused_where_two_readers_could_read_two_keys(values: list[bytes]) -> None:
    with pytest.raises(DecklogError) as caught:
        read_key(values)
    assert caught.value.code is Code.INVALID_PARAMETER
    assert caught.value.extra == {"parameter": "Idempotency-Key"}


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40))
def test_key_written_as_a_string_is_read_back(key: str) -> None:
    written = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert read_key([written.encode()]) == key


def form(raw: bytes) -> bytes:
    return item_form(raw, FINGERPRINT_KEY)


def test_form_of_an_item_is_that_of_its_value_without_secrets() -> None:
    value = {"action": "a", "actor": {"id": "x"}, "metadata": {"password": "1234", "n": 1.5, "m": [True, None]}}
    reordered = json.dumps(dict(reversed(value.items())), indent=1).encode()
    assert form(json.dumps(value).encode()) == form(reordered)
    assert form(json.dumps(value).encode()) == form(json.dumps(value).replace("1234", "9999").encode())
    assert form(json.dumps(value).encode()) != form(json.dumps(value).replace("1.5", "1.25").encode())


def test_form_of_an_item_does_not_need_a_valid_record() -> None:
    assert form(b'{"action":1}') != form(b'{"action":2}')
    assert form(b"{") == form(b"\xff") == form(b"[" * 5_000)
    assert form(b'{"a":"\\ud800"}') == form(b"{")


@given(st.lists(st.integers(0, 3), max_size=5), st.lists(st.integers(0, 3), max_size=5))
def test_binding_is_the_same_only_for_the_same_items_in_the_same_order(one: list[int], other: list[int]) -> None:
    def bound(numbers: list[int], name: str = "k") -> tuple[bytes, bytes]:
        made = binding(1, name, [form(body(message=str(number))) for number in numbers], FINGERPRINT_KEY)
        return made.key, made.content

    assert (bound(one) == bound(other)) == (one == other)
    assert bound(one)[0] != bound(one, "other")[0]
    assert bound(one)[1] == bound(one, "other")[1]
