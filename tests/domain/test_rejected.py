"""What is kept of rejected records: their JSON as sent, without secrets."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from decklog.domain.privacy.masking import MASK, mask
from decklog.domain.records.record import decode, prepare
from decklog.domain.records.rejected import CONTENT_BYTES_MAX, kept_form, sent_form
from tests.support.json_values import values
from tests.support.records import FINGERPRINT_KEY, body

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_kept_form_is_what_was_sent_without_secrets() -> None:
    raw = b'{ "b": 1.50, "a" :[1E400, 12345678901234567890123, true,null], "a": "twice", "password":{"x":"p","n":[5,null,true]}}'
    assert kept_form(raw) == (
        b'{"b":1.50,"a":[1E400,12345678901234567890123,true,null],"a":"twice",'
        b'"password":{"x":"[masked]","n":["[masked]",null,true]}}'
    )


def test_kept_form_masks_a_secret_beside_another_member_of_its_name() -> None:
    assert kept_form(b'{"metadata":{"apiKey":"one","apiKey":"two"}}') == b'{"metadata":{"apiKey":"[masked]","apiKey":"[masked]"}}'


def test_kept_form_can_be_stored_as_text() -> None:
    kept = kept_form(b'\xef\xbb\xbf{"a":"\\ud800 \\u0000 \xc3\xa9"}')
    assert kept == b'{"a":"\\ud800 \\u0000 \\u00e9"}'


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff", b'{"password":"open', b"[NaN]", b"[" * 5_000 + b"]" * 5_000, b'"' + b"x" * CONTENT_BYTES_MAX + b'"'],
    ids=range(7),
)
def test_what_is_not_json_or_too_large_is_not_kept(raw: bytes) -> None:
    assert kept_form(raw) is None


@given(values)
def test_kept_form_is_the_masked_value(value: Any) -> None:
    kept = kept_form(json.dumps({"v": value}).encode())
    assert kept is not None
    assert json.loads(kept) == mask({"v": value}, "", [])
    assert kept_form(kept) == kept


def test_sent_form_of_a_record_has_no_member_of_the_server() -> None:
    raw = body(
        id="x", metadata={"password": "p", "n": 1.5}, occurred_at="2026-01-01T00:00:00Z", severity="INFO", outcome="success"
    )
    prepared = prepare(decode(raw), now=NOW, fingerprint_key=FINGERPRINT_KEY, recorder=b'{"id":"k","type":"api_key"}')
    sent = json.loads(sent_form(prepared.content))
    assert sent == json.loads(raw) | {"metadata": {"password": MASK, "n": 1.5}}
    again = prepare(decode(sent_form(prepared.content)), now=NOW, fingerprint_key=FINGERPRINT_KEY)
    assert again.fingerprint == prepared.fingerprint
