"""An audit record: what a client may send, and how it is prepared for storage.

The shape follows NIST SP 800-53 AU-3 (what, when, where, source, outcome, identities) with the usual names of audit logs.
`prepare` does all work on one record that needs no lock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from decklog.domain.errors import Code, DecklogError
from decklog.domain.privacy.masking import is_secret_name, mask
from decklog.domain.records.canonical import canonical, canonical_plain, digest, in_plain_order, number
from decklog.domain.search.terms import column, optional_column, parse_ip

RECORD_BYTES_MAX = 256 * 1024
"""Bytes of one record as sent, and of its canonical form."""
RELATED_MAX = 100
"""Resources in `related` of one record."""
DEPTH_MAX = 32
"""Levels of arrays and objects in `metadata`, `before` and `after`."""
FUTURE_SKEW_MAX = timedelta(minutes=5)
"""`occurred_at` may be so far ahead of the server's clock. Clocks differ, but evidence from the future is an error."""
ID_CHARS_MAX = 256
"""Characters of a client's id."""
NAME_CHARS_MAX = 256
"""Characters of actions, types and addresses."""
REFERENCE_CHARS_MAX = 1_024
"""Characters of identities, names and references."""
USER_AGENT_CHARS_MAX = 2_048
MESSAGE_CHARS_MAX = 8_192

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Reference = Annotated[str, Meta(max_length=REFERENCE_CHARS_MAX)]


class Severity(StrEnum):
    """How serious an event is, in ascending order. Storage holds the index of a member, so members are only appended."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class Outcome(StrEnum):
    """The result of an action. Storage holds the index of a member, so members are only appended."""

    SUCCESS = "success"
    FAILURE = "failure"
    DENIED = "denied"
    UNKNOWN = "unknown"


SEVERITIES = tuple(Severity)
OUTCOMES = tuple(Outcome)


class Actor(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The actor: the user or program that performed the action."""

    id: Annotated[str, Meta(min_length=1, max_length=REFERENCE_CHARS_MAX, description="Stable identity of the actor.")]
    type: Annotated[str, Meta(max_length=NAME_CHARS_MAX, description="user, service, api_key, …")] | None = None
    name: Annotated[str, Meta(max_length=REFERENCE_CHARS_MAX, description="Display name.")] | None = None


class Resource(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The resource: what the action was performed on."""

    type: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX, description="document, bucket, pod, …")]
    id: Annotated[str, Meta(max_length=REFERENCE_CHARS_MAX, description="Stable identity of the resource.")] | None = None
    name: Annotated[str, Meta(max_length=REFERENCE_CHARS_MAX, description="Display name.")] | None = None


class Source(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The source of the request. `ip` is stored as sent; the `ip` filter finds it by the address, without brackets, port and zone."""

    ip: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] | None = None
    user_agent: Annotated[str, Meta(max_length=USER_AGENT_CHARS_MAX)] | None = None


