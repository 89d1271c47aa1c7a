"""Chosen fields of records: values by their paths in the wire form, with their exact text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from decklog.domain.errors import invalid_parameter

FIELDS_MAX = 50
"""Fields of one export."""
_ASSIGNED = ("tenant", "log", "epoch", "seq", "received_at", "digest", "recorded_by", "masked")
_CLOSED: dict[str, tuple[str, ...]] = {
    "actor": ("type", "id", "name"),
    "resource": ("type", "id", "name"),
    "source": ("ip", "user_agent"),
    "recorded_by": ("type", "id", "ip"),
}
"""Objects whose members are known."""
_OPEN = ("metadata", "before", "after")
"""Values that may have any members."""
_PLAIN = ("id", "action", "related", "occurred_at", "severity", "outcome", "message", "session_id", "correlation_id")
ROOTS = (*_ASSIGNED, *_PLAIN, *(name for name in _CLOSED if name not in _ASSIGNED), *_OPEN)

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)


def paths(text: str) -> tuple[str, ...]:
    """Return the paths of a parameter `fields`, separated by commas. Raises `invalid-parameter`."""
    return checked(text.split(","))


def checked(found: Sequence[str]) -> tuple[str, ...]:
    """Return paths of fields. Raises `invalid-parameter` for one that is no field, for one that is there twice, and for too many."""
    if len(found) > FIELDS_MAX:
        raise invalid_parameter("fields", f"at most {FIELDS_MAX} fields are allowed.")
    for path in found:
        _check(path)
        if found.count(path) > 1:
            raise invalid_parameter("fields", f"{path[:80]!r} is there twice.")
    return tuple(found)


def _check(path: str) -> None:
    root, _, member = path.partition(".")
    if root not in ROOTS:
        raise invalid_parameter("fields", f"{path[:80]!r} is not a field. Fields: {', '.join(ROOTS)}.")
    known = _CLOSED.get(root)
    if root in _OPEN and not path.endswith("."):
        return
    if path != root and (known is None or member not in known):
        allowed = ", ".join(f"{root}.{name}" for name in known) if known else root
        raise invalid_parameter("fields", f"{path[:80]!r} is not a field. Allowed: {allowed}.")


def _members(raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    return _object.decode(raw) if bytes(raw).startswith(b"{") else {}


def _found(members: dict[str, msgspec.Raw], path: str) -> msgspec.Raw | None:
    """Return the value at a path. A name may contain dots itself, so the longest name that exists is taken first."""
    if path in members:
        return members[path]
    end = path.rfind(".")
    while end > 0:
        name, rest = path[:end], path[end + 1 :]
        if name in members and (found := _found(_members(members[name]), rest)) is not None:
            return found
        end = path.rfind(".", 0, end)
    return None


def chosen(record: str, fields: Iterable[str]) -> list[msgspec.Raw | None]:
    """Return the value of each field of a record in its wire form; None where it is absent."""
    members = _object.decode(record)
    return [_found(members, path) for path in fields]


def as_object(record: str, fields: tuple[str, ...]) -> bytes:
    """Return a JSON object with these fields of a record. A path becomes an object within an object, as in the record."""
    result: dict[str, Any] = {}
    for path, value in zip(fields, chosen(record, fields), strict=True):
        if value is None:
            continue
        root, _, member = path.partition(".")
        if not member:
            result[root] = value
        elif not isinstance(holder := result.setdefault(root, {}), msgspec.Raw):  # else the whole is chosen, too
            holder[member] = value
    return msgspec.json.encode(result)


def as_cells(record: str, fields: tuple[str, ...]) -> list[str]:
    """Return these fields of a record as texts: strings as they are, other values as JSON."""
    return ["" if value is None else _cell(value) for value in chosen(record, fields)]


def _cell(value: msgspec.Raw) -> str:
    return _text.decode(value) if bytes(value).startswith(b'"') else bytes(value).decode()
