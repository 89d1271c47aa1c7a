"""What needs care in a JSON value before it is encoded: secrets, nesting, and what msgspec does not write canonically."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UnsetType

from decklog.domain.privacy.masking import is_secret_name
from decklog.domain.records.canonical import in_plain_order

REWRITE, SECRET, DEEP, FOREIGN = 1, 2, 4, 8
"""Bits of `findings`: not canonical as msgspec writes it, under a secret name, nested too deep, not a type of JSON."""
_PLAIN = frozenset({str, int, bool, type(None), msgspec.Raw, UnsetType})
"""Types that msgspec writes in canonical form; a float of a decoded record is a `msgspec.Raw` that is canonical already."""

_REMEMBERED_CHARS_MAX = 64
"""Characters of keys that are cached: records use few distinct ones, and the cache stays small."""


def _of_key(key: str) -> int:
    return (0 if in_plain_order(key) else REWRITE) | (SECRET if is_secret_name(key) else 0)


_remembered = lru_cache(maxsize=4_096)(_of_key)


def findings(value: Any, depth: int) -> int:
    """Return what needs care in a JSON value of at most `depth` levels, as bits. Most values need none and are encoded as they are."""
    kind = type(value)
    if kind in _PLAIN:
        return 0
    if kind is float:
        return REWRITE
    if kind is not dict and kind is not list:
        return FOREIGN
    if depth == 0:
        return DEEP
    found = 0
    if kind is list:
        for item in value:
            if type(item) not in _PLAIN:
                found |= findings(item, depth - 1)
        return found
    for key, item in value.items():
        if type(key) is not str:
            return FOREIGN
        found |= _remembered(key) if len(key) <= _REMEMBERED_CHARS_MAX else _of_key(key)
        if type(item) not in _PLAIN:
            found |= findings(item, depth - 1)
    return found


def json_types(value: Any) -> Any:
    """Return Python values (times, tuples, enumerations) as JSON types."""
    value = msgspec.to_builtins(value, str_keys=True, builtin_types=(msgspec.Raw,))
    if isinstance(value, dict):
        return {key: json_types(item) for key, item in value.items()}
    return [json_types(item) for item in value] if isinstance(value, list | tuple) else value