class RecordInput(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """A record as a client sends it. Unknown fields are refused by name.

    null means absent, except in `before`, `after` and `metadata`, where it is a JSON value.
    """

    action: Annotated[
        str, Meta(min_length=1, max_length=NAME_CHARS_MAX, description="The action: document.create, ec2:RunInstances.")
    ]
    actor: Actor
    id: Annotated[str, Meta(min_length=1, max_length=ID_CHARS_MAX, description="The client's id; makes a retry safe.")] | None = (
        None
    )
    resource: Resource | None = None
    related: Annotated[list[Resource], Meta(max_length=RELATED_MAX)] | None = None
    occurred_at: Annotated[datetime, Meta(tz=True, description="RFC 3339 with offset; the time of receipt if absent.")] | None = (
        None
    )
    severity: Severity | None = None
    outcome: Outcome | None = None
    message: Annotated[str, Meta(max_length=MESSAGE_CHARS_MAX)] | None = None
    source: Source | None = None
    session_id: Reference | None = None
    correlation_id: Reference | None = None
    before: Annotated[Any, Meta(description="State before the action, any JSON.")] | UnsetType = UNSET
    after: Annotated[Any, Meta(description="State after the action, any JSON.")] | UnsetType = UNSET
    metadata: Annotated[Any, Meta(description="Anything else, any JSON.")] | UnsetType = UNSET


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A record ready to be stored.

    `content` is canonical JSON and `digest` its SHA-256. The other values are columns for filters, as `terms.column` writes them.
    `fingerprint` is None without an `id`. `severity` and `outcome` are indexes in `SEVERITIES` and `OUTCOMES`. `trimmed` has the paths of
    values that were removed because the record was too large or too deep.
    """

    id: str | None
    fingerprint: bytes | None
    occurred_at: datetime
    action: str
    actor_type: str | None
    actor_id: str
    resource_type: str | None
    resource_id: str | None
    severity: int
    outcome: int
    ip: str | None
    session_id: str | None
    correlation_id: str | None
    content: bytes
    digest: bytes
    trimmed: tuple[str, ...] = ()


class StoredRecord(msgspec.Struct, frozen=True):
    """A record as storage returns it. `content` is the exact text that was hashed, a JSON object."""

    epoch: int
    seq: int
    received_at: datetime
    digest: bytes
    content: str


class _Content(RecordInput, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Stored content of a record with secrets: beside what the client sent, JSON pointers of the masked values."""

    masked: list[str] | None = None


@lru_cache(maxsize=4_096)
def _remembered(text: str) -> msgspec.Raw:
    return msgspec.Raw(number(float(text)).encode())


def _float(text: str) -> msgspec.Raw:
    """Return a float of JSON in its canonical form, so that no later pass has to find and write it again.

    msgspec's own conversion can take 40 microseconds for one number (`1.5e300`), a thousand times that of others.
    """
    return _remembered(text) if len(text) <= _REMEMBERED_CHARS_MAX else msgspec.Raw(number(float(text)).encode())


_REMEMBERED_CHARS_MAX = 32
"""Characters of numbers that are cached. Few numbers are longer."""
_input = msgspec.json.Decoder(RecordInput, float_hook=_float)
_SEVERITY = {severity: index for index, severity in enumerate(SEVERITIES)}
_OUTCOME = {outcome: index for index, outcome in enumerate(OUTCOMES)}
_OUTCOME_MEMBERS = {outcome: f'"outcome":"{outcome.value}"'.encode() for outcome in OUTCOMES}
_JSON_FIELDS = ("metadata", "before", "after")
"""Fields that hold any JSON; all others are strings of bounded length, enumerations and times."""
_NUL = b"\\u0000"
_BLOCK_BYTES = 64
_INNER_PAD, _OUTER_PAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_address = lru_cache(maxsize=4_096)(parse_ip)  # few distinct ones recur, of at most 256 characters


def decode(raw: bytes | memoryview | msgspec.Raw) -> RecordInput:
    """Return one record decoded from JSON.

    Raises:
        DecklogError: `body-too-large`, `invalid-json` or `invalid-record`, with the path of the field.
    """
    if len(memoryview(raw)) > RECORD_BYTES_MAX:
        raise DecklogError(Code.BODY_TOO_LARGE, f"A record may have at most {RECORD_BYTES_MAX} bytes.")
    try:
        return _input.decode(raw)
    except msgspec.ValidationError as error:
        raise DecklogError(Code.INVALID_RECORD, f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if where := _lone_surrogate(bytes(raw)):
            raise _surrogate(where) from None
        raise DecklogError(Code.INVALID_JSON, f"The record is not valid JSON in UTF-8: {error}.") from None
    except RecursionError:
        raise _too_deep("the record") from None


def _too_deep(where: str) -> DecklogError:
    return DecklogError(Code.INVALID_RECORD, f"{where} is nested more than {DEPTH_MAX} levels deep.")


def _surrogate(where: str) -> DecklogError:
    return DecklogError(
        Code.INVALID_RECORD,
        f"{where[:200]} contains a lone surrogate (half of a UTF-16 pair), which cannot be stored. Replace it, for example by U+FFFD.",
    )


def _nul(where: str) -> DecklogError:
    return DecklogError(Code.INVALID_RECORD, f"{where[:200]} contains U+0000, which cannot be stored. Remove or replace it.")


def _where(value: Any, bad: Callable[[str], bool], path: str) -> str | None:
    """Return the dotted path of the first string or key that is `bad`; slow, so only called to explain an error."""
    if isinstance(value, str):
        return path if bad(value) else None
    if isinstance(value, dict):
        for key, item in value.items():
            if found := path or "the record" if bad(key) else _where(item, bad, f"{path}.{key}" if path else key):
                return found
    elif isinstance(value, list):
        for item in value:
            if found := _where(item, bad, path):
                return found
    return None


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _has_nul(text: str) -> bool:
    return "\0" in text


def _lone_surrogate(raw: bytes) -> str | None:
    """Return the path of a lone surrogate in JSON that msgspec refused, since its message has none."""
    if b"\\ud" not in raw.lower():
        return None
    try:
        return _where(json.loads(raw), _has_surrogate, "")
    except (ValueError, RecursionError):
        return None


_REWRITE, _SECRET, _DEEP, _FOREIGN = 1, 2, 4, 8
"""Bits of `_findings`: not canonical as msgspec writes it, under a secret name, nested too deep, not a type of JSON."""
_PLAIN = frozenset({str, int, bool, type(None), msgspec.Raw})
"""Types that msgspec writes in canonical form; a float of a decoded record is a `msgspec.Raw` that is canonical already."""


def _of_key(key: str) -> int:
    return (0 if in_plain_order(key) else _REWRITE) | (_SECRET if is_secret_name(key) else 0)


_remembered_key = lru_cache(maxsize=4_096)(_of_key)
_REMEMBERED_KEY_CHARS_MAX = 64
"""Characters of keys that are cached: records use few distinct ones."""


def _findings(value: Any, depth: int) -> int:
    """Return what needs care in a JSON value, as bits. Most values need none and are encoded as they are."""
    kind = type(value)
    if kind in _PLAIN:
        return 0
    if kind is float:
        return _REWRITE
    if kind is not dict and kind is not list:
        return _FOREIGN
    if depth == 0:
        return _DEEP
    found = 0
    if kind is list:
        for item in value:
            if type(item) not in _PLAIN:
                found |= _findings(item, depth - 1)
        return found
    for key, item in value.items():
        if type(key) is not str:
            return _FOREIGN
        found |= _remembered_key(key) if len(key) <= _REMEMBERED_KEY_CHARS_MAX else _of_key(key)
        if type(item) not in _PLAIN:
            found |= _findings(item, depth - 1)
    return found


def _json(value: Any) -> Any:
    """Return Python values (times, tuples, enumerations) as JSON types."""
    value = msgspec.to_builtins(value, str_keys=True, builtin_types=(msgspec.Raw,))
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, list | tuple) else value


def _canonical_forms(record: RecordInput, complete: RecordInput) -> tuple[bytes, bytes]:
    """Return the canonical bytes of `record` and of `complete`, both with secrets masked.

    `complete` is `record` with defaults. Most records need neither defaults nor masking; then both results are one object.
    """
    rewritten: dict[str, Any] = {}
    masked: list[str] = []
    for name in _JSON_FIELDS:
        value = getattr(record, name)
        if value is UNSET or not (found := _findings(value, DEPTH_MAX)):
            continue
        if found & _FOREIGN:
            value = _json(value)
            found = _findings(value, DEPTH_MAX)
        if found & _DEEP:
            raise _too_deep(name)
        written = canonical(value)
        if found & _SECRET:
            if _NUL in written and (where := _where(value, _has_nul, name)):
                raise _nul(where)  # a masked value would hide it from the check of the whole record
            written = canonical(mask(value, f"/{name}", masked))
        rewritten[name] = msgspec.Raw(written)
    same = complete is record and not masked
    if rewritten:
        record = replace(record, **rewritten)
    if same:
        both = canonical_plain(record)
        return both, both
    if rewritten:
        complete = replace(complete, **rewritten)
    if masked:
        complete = _Content(**{name: getattr(complete, name) for name in complete.__struct_fields__}, masked=sorted(masked))
    return canonical_plain(record), canonical_plain(complete)


def _check_time(occurred_at: datetime, now: datetime) -> None:
    if occurred_at - now > FUTURE_SKEW_MAX:
        raise DecklogError(
            Code.INVALID_RECORD,
            f"occurred_at is {occurred_at}, more than {FUTURE_SKEW_MAX.seconds // 60} minutes ahead of the server's clock.",
        )
    if occurred_at.year < 2 or occurred_at.year > 9998:
        raise DecklogError(Code.INVALID_RECORD, "occurred_at is outside the years 2 to 9998.")


def _with_id(record: RecordInput, default_id: str | None) -> RecordInput:
    if default_id is None or record.id is not None:
        return record
    if not 1 <= len(default_id) <= ID_CHARS_MAX:
        raise DecklogError(Code.INVALID_RECORD, f"The id must have 1 to {ID_CHARS_MAX} characters, and has {len(default_id)}.")
    return replace(record, id=default_id)


def _recorded(content: bytes, outcome: Outcome, recorder: bytes) -> bytes:
    """Return canonical content with the member `recorded_by`, which follows `outcome` in canonical order.

    The last `"outcome":` is the record's own: the members after it hold no objects of the client's making, and a text escapes
    its quotes. So no JSON is decoded and encoded again.
    """
    before, own, after = content.rpartition(_OUTCOME_MEMBERS[outcome])
    return b"".join((before, own, b',"recorded_by":', recorder, after))


def prepare(
    record: RecordInput, *, now: datetime, fingerprint_key: bytes, default_id: str | None = None, recorder: bytes | None = None
) -> Prepared:
    """Return a record ready to be stored, before it has a place in its log.

    Args:
        record: What the client sent.
        now: The server's clock; `occurred_at` if the record has none.
        fingerprint_key: Key of the HMAC-SHA-256 of what the client sent, with secrets masked and without defaults; 16 bytes of it are kept.
        default_id: Stands for the record's own `id` if that is absent (`Idempotency-Key`).
        recorder: Becomes the member `recorded_by` of the content; None adds none. The fingerprint does not cover it, so a retry
            by another credential is a retry.

    Raises:
        DecklogError: `invalid-record` (time in the future, nesting, U+0000) and `body-too-large`.
    """
    record = _with_id(record, default_id)
    occurred_at = record.occurred_at or now
    severity, outcome = record.severity or Severity.INFO, record.outcome or Outcome.UNKNOWN
    _check_time(occurred_at, now)
    complete = record
    if record.occurred_at is None or record.severity is None or record.outcome is None:
        complete = replace(record, occurred_at=occurred_at, severity=severity, outcome=outcome)
    try:
        recognised, content = _canonical_forms(record, complete)
    except UnicodeEncodeError:
        raise _surrogate(_where(_json(record), _has_surrogate, "") or "The record") from None
    except ValueError as error:
        raise DecklogError(Code.INVALID_RECORD, f"The record cannot be written as JSON: {error}.") from None
    if _NUL in content and (where := _where(_json(record), _has_nul, "")):
        raise _nul(where)
    if len(content) > RECORD_BYTES_MAX:
        raise DecklogError(Code.BODY_TOO_LARGE, f"A record may have at most {RECORD_BYTES_MAX} bytes in canonical form.")
    if recorder is not None:
        content = _recorded(content, outcome, recorder)
    actor, resource, source = record.actor, record.resource, record.source
    return Prepared(
        id=record.id,
        fingerprint=None if record.id is None else _fingerprint(fingerprint_key, recognised),
        occurred_at=occurred_at.astimezone(UTC),
        action=column(record.action),
        actor_type=optional_column(actor.type),
        actor_id=column(actor.id),
        resource_type=optional_column(resource.type) if resource else None,
        resource_id=optional_column(resource.id) if resource else None,
        severity=_SEVERITY[severity],
        outcome=_OUTCOME[outcome],
        ip=_address(source.ip) if source and source.ip else None,
        session_id=optional_column(record.session_id),
        correlation_id=optional_column(record.correlation_id),
        content=content,
        digest=digest(content),
    )


def _fingerprint(key: bytes, canonical_form: bytes) -> bytes:
    """Return what recognises a retry. No masked value may enter it, or the answer to a retry would tell whether a guess is right."""
    began, ends = _keyed(key)
    inner = began.copy()
    inner.update(canonical_form)
    outer = ends.copy()
    outer.update(inner.digest())
    whole: bytes = outer.digest()
    return whole[:16]


@lru_cache(maxsize=8)
def _keyed(key: bytes) -> tuple[Any, Any]:
    """Return the inner and the outer hash of HMAC-SHA-256 (RFC 2104, section 4) that have taken the key.

    To copy them costs a third of what the module hmac takes for each record.
    """
    block = (key if len(key) <= _BLOCK_BYTES else hashlib.sha256(key).digest()).ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(block.translate(_INNER_PAD)), hashlib.sha256(block.translate(_OUTER_PAD))
