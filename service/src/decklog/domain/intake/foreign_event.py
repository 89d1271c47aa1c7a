"""What the mappings of other systems' audit events have in common: careful reading of values that may be anything.

A mapping keeps the whole original as `metadata` and copies from it what records have a field for. Odd values are kept,
never refused; what is too long for a field is cut there and stays whole in `metadata`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from decklog.domain.records.canonical import canonical
from decklog.domain.records.record import RELATED_MAX, Resource

NAME_MAX = 256
"""Characters of actions, types and addresses."""
ID_MAX = 1_024
"""Characters of identities, names and references."""
USER_AGENT_MAX = 2_048
MESSAGE_MAX = 8_192
REPLACEMENT = "\ufffd"

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class NotAnEventError(ValueError):
    """The value is not an event of the kind that was asked for; the message says why, for a person."""


def members(value: Any) -> dict[str, Any]:
    """`value` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: Any, limit: int) -> str | None:
    """A string with at least one character, cut to `limit`; None for anything else."""
    return value[:limit] if isinstance(value, str) and value else None


def first(values: Iterable[str | None]) -> str | None:
    """The first that is there."""
    return next((value for value in values if value), None)


def required(event: dict[str, Any], name: str) -> str:
    """A string that the event cannot do without. Raises NotAnEventError."""
    value = event.get(name)
    if not isinstance(value, str) or not value:
        raise NotAnEventError(f"it has no {name}" if name not in event else f"its {name} is not a string with a value")
    return value


def shown(value: Any) -> str:
    """The beginning of a JSON value, to name it in a message."""
    return msgspec.json.encode(value)[:40].decode(errors="ignore")


def moment(value: Any, name: str) -> datetime:
    """A time as audit logs write it: RFC 3339, or the same without an offset, which then is UTC by definition.

    Digits beyond microseconds are cut. Raises NotAnEventError.
    """
    if isinstance(value, str) and _TIME.fullmatch(value):
        try:
            found = datetime.fromisoformat(value.upper())
        except ValueError:
            pass
        else:
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    raise NotAnEventError(f"its {name} is not a time like 2026-01-31T12:00:00Z")


def fingerprint(event: Any, characters: int) -> str:
    """Hexadecimal digits that tell this event from others, however its JSON is spelled."""
    return hashlib.sha256(canonical(event)).hexdigest()[:characters]


def resources(found: Iterable[Resource | None]) -> tuple[Resource | None, list[Resource] | None]:
    """The first distinct resource as the record's, the following as related to it, as many as a record takes."""
    distinct = list(dict.fromkeys(resource for resource in found if resource is not None))
    return (distinct[0] if distinct else None), (distinct[1 : RELATED_MAX + 1] or None)


def storable(value: Any) -> tuple[Any, int]:
    """`value` with every U+0000 and lone surrogate replaced by U+FFFD, in strings and keys, and how many there were."""
    if isinstance(value, str):
        return _UNSTORABLE.subn(REPLACEMENT, value)
    if isinstance(value, list):
        items = [storable(item) for item in value]
        return [item for item, _ in items], sum(count for _, count in items)
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        total = 0
        for key, item in value.items():
            name, in_key = _UNSTORABLE.subn(REPLACEMENT, key)
            # Two names that differed only in what was replaced must not become one.
            while in_key and (name in value or name in result):
                name += REPLACEMENT
            result[name], in_item = storable(item)
            total += in_key + in_item
        return result, total
    return value, 0
