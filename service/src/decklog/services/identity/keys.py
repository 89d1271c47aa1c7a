"""API keys: how they are created and what is stored of them.

Apart from `identity`, so that provisioning creates keys without the libraries that verify tokens.
"""

from __future__ import annotations

import hashlib
import secrets

KEY_PREFIX = "dlk_"


def new_key() -> tuple[str, str, bytes]:
    """Return a new API key: its id, the token `dlk_<id>_<secret>` to hand out once, and the SHA-256 to store."""
    key_id = secrets.token_hex(8)
    token = f"{KEY_PREFIX}{key_id}_{secrets.token_hex(32)}"
    return key_id, token, key_hash(token)


def key_hash(token: str) -> bytes:
    """Return what the registry stores of a key: SHA-256 of the whole token, 32 bytes.

    A secret of 256 random bits needs no slow hash.
    """
    return hashlib.sha256(token.encode()).digest()
