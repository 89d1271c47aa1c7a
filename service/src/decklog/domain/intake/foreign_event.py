"""Reading of foreign audit events, whose values may have any type; used by every mapping.

A mapping keeps the whole event as `metadata` and copies values into the fields of a record. It must not refuse an odd value: a value
that is too long for a field is cut there and stays whole in `metadata`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from decklog.domain.privacy.masking import mask
from decklog.domain.records.canonical import UNSTORABLE, canonical
from decklog.domain.records.record import REFERENCE_CHARS_MAX, RELATED_MAX, USER_AGENT_CHARS_MAX, Resource, Source
from decklog.domain.times import NotATimeError, read_time

REPLACEMENT = "\ufffd"


class NotAnEventError(ValueError):
    """The value is not an event of the expected kind. The message names the reason, as a clause about the event."""


class HoldsNoEventsError(NotAnEventError):
    """The value belongs to the files of the expected kind and holds no events. To leave it out loses nothing."""


def members(value: Any) -> dict[str, Any]:
    """Return `value` if it is an object, else an empty object."""
    return value if isinstance(value, dict) else {}


def text(value: Any, limit: int) -> str | None:
    """Return a non-empty string, cut at `limit` characters; None for any other value."""
    return value[:limit] if isinstance(value, str) and value else None


def first(values: Iterable[str | None]) -> str | None:
    """Return the first value that is neither None nor empty; None if there is none."""
    return next((value for value in values if value), None)


def required(event: dict[str, Any], name: str) -> str:
    """Return a member that must be a non-empty string. Raises NotAnEventError."""
    value = event.get(name)
    if not isinstance(value, str) or not value:
        raise NotAnEventError(f"it has no {name}" if name not in event else f"its {name} is not a string with a value")
    return value


def shown(value: Any) -> str:
    """Return the beginning of a JSON value, for a message."""
    return msgspec.json.encode(value)[:40].decode(errors="ignore")


def moment(value: Any, name: str) -> str:
    """Return a time as records write it, with all its digits; without an offset it is in UTC.

    Raises:
        NotAnEventError: `value` is missing or no such time; the message has the `name` of the member.
    """
    if value is None:
        raise NotAnEventError(f"it has no {name}")
    try:
        if isinstance(value, str):
            return read_time(value, offset_required=False)[1]
    except NotATimeError:
        pass
    raise NotAnEventError(f"its {name} is not a time like 2026-01-31T12:00:00Z: {shown(value)}")


def fingerprint(event: Any, characters: int) -> str:
    """Return the first hexadecimal digits of the SHA-256 of an event's canonical JSON, with secrets masked.

    It becomes part of an id, which readers see. With a secret in it, a reader could find a short secret by trial.
    """
    return hashlib.sha256(canonical(mask(event, "", []))).hexdigest()[:characters]


def resources(found: Iterable[Resource | None]) -> tuple[Resource | None, list[Resource] | None]:
    """Return the first resource, and the other distinct ones as related resources, at most `RELATED_MAX`; None if absent."""
    distinct = list(dict.fromkeys(resource for resource in found if resource is not None))
    return (distinct[0] if distinct else None), (distinct[1 : RELATED_MAX + 1] or None)


def source(ip: Any, user_agent: Any) -> Source | None:
    """Return the source of an event, cut to what a record holds; None if both values are absent."""
    found = Source(ip=text(ip, REFERENCE_CHARS_MAX), user_agent=text(user_agent, USER_AGENT_CHARS_MAX))
    return found if found.ip or found.user_agent else None


def storable(value: Any) -> tuple[Any, int]:
    """Return `value` with every U+0000 and lone surrogate replaced by U+FFFD, in strings and keys, and their number."""
    if isinstance(value, str):
        return UNSTORABLE.subn(REPLACEMENT, value)
    if isinstance(value, list):
        items = [storable(item) for item in value]
        return [item for item, _ in items], sum(count for _, count in items)
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        total = 0
        for key, item in value.items():
            name, in_key = UNSTORABLE.subn(REPLACEMENT, key)
            # Two names that differed only in replaced characters must stay different.
            while in_key and (name in value or name in result):
                name += REPLACEMENT
            result[name], in_item = storable(item)
            total += in_key + in_item
        return result, total
    return value, 0
