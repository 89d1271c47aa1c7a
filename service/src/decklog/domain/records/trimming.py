"""Trimming of a record that is too large or too deep: what can be spared of `metadata`, `before` and `after` is removed and named.

The fields that say who did what stay whole. Kubernetes does the same with audit events (`audit.k8s.io/truncated`). This module takes
and returns JSON; `record.prepare` checks the result as any record.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from decklog.domain.privacy.masking import mask, pointer_token
from decklog.domain.records.canonical import canonical, canonical_plain, digest, number
from decklog.domain.records.record import Prepared
from decklog.domain.records.refusal import DEPTH_MAX

OVERSIZE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of one record as sent that may be trimmed. A Kubernetes object has at most 1.5 MiB, and an audit event may hold two."""
REMOVED_MAX: Final = 64
"""Values that are removed from one record. Where more would have to go, the value around them goes."""
_TOGETHER_MAX: Final = 8
"""Members of one value that are removed beside each other, before the whole value is."""
_PATH_CHARS_MAX: Final = 1_024
_SLACK_BYTES: Final = 512
"""Room for what the server adds to a record: the id, and defaults."""
_ENTRY_BYTES: Final = 110
"""Bytes of a removed value's place in the list, without its path."""
_FIELDS: Final = ("metadata", "before", "after")


class Removed(msgspec.Struct, frozen=True):
    """A value that was removed from a record."""

    path: Annotated[str, Meta(description="JSON pointer of the value.")]
    bytes: Annotated[int, Meta(description="Length of its canonical JSON.")]
    sha256: Annotated[str, Meta(description="SHA-256 of its canonical JSON, with secrets masked, in hexadecimal digits.")]


class Trimmed(NamedTuple):
    """A record as JSON without what was removed from it."""

    sent: bytes
    removed: list[Removed]


class _CannotError(Exception):
    """Nothing that may be removed makes the record fit, or it is not JSON that one reader understands as another does."""


def trim(raw: bytes | msgspec.Raw, bytes_max: int) -> Trimmed | None:
    """Return a record that is too large or too deep without the values that make it so; None where it cannot be trimmed.

    A removed member of an object is absent, and a removed item of an array is null, so that paths stay as they were. The smallest value
    goes whose removal is enough.

    Args:
        raw: The record as sent.
        bytes_max: Bytes that the record may have in canonical form.
    """
    text, room = bytes(raw), bytes_max - _SLACK_BYTES
    try:
        found = _apart(text, room, room)
        if found is not None and found[1] > 0:
            # What lies too deep is listed after the rest was measured, so its list may be what does not fit.
            found = _apart(text, room, room - found[1])
        if found is None or found[1] > 0:
            found = _whole(text, room), 0
    except (_CannotError, ValueError, RecursionError):
        return None
    trimmed = found[0]
    return trimmed if trimmed.removed else None


def _apart(text: bytes, room: int, aim: int) -> tuple[Trimmed, int] | None:
    """Return the record without as little as possible, and the bytes by which it is still too large; None where that is not enough."""
    record = _read(text)
    try:
        removed = [*_cut_large(record, aim), *_cut_deep(record)]
    except _CannotError:
        return None
    return _trimmed(record, removed), _size(record) + _size(removed) - room


def _whole(text: bytes, room: int) -> Trimmed:
    """Return the record without whole fields: those that are too deep, then the largest ones."""
    record = _read(text)
    deep = {name for name in _FIELDS if name in record and any(_too_deep(record[name], "", DEPTH_MAX))}
    removed: list[Removed] = []
    for name in sorted((n for n in _FIELDS if n in record), key=lambda n: (n not in deep, -_size(record[n]))):
        if name in deep or _size(record) + _size(removed) > room:
            removed.append(_remove(record, name, f"/{name}"))
    if _size(record) + _size(removed) > room:
        raise _CannotError
    return _trimmed(record, removed)


def _trimmed(record: dict[str, Any], removed: list[Removed]) -> Trimmed:
    return Trimmed(msgspec.json.encode(record), sorted(removed, key=lambda each: each.path))


