"""Patterns with `*` and `?`: how they are read, and how they are compared with a text.

The work of a comparison is at most the length of the text times that of the pattern: no comparison goes back over a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from decklog.domain.search.tree import Parts, Wild

_ESCAPED_OR_WILD = re.compile(r"\\(.)|([*?])|([^\\*?]+)", re.DOTALL)
_WILD = {wild.value: wild for wild in Wild}


def _merged(parts: Iterator[str | Wild]) -> Iterator[str | Wild]:
    """Yield parts with neighbouring literals joined, and neighbouring `*` as one."""
    literal, last = "", None
    for part in parts:
        if isinstance(part, str):
            literal += part
            continue
        if literal:
            yield literal
        elif part is last is Wild.MANY:
            continue
        literal, last = "", part
        yield part
    if literal:
        yield literal


def read(text: str) -> Parts:
    """Return the parts of a text in which a backslash takes the meaning from the character after it."""
    found = _ESCAPED_OR_WILD.findall(text)
    return tuple(_merged(_WILD[wild] if wild else escaped or literal for escaped, wild, literal in found))


def written(parts: Parts, literal: Callable[[str], str]) -> str:
    """Return parts as text, each literal as this function writes it."""
    return "".join(part.value if isinstance(part, Wild) else literal(part) for part in parts)


def is_prefix(parts: Parts) -> bool:
    """Return whether a pattern is a literal beginning, followed by `*`."""
    return len(parts) == 2 and isinstance(parts[0], str) and parts[1] is Wild.MANY


def beginning(parts: Parts) -> str:
    """Return the text that everything of this pattern begins with."""
    return parts[0] if parts and isinstance(parts[0], str) else ""


def literals(parts: Parts) -> list[str]:
    """Return the literal texts of a pattern, all of which a text of this pattern contains."""
    return [part for part in parts if isinstance(part, str)]


def _expression(parts: Parts) -> str:
    """Return a pattern as a regular expression. Each `*` takes the first place where what follows it fits, and keeps it."""
    pieces: list[list[str]] = [[]]
    for part in parts:
        if part is Wild.MANY:
            pieces.append([])
        else:
            pieces[-1].append("." if part is Wild.ONE else re.escape(part))
    first, *rest = ("".join(piece) for piece in pieces)
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>.*?{piece})" for piece in middle if piece) + ".*" + last


@lru_cache(maxsize=2_000)
def compiled(parts: Parts) -> Callable[[str], object]:
    """Return a function that returns a true value for a text of this pattern."""
    if is_prefix(parts):
        start = beginning(parts)
        return lambda text: text.startswith(start)
    return re.compile(_expression(parts), re.DOTALL).fullmatch
