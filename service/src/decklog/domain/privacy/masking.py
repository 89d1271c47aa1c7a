"""Masking of secrets by the key names that hold them by convention.

Masking happens before storage, and so before hashing. Whole names are compared in their usual spellings (`apiKey`, `api_key`,
`API-KEY`), never substrings: `nextToken` and `privateIpAddress` are not secrets. The path stays, the value is replaced, and the
record lists the masked paths.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

MASK = "[masked]"
"""The value that replaces a secret."""

_SECRET_NAMES = frozenset(
    {
        "password",
        "passwd",
        "passphrase",
        "newpassword",
        "oldpassword",
        "userpassword",
        "masteruserpassword",
        "secret",
        "clientsecret",
        "accesstoken",
        "refreshtoken",
        "idtoken",
        "sessiontoken",
        "authtoken",
        "bearertoken",
        "authorization",
        "proxyauthorization",
        "cookie",
        "setcookie",
        "apikey",
        "xapikey",
        "apisecret",
        "privatekey",
        "secretkey",
        "secretaccesskey",
        "signingkey",
        "encryptionkey",
    }
)


def _is_secret(name: str) -> bool:
    return name.replace("_", "").replace("-", "").lower() in _SECRET_NAMES


_REMEMBERED_CHARS_MAX = 64
"""Records use few distinct names. Longer ones are not cached, so the cache holds at most about 512 KiB."""
_is_secret_remembered = lru_cache(maxsize=4_096)(_is_secret)


def is_secret_name(name: str) -> bool:
    """Return whether a key of this name holds a secret by convention."""
    return _is_secret_remembered(name) if len(name) <= _REMEMBERED_CHARS_MAX else _is_secret(name)


def pointer_token(name: str) -> str:
    """Return a name as JSON pointers write it (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


def blanked(value: Any, path: str, masked: list[str]) -> Any:
    """Return a copy of `value` with every string and number masked.

    Args:
        value: Any JSON.
        path: JSON pointer (RFC 6901) of `value`.
        masked: List that the pointers of the masked values are appended to.
    """
    if isinstance(value, dict):
        return {key: blanked(item, f"{path}/{pointer_token(key)}", masked) for key, item in value.items()}
    if isinstance(value, list):
        return [blanked(item, f"{path}/{index}", masked) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    masked.append(path)
    return MASK


def mask(value: Any, path: str, masked: list[str]) -> Any:
    """Return `value` with secrets masked; the same object if it has none.

    Every string and number below a secret name is masked, so the shape stays readable.

    Args:
        value: Any JSON.
        path: JSON pointer (RFC 6901) of `value`.
        masked: List that the pointers of the masked values are appended to.
    """
    if isinstance(value, dict):
        result = value
        for key, item in value.items():
            below = f"{path}/{pointer_token(key)}"
            new = blanked(item, below, masked) if is_secret_name(key) else mask(item, below, masked)
            if new is not item:
                if result is value:
                    result = dict(value)
                result[key] = new
        return result
    if isinstance(value, list):
        items = [mask(item, f"{path}/{index}", masked) for index, item in enumerate(value)]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value
