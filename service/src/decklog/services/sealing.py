"""Texts that clients carry and must neither read nor change: encrypted and authenticated by a key of this service.

Every key is derived from one secret by HKDF (RFC 5869) with a purpose of its own, so that what is made for one purpose is useless for
another.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE_BYTES = 12
_BLOCK_CHARS = 64
"""Texts are padded to a multiple of this: the length of a number says how large it is."""
_SEALED_CHARS_MAX = 1_024


def derived_key(secret: str, purpose: str) -> bytes:
    """Return the key of 32 bytes for one purpose."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"decklog {purpose}".encode()).derive(secret.encode())


class Sealing:
    """Seals texts for one purpose. Without a key it makes one of its own, so that no other process opens what it seals."""

    def __init__(self, key: bytes | None = None) -> None:
        self._cipher = AESGCM(key or secrets.token_bytes(KEY_BYTES))

    def seal(self, text: str, owner: int) -> str:
        """Return a text that only `opened` reads, with the same owner. Equal texts are sealed to different ones."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        padded = text.encode() + b"\0" * (-len(text.encode()) % _BLOCK_CHARS)
        return urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, padded, b"%d" % owner)).decode().rstrip("=")

    def opened(self, sealed: str, owner: int) -> str | None:
        """Return the text that was sealed for this owner, None for anything else."""
        if len(sealed) > _SEALED_CHARS_MAX or not sealed.isascii():
            return None
        try:
            raw = urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], b"%d" % owner).rstrip(b"\0").decode()
        except (ValueError, InvalidTag):
            return None
