"""Names that occur twice in one JSON object: decoders keep one of the values, and not all of them the same (RFC 7493, 2.3).

A text is compared with what was kept of it: a repeated name takes its colon along. This costs a fraction of a microsecond for most
records; only where the numbers differ for other reasons (a null that was left out), the text is read once more.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

NAME_CHARS_MAX = 80
"""Characters of a name that a message repeats."""
PATH_CHARS_MAX = 200
"""Characters of a path that a message repeats."""
REPEATED_MAX = 20
"""Repeated names that are listed."""


class RepeatedNameError(ValueError):
    """A name occurs twice in one object. The message names the path of the object and the name."""


class Repeated(msgspec.Struct, frozen=True):
    """A name that occurs twice in the object at `path`, which is empty for the outermost one."""

    path: str
    name: str

    def __str__(self) -> str:
        where = f" in {self.path[:PATH_CHARS_MAX]}" if self.path else ""
        return f"the name {self.name[:NAME_CHARS_MAX]!r} occurs twice{where}"


def colons(text: bytes) -> int:
    """Return the number of colons of a JSON text: one for each member, and those within strings."""
    return text.count(b":")


def may_repeat(text: bytes, kept: int, *, escapes: bool = True) -> bool:
    """Return whether a name may occur twice in an object of `text`, of which `kept` colons were kept.

    An escaped colon would make up for one that was lost, so it leads to a closer look; `escapes` is false where the caller knows
    that the text has no backslash.
    """
    return text.count(b":") != kept or (escapes and text.find(b"\\u003") >= 0)


class _Members(list[tuple[str, Any]]):
    """The members of an object in their order, where some names occur twice."""


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Members(pairs)


def _nothing(_: str) -> None:
    return None


def repeated(text: bytes) -> list[Repeated]:
    """Return the repeated names of a JSON text, at most `REPEATED_MAX`. The time grows with the length only.

    Raises:
        RecursionError: The text is nested too deeply.
    """
    seen = False

    def members(pairs: list[tuple[str, Any]]) -> Any:
        nonlocal seen
        seen = seen or len(dict(pairs)) != len(pairs)
        return None

    source = text.decode(errors="replace")
    json.loads(source, object_pairs_hook=members, parse_int=_nothing, parse_float=_nothing, parse_constant=_nothing)
    if not seen:
        return []
    found: list[Repeated] = []
    _find(json.loads(source, object_pairs_hook=_object, parse_int=_nothing, parse_float=_nothing), "", found)
    return found


def _find(value: Any, path: str, found: list[Repeated]) -> None:
    if len(found) >= REPEATED_MAX:
        return
    if isinstance(value, _Members):
        counts = Counter(name for name, _ in value)
        found += [Repeated(path, name) for name, count in counts.items() if count > 1][: REPEATED_MAX - len(found)]
    if isinstance(value, dict | _Members):
        for name, item in value.items() if isinstance(value, dict) else value:
            if isinstance(item, dict | list):
                _find(item, (f"{path}.{name}" if path else name)[:PATH_CHARS_MAX], found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                _find(item, f"{path}[{index}]"[:PATH_CHARS_MAX], found)


def refuse_repeated(text: bytes, value: Any) -> None:
    """Raise RepeatedNameError where a name of `text` occurs twice; `value` is the text as it was decoded, whole."""
    try:
        kept = colons(msgspec.json.encode(value))
    except UnicodeEncodeError:  # a lone surrogate
        kept = -1
    if may_repeat(text, kept) and (found := repeated(text)):
        raise RepeatedNameError(str(found[0]))
