"""Records that a test captures instead of writing them to a spool."""

from __future__ import annotations

from typing import Any

import msgspec

_captures: list[list[dict[str, Any]]] = []


def taken(data: bytes) -> bool:
    """Return whether a test captured the record; the innermost capture has it."""
    if not _captures:
        return False
    _captures[-1].append(msgspec.json.decode(data))
    return True


def begin() -> list[dict[str, Any]]:
    """Begin to capture all records of the process, and return where they appear."""
    _captures.append([])
    return _captures[-1]


def end(capture: list[dict[str, Any]]) -> None:
    """End a capture."""
    _captures[:] = [each for each in _captures if each is not capture]
