"""Records as they are sent: JSON on one line, with an id and a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, TypedDict

import msgspec

from decklog_client.errors import InvalidRecordError, RecordTooLargeError
from decklog_client.scope import resolved

Named = str | Mapping[str, Any]
"""An actor: an id, or `id`, `type` and `name`."""
Outcome = Literal["success", "failure", "denied", "unknown"]
Severity = Literal["INFO", "WARNING", "ERROR", "CRITICAL"]


class CallFields(TypedDict, total=False):
    """Fields of a record beside its action and its resource.

    Attributes:
        actor: Who did it: an id, or `id`, `type` and `name`; or a function without arguments that returns one of them.
        outcome: `success`, `failure`, `denied` or `unknown`.
        severity: `INFO`, `WARNING`, `ERROR` or `CRITICAL`.
        message: Text for people.
        related: Further resources.
        source: Where it came from: `ip`, `user_agent`.
        session_id: Id that joins the records of a session.
        correlation_id: Id that joins the records of a request or a job.
        before: The state before, as JSON.
        after: The state after, as JSON.
        metadata: Further members, as JSON.
        occurred_at: When it happened. Default: now.
        id: Id of the event. Default: a new one. The same id names the same record for the server.
    """

    actor: Named | Callable[[], Named | None] | None
    outcome: Outcome | None
    severity: Severity | None
    message: str | None
    related: Sequence[Mapping[str, Any]] | None
    source: Mapping[str, Any] | None
    session_id: str | None
    correlation_id: str | None
    before: Any
    after: Any
    metadata: Mapping[str, Any] | None
    occurred_at: datetime | str | None
    id: str | None


class Fields(CallFields, total=False):
    """Fields of a record beside its action: those of `CallFields`, and the resource.

    Attributes:
        resource: What it was done to: `type`, `id`, `name`.
    """

    resource: Mapping[str, Any] | None


FIELDS = frozenset({"action", *Fields.__annotations__})
"""Fields of a record."""


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562): milliseconds, then 74 random bits. A clock that jumps makes no id twice."""
    random = int.from_bytes(os.urandom(10), "big")
    milliseconds = (time.time_ns() // 1_000_000) & 0xFFFF_FFFF_FFFF
    high = milliseconds << 80 | 0x7 << 76 | (random >> 68) << 64
    text = f"{high | 0b10 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _actor(value: Any) -> Any:
    """Return an actor: a text is its id, and a function returns one."""
    value = resolved(value)
    return {"id": value} if isinstance(value, str) else value


def _other(value: Any) -> Any:
    """Return the form in JSON of a value that has none: paths and exceptions as text."""
    if isinstance(value, os.PathLike | BaseException):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


_ENCODER = msgspec.json.Encoder(enc_hook=_other)


def encoded(fields: Mapping[str, Any], *, bytes_max: int) -> tuple[str, bytes]:
    """Return the id and the JSON of a record. Raises InvalidRecordError and RecordTooLargeError."""
    record = {name: value for name, value in fields.items() if value is not None}
    record["actor"] = _actor(record.get("actor"))
    _check(record)
    record["id"] = record.get("id") or new_id()
    if "occurred_at" not in record:
        record["occurred_at"] = datetime.now(timezone.utc)
    elif isinstance(record["occurred_at"], datetime) and record["occurred_at"].tzinfo is None:
        raise InvalidRecordError("occurred_at has no time zone.")
    try:
        data = _ENCODER.encode(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRecordError(f"The record {record['action']!r} cannot be written as JSON: {error}.") from None
    if len(data) > bytes_max:
        detail = f"The record {record['action']!r} has {len(data)} bytes, and {bytes_max} are allowed (`record_bytes`)."
        raise RecordTooLargeError(detail)
    return record["id"], data


def _check(record: Mapping[str, Any]) -> None:
    if not isinstance(record.get("action"), str) or not record["action"]:
        raise InvalidRecordError("action: is required, and a text that is not empty.")
    actor = record.get("actor")
    if actor is None:
        raise InvalidRecordError("actor: is required. Pass it to `record`, or set it with `decklog_client.context(actor=…)`.")
    if not actor:
        raise InvalidRecordError("actor: must not be empty.")
    if not record.keys() <= FIELDS:
        unknown = sorted(record.keys() - FIELDS)[0]
        raise InvalidRecordError(f"{unknown}: there is no such field of a record. The fields are: {', '.join(sorted(FIELDS))}.")
