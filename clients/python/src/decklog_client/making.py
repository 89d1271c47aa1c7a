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


class Outgoing(msgspec.Struct, omit_defaults=True):
    """A record as it is sent. Fields that are None are left out."""

    id: str | None = None
    action: Any = None
    actor: Any = None
    resource: Any = None
    related: Any = None
    occurred_at: Any = None
    severity: Any = None
    outcome: Any = None
    message: Any = None
    source: Any = None
    session_id: Any = None
    correlation_id: Any = None
    before: Any = None
    after: Any = None
    metadata: Any = None


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562): milliseconds, then 74 random bits. A clock that jumps makes no id twice."""
    now = f"{(time.time_ns() // 1_000_000) & 0xFFFF_FFFF_FFFF:012x}"
    random = os.urandom(10).hex()
    return f"{now[:8]}-{now[8:]}-7{random[:3]}-{_VARIANTS[random[3]]}{random[4:7]}-{random[7:19]}"


_VARIANTS = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


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
    record = _outgoing(fields)
    record.actor = _actor(record.actor)
    if not record.actor:
        raise InvalidRecordError("actor: is required. Pass it to `record`, or set it with `decklog_client.context(actor=…)`.")
    name = record.id = record.id or new_id()
    if record.occurred_at is None:
        record.occurred_at = datetime.now(timezone.utc)
    elif isinstance(record.occurred_at, datetime) and record.occurred_at.tzinfo is None:
        raise InvalidRecordError("occurred_at has no time zone.")
    try:
        data = _ENCODER.encode(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRecordError(f"The record {record.action!r} cannot be written as JSON: {error}.") from None
    if len(data) > bytes_max:
        raise RecordTooLargeError(
            f"The record {record.action!r} has {len(data)} bytes, and {bytes_max} are allowed (`record_bytes`)."
        )
    return name, data


def _outgoing(fields: Mapping[str, Any]) -> Outgoing:
    try:
        record = Outgoing(**fields)
    except TypeError:
        unknown = sorted(fields.keys() - set(Outgoing.__struct_fields__))[0]
        allowed = ", ".join(Outgoing.__struct_fields__)
        raise InvalidRecordError(f"{unknown}: there is no such field of a record. The fields are: {allowed}.") from None
    if not isinstance(record.action, str) or not record.action:
        raise InvalidRecordError("action: is required, and a text that is not empty.")
    return record
