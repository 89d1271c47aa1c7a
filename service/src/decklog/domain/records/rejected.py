"""Rejected records: what is kept of them, so that an admin can mend what was wrong and replay them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Final, Protocol

import msgspec

from decklog.domain.errors import Code
from decklog.domain.privacy.masking import MASK, is_secret_name

CONTENT_BYTES_MAX: Final = 512 * 1024
"""Bytes of a rejected record that are kept. Of a larger one only the reason is."""
DETAIL_CHARS_MAX: Final = 1_000
ROWS_MAX: Final = 1_000
"""Rejected records of one tenant that are kept; SQL repeats this number and the next two (`ingest.sql`)."""
BYTES_MAX: Final = 8 * 1024 * 1024
"""Their bytes."""
KEPT_FOR: Final = timedelta(days=30)
"""How long they are kept, at most as long as the tenant's records."""
OF_RECORDS: Final = frozenset({Code.INVALID_RECORD, Code.INVALID_JSON, Code.BODY_TOO_LARGE, Code.ID_CONFLICT})
"""Refusals of a record itself. Others pass by themselves, and their answers say when to send the record again."""
_BY_SERVER: Final = ("recorded_by", "masked", "trimmed")
_stored = msgspec.json.Decoder(dict[str, Any], float_hook=lambda text: msgspec.Raw(text.encode()))


class Rejection(msgspec.Struct, frozen=True):
    """A rejected record on its way to storage.

    `content` is its JSON with secrets masked, None where it is not kept; `as_stored` says that it is that of a record ready to be stored.
    `record_id` is the id that a bulk's key gave it, `recorder` the credential as `recorded_by` has it, and `size` its bytes as sent.
    """

    at: datetime
    code: str
    detail: str
    record_id: str | None
    recorder: str
    request_id: str
    size: int
    content: bytes | None
    as_stored: bool = False


class RejectedBatch(msgspec.Struct, frozen=True):
    """Rejected records of one tenant: how many there were, how many of them are not among `kept`, and the last one.

    `days` is how long the tenant's records are kept.
    """

    tenant_id: int
    days: int
    rejected: int
    unkept: int
    last_at: datetime
    last_code: str
    kept: Sequence[Rejection]


class RejectedRecord(msgspec.Struct, frozen=True):
    """A rejected record as it is kept. `content` is None where it is not kept, or not asked for."""

    id: int
    rejected_at: datetime
    code: str
    detail: str
    record_id: str | None
    recorded_by: msgspec.Raw
    request_id: str
    size: int
    has_content: bool
    content: str | None = None


class Rejections(msgspec.Struct, frozen=True):
    """Counts of a tenant's rejected records: all, those not kept, those that went since, and those kept now with their bytes."""

    rejected: int = 0
    unkept: int = 0
    dropped: int = 0
    kept: int = 0
    bytes: int = 0
    last_at: datetime | None = None
    last_code: str = ""


class RejectedStore(Protocol):
    """Rejected records of the tenants of one cell, each tenant's within bounds. Every method raises `storage-unavailable`."""

    async def keep(self, batch: RejectedBatch) -> None:
        """Count and keep rejected records of one tenant; the oldest go beyond its bounds. A tenant without heads is passed over."""
        ...

    async def list(self, tenant_id: int, *, before: int | None, limit: int) -> list[RejectedRecord]:
        """Return rejected records without their content, newest first: those with smaller numbers than `before` where it is given."""
        ...

    async def get(self, tenant_id: int, number: int) -> RejectedRecord | None:
        """Return one with its content."""
        ...

    async def delete(self, tenant_id: int, number: int) -> bool:
        """Delete one, and return whether it was there."""
        ...

    async def counts(self, tenant_id: int) -> Rejections:
        """Return the counts of a tenant."""
        ...


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


class _Pairs(list[tuple[str, Any]]):
    """The members of an object in their order, also those of one name."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def kept_form(raw: bytes | msgspec.Raw) -> bytes | None:
    """Return the JSON of a rejected record with secrets masked at every level; None where it is not kept.

    What is not JSON is not kept: its secrets cannot be found by their names. Order, repeated names and digits of numbers stay as sent.
    """
    if len(memoryview(raw)) > CONTENT_BYTES_MAX:
        return None
    try:
        text = bytes(raw).decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_Pairs, parse_float=_Number, parse_int=_Number, parse_constant=_no_constant)
        written = _written(value, blank=False).encode()
    except (ValueError, RecursionError):
        return None
    return written if len(written) <= CONTENT_BYTES_MAX else None


def _written(value: Any, *, blank: bool) -> str:
    if isinstance(value, _Pairs):
        return "{" + ",".join(f"{_quoted(n)}:{_written(v, blank=blank or is_secret_name(n))}" for n, v in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_written(item, blank=blank) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    if blank:
        return f'"{MASK}"'
    return value if isinstance(value, _Number) else _quoted(value)


def _quoted(text: str) -> str:
    # A lone surrogate can only be stored as an escape.
    escape = encode_basestring_ascii if any("\ud800" <= character <= "\udfff" for character in text) else encode_basestring
    quoted: str = escape(text)
    return quoted


def sent_form(content: bytes) -> bytes:
    """Return a record that was ready to be stored without what the server added to it, as its client may send it."""
    value: dict[str, Any] = _stored.decode(content)
    return msgspec.json.encode({name: item for name, item in value.items() if name not in _BY_SERVER})
