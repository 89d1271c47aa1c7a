"""The key that makes a request safe to repeat (`Idempotency-Key`): how it is written, and the content that the key of a bulk belongs to.

Source of the syntax: draft-ietf-httpapi-idempotency-key-header, where the key is a String of RFC 8941.
"""

from __future__ import annotations

import hmac
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.privacy.masking import mask
from decklog.domain.records.canonical import canonical

HEADER: Final = "Idempotency-Key"
KEY_CHARS_MAX: Final = 240
"""Characters of a key: with `/9999` it must still fit a record's id."""
_QUOTED: Final = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"')
"""A String of RFC 8941, section 3.3.3."""
_BARE: Final = re.compile(rb"[!#-+\--~](?:[ -+\--~]*[!-+\--~])?")
"""A key without quotes: printable ASCII, no comma, by which a proxy joins two headers, and no quote in front."""
_ESCAPED: Final = re.compile(rb'\\(["\\])')
_FORM_BYTES: Final = 16
_value: Final = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode()))
"""Floats stay as they are written: a client that repeats a request writes them alike, and their conversion takes most of the time."""


class KeyBinding(msgspec.Struct, frozen=True):
    """The key of a bulk and the content that it belongs to, each as 16 bytes of an HMAC, so neither can be read from storage."""

    tenant_id: int
    key: bytes
    content: bytes


def read_key(values: Sequence[bytes]) -> str | None:
    """Return the key that a request sends, without quotes; None if it sends none.

    Args:
        values: The header's values, one for each time that the request has it.

    Raises:
        DecklogError: `invalid-parameter`.
    """
    if not values:
        return None
    if len(values) > 1:
        raise _invalid(f"has {len(values)} values, and a request has one key. Send the header once.")
    value = values[0].strip(b" \t")
    if quoted := _QUOTED.fullmatch(value):
        key = _ESCAPED.sub(rb"\1", quoted[1])
    elif _BARE.fullmatch(value):
        key = value
    else:
        raise _invalid(
            'must be printable ASCII in double quotes, in which \\" and \\\\ stand for a quote and a backslash, as in "order-77". '
            "The quotes may be absent where the key has no comma and does not begin with a quote."
        )
    if not 1 <= len(key) <= KEY_CHARS_MAX:
        raise _invalid(f"must have 1 to {KEY_CHARS_MAX} characters, and has {len(key)}.")
    return key.decode("ascii")


def _invalid(why: str) -> DecklogError:
    return DecklogError(Code.INVALID_PARAMETER, f"{HEADER} {why}", extra={"parameter": HEADER})


def key_reused() -> DecklogError:
    """Return the refusal of a bulk whose key belongs to a bulk with other content."""
    return DecklogError(
        Code.IDEMPOTENCY_KEY_REUSED,
        f"The {HEADER} belongs to a bulk with other content, so nothing of this one was stored. Send the same items in the same order "
        "to repeat that bulk, or use a new key for a new bulk.",
    )


def item_form(raw: bytes | memoryview | msgspec.Raw, key: bytes) -> bytes:
    """Return what recognises one item of a bulk: 16 bytes of an HMAC-SHA-256 of its JSON in canonical form, with secrets masked.

    The form does not depend on whether the item is valid, because an item that was refused may be valid when the bulk is repeated: a
    limit was raised, or a clock was corrected. All items that are not JSON have the same form.
    """
    try:
        written = canonical(mask(_value.decode(bytes(raw).removeprefix(BOM_UTF8)), "", []))
    except (msgspec.DecodeError, ValueError, RecursionError):
        written = b""
    return hmac.digest(key, written, "sha256")[:_FORM_BYTES]


def binding(tenant_id: int, name: str, forms: Iterable[bytes], key: bytes) -> KeyBinding:
    """Return the binding of the key `name` to a bulk whose items have these forms, in their order."""
    written = b"".join(forms)
    return KeyBinding(
        tenant_id,
        hmac.digest(key, b"key:" + name.encode(), "sha256")[:_FORM_BYTES],
        hmac.digest(key, b"content:" + written, "sha256")[:_FORM_BYTES],
    )
