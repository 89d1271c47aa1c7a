"""The kinds of audit events that can be imported, and how an event of unknown kind is recognised."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from decklog.domain.intake import cloudtrail, decklog_export, kubernetes_audit
from decklog.domain.intake.foreign_event import REPLACEMENT, NotAnEventError, storable
from decklog.domain.intake.wrappers import refuse_other_kinds, unwrapped
from decklog.domain.records.record import MESSAGE_CHARS_MAX, RecordInput
from decklog.domain.records.trimming import OVERSIZE_BYTES_MAX
from decklog.domain.unique_names import RepeatedNameError, refuse_repeated

AUTO = "auto"

Mapping = Callable[[Any], "RecordInput | dict[str, Any]"]

MAPPINGS: dict[str, Mapping] = {
    "cloudtrail": cloudtrail.record,
    "kubernetes": kubernetes_audit.record,
    "decklog": decklog_export.record,
}
_RECOGNISED: dict[str, Callable[[dict[str, Any]], bool]] = {
    "decklog": decklog_export.is_export,
    "kubernetes": kubernetes_audit.is_audit_event,
    "cloudtrail": cloudtrail.is_event,
}
"""The most specific first: a record of Decklog may hold what another kind is recognised by."""
_NAMES_SHOWN = 5


def kind_of(event: dict[str, Any]) -> str | None:
    """Return the kind of an event; None if it is of none."""
    return next((kind for kind, recognised in _RECOGNISED.items() if recognised(event)), None)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a number that can be stored")
    return value


def parsed(raw: bytes) -> Any:
    """Return the value of JSON text, in which lone surrogates are allowed and a name occurs once. Raises NotAnEventError."""
    value = _decoded(raw)
    try:
        refuse_repeated(raw, value)
    except RepeatedNameError as error:
        raise NotAnEventError(f"{error}; each name may occur once") from None
    return value


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.ValidationError as error:
        raise NotAnEventError(f"it holds a number that cannot be stored ({error})") from None
    except UnicodeDecodeError:
        raise NotAnEventError("it is not UTF-8") from None
    except msgspec.DecodeError as error:
        try:
            return json.loads(raw.decode(), parse_constant=_no_constant, parse_float=_finite)
        except ValueError:
            raise NotAnEventError(f"it is not JSON ({error})") from None
    except RecursionError:
        raise NotAnEventError("it is nested too deeply") from None


def _recorded(event: Any, kind: str) -> RecordInput | dict[str, Any]:
    if isinstance(event, dict):
        refuse_other_kinds(event)
        if kind == AUTO:
            kind = kind_of(event) or ""
    if mapping := MAPPINGS.get(kind):
        return mapping(event)
    if kind == AUTO:
        raise NotAnEventError("it is not a JSON object")
    names = ", ".join(sorted(event)[:_NAMES_SHOWN]) or "none"
    raise NotAnEventError(f"it is of no known kind ({', '.join(MAPPINGS)}); its first members: {names[:200]}")


def recorded(raw: bytes, kind: str) -> tuple[bytes, int]:
    """Return the record of an event as JSON, and the number of characters that were replaced in it.

    Args:
        raw: The event as JSON, or an envelope that holds it.
        kind: One of `MAPPINGS`, or `auto`.

    Raises:
        NotAnEventError: The text is no event of this kind, or its record would be too large.
    """
    try:
        known = (lambda event: kind_of(event) is not None) if kind == AUTO else _RECOGNISED[kind]
        event, replaced = unwrapped(parsed(raw), known, parsed), 0
        if b"\\u" in raw:  # the only way to write what cannot be stored
            event, replaced = storable(event)
        record = _recorded(event, kind)
        if replaced:
            record = _noted(record, replaced)
        encoded = msgspec.json.encode(record)
    except RecursionError:
        raise NotAnEventError("it is nested too deeply") from None
    if len(encoded) > OVERSIZE_BYTES_MAX:
        raise NotAnEventError(f"its record would have {len(encoded)} bytes; at most {OVERSIZE_BYTES_MAX} are allowed")
    return encoded, replaced


def _noted(record: RecordInput | dict[str, Any], replaced: int) -> RecordInput | dict[str, Any]:
    """Return the record with a note about replaced characters in its message."""
    note = f"[{replaced} characters that cannot be stored were replaced by {REPLACEMENT}]"
    message = record.get("message") if isinstance(record, dict) else record.message
    noted = f"{str(message or '')[: MESSAGE_CHARS_MAX - len(note) - 1]} {note}".strip()
    return {**record, "message": noted} if isinstance(record, dict) else replace(record, message=noted)