def with_removed(prepared: Prepared, removed: list[Removed], fingerprint_key: bytes) -> Prepared:
    """Return a trimmed record whose content lists what was removed, as `trimmed`: its last member in canonical order."""
    listed = canonical_plain(removed)
    content = b'%s,"trimmed":%s}' % (prepared.content[:-1], listed)
    fingerprint = prepared.fingerprint
    if fingerprint is not None:  # two records that differ only in what was removed are two
        fingerprint = hmac.digest(fingerprint_key, fingerprint + listed, "sha256")[: len(fingerprint)]
    return replace(
        prepared,
        content=content,
        digest=digest(content),
        fingerprint=fingerprint,
        trimmed=tuple(each.path for each in removed),
    )


def _read(raw: bytes) -> dict[str, Any]:
    value = json.loads(raw.decode(), object_pairs_hook=_once, parse_float=_float, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise _CannotError
    for name in _FIELDS:
        if name in value:
            value[name] = mask(value[name], f"/{name}", [])  # first, so that no hash tells a secret
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _CannotError
    return found


def _float(text: str) -> msgspec.Raw:
    return msgspec.Raw(number(float(text)).encode())


def _no_constant(_: str) -> None:
    raise _CannotError


def _size(value: Any) -> int:
    return len(canonical_plain(value))


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over the keys and values of a container; other values have none."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _remove(parent: Any, key: Any, path: str) -> Removed:
    written = canonical(parent[key])
    if isinstance(parent, dict):
        del parent[key]
    else:
        parent[key] = None
    return Removed(path, len(written), digest(written).hex())


def _below(path: str, key: Any) -> str:
    return f"{path}/{pointer_token(str(key))}"


def _cut_large(record: dict[str, Any], room: int) -> list[Removed]:
    removed: list[Removed] = []
    while (need := _size(record) + _size(removed) - room) > 0:
        there = [name for name in _FIELDS if name in record]
        if not there or len(removed) >= REMOVED_MAX:
            raise _CannotError
        removed += _cut(record, max(there, key=lambda name: _size(record[name])), need)
    return removed


def _cut(parent: Any, key: Any, need: int) -> list[Removed]:
    """Remove of one field the smallest value that frees so many bytes, or some members of it that free as many together."""
    path = _below("", key)
    while True:
        node = parent[key]
        gains = sorted(
            ((_gain(item, _below(path, name)), index) for index, (name, item) in enumerate(_members(node))), reverse=True
        )
        keys = [name for name, _ in _members(node)]
        if not gains or gains[0][0] < need or len(_below(path, keys[gains[0][1]])) > _PATH_CHARS_MAX:
            break
        parent, key = node, keys[gains[0][1]]
        path = _below(path, key)
    chosen = [keys[index] for _, index in gains[:_TOGETHER_MAX]]
    enough = sum(gain for gain, _ in gains[:_TOGETHER_MAX]) >= need
    if not enough or any(len(_below(path, each)) > _PATH_CHARS_MAX for each in chosen):
        return [_remove(parent, key, path)]
    count = next(n for n in range(1, len(chosen) + 1) if sum(gain for gain, _ in gains[:n]) >= need)
    return [_remove(node, each, _below(path, each)) for each in chosen[:count]]


def _gain(value: Any, path: str) -> int:
    """Return the bytes that the removal of a value frees: its own, less those of its place in the list."""
    return _size(value) - len(path) - _ENTRY_BYTES


def _cut_deep(record: dict[str, Any]) -> list[Removed]:
    removed: list[Removed] = []
    for name in [name for name in _FIELDS if name in record]:
        places = list(_too_deep(record[name], f"/{name}", DEPTH_MAX))
        if len(removed) + len(places) > REMOVED_MAX or any(len(path) > _PATH_CHARS_MAX for _, _, path in places):
            removed.append(_remove(record, name, f"/{name}"))
        else:
            removed += [_remove(parent, key, path) for parent, key, path in places]
    return removed


def _too_deep(value: Any, path: str, levels: int) -> Iterator[tuple[Any, Any, str]]:
    """Iterate over the containers below `value` that lie deeper than so many levels, each as its parent, its key and its path."""
    for key, item in _members(value):
        if isinstance(item, dict | list):
            if levels == 1:
                yield value, key, _below(path, key)
            else:
                yield from _too_deep(item, _below(path, key), levels - 1)
