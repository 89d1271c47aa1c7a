"""API keys as they are made and stored. Apart from `identity`, which knows other credentials, too, and needs more for them
than whoever only makes keys."""

from __future__ import annotations

import hashlib
import secrets

KEY_PREFIX = "dlk_"


def new_key() -> tuple[str, str, bytes]:
    """A fresh API key: its id, the token `dlk_<id>_<secret>` to hand out once, and the SHA-256 to store."""
    key_id = secrets.token_hex(8)
    token = f"{KEY_PREFIX}{key_id}_{secrets.token_hex(32)}"
    return key_id, token, key_hash(token)


def key_hash(token: str) -> bytes:
    """What the registry stores of a key: SHA-256 of the whole token, 32 bytes. 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode()).digest()
