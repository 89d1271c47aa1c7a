"""The part of a record that is visible where only some of its fields are: by the paths that queries name its values by.

A path is the keys of a value with dots between them, whether a dot separates two keys or stands within one, and without places in
lists. Queries mean the same by it, so that a query for a visible path compares visible values alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])


class Visible:
    """The fields that are visible, with everything below them. `fields` are paths as `projection.checked` allows them."""

    def __init__(self, fields: Iterable[str]) -> None:
        self.fields = tuple(fields)
        self._whole = frozenset(self.fields)
        self._below = tuple(f"{field}." for field in self.fields)

    def shows(self, path: str) -> bool:
        """Return whether the value at this path is visible, with all that it contains."""
        return path in self._whole or path.startswith(self._below)

    def seen(self, record: str) -> str:
        """Return a record in its wire form with its visible values alone, each with its exact text."""
        kept = self._members(_object.decode(record), "")
        return msgspec.json.encode(kept).decode()

    def _members(self, members: dict[str, msgspec.Raw], start: str) -> dict[str, msgspec.Raw]:
        found = ((name, self._value(value, f"{start}{name}")) for name, value in members.items())
        return {name: value for name, value in found if value is not None}

    def _value(self, value: msgspec.Raw, path: str) -> msgspec.Raw | None:
        """Return what is visible of the value at a path, None for nothing."""
        if self.shows(path):
            return value
        start = f"{path}."
        if not any(field.startswith(start) for field in self.fields):
            return None
        match bytes(value)[:1]:
            case b"{":
                members = self._members(_object.decode(value), start)
                return msgspec.Raw(msgspec.json.encode(members)) if members else None
            case b"[":
                items = [item for each in _list.decode(value) if (item := self._value(each, path)) is not None]
                return msgspec.Raw(msgspec.json.encode(items)) if items else None
            case _:
                return None
