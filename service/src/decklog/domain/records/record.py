"""An audit record: what a client may send, and how it is prepared for storage.

The shape follows NIST SP 800-53 AU-3 (what, when, where, source, outcome, identities) with the usual names of audit logs.
`prepare` does all work on one record that needs no lock.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from decklog.domain.errors import Code, DecklogError
from decklog.domain.faults import FAULTS_MAX, syntax
from decklog.domain.privacy.masking import mask
from decklog.domain.records.canonical import canonical, canonical_plain, digest, number
from decklog.domain.records.findings import DEEP, FOREIGN, SECRET, findings, json_types
from decklog.domain.records.fingerprint import fingerprint
from decklog.domain.records.refusal import (
    DEPTH_MAX,
    JSON_FIELDS,
    NUL,
    SURROGATE,
    TOO_DEEP,
    explained,
    has_nul,
    has_surrogate,
    lone_surrogate,
    out_of_time,
    path_of,
)
from decklog.domain.search.terms import IP_CHARS_MAX, column, optional_column, parse_ip
from decklog.domain.times import NotATimeError, read_time
from decklog.domain.unique_names import colons, may_repeat, repeated

RECORD_BYTES_MAX = 256 * 1024
"""Bytes of one record as sent, and of its canonical form."""
RELATED_MAX = 100
"""Resources in `related` of one record."""
ID_CHARS_MAX = 256
"""Characters of a client's id."""
NAME_CHARS_MAX = 256
"""Characters of actions and types, which programmers choose."""
REFERENCE_CHARS_MAX = 64 * 1024
"""Characters of identities, names, addresses and references. Anybody may choose them, for example at a sign-in: a limit that a user
name can exceed would let an attacker choose not to be recorded. So only the size of the record bounds them."""
USER_AGENT_CHARS_MAX = REFERENCE_CHARS_MAX
MESSAGE_CHARS_MAX = REFERENCE_CHARS_MAX

if TYPE_CHECKING:
    Moment = str | datetime
    """A time as sent, or of a record of our own making."""
else:
    Moment = Annotated[
        str,
        Meta(
            description="RFC 3339 with an offset; the time of receipt if absent. Digits beyond microseconds are kept.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Reference = Annotated[str, Meta(max_length=REFERENCE_CHARS_MAX)]


class Severity(StrEnum):
    """How serious an event is, in ascending order. Storage holds the index of a member, so members are only appended."""

    __hash__ = str.__hash__  # of an enumeration it is Python code, and costs as much as the look-up

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class Outcome(StrEnum):
    """The result of an action. Storage holds the index of a member, so members are only appended."""

    __hash__ = str.__hash__

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

    ip: Annotated[str, Meta(max_length=REFERENCE_CHARS_MAX)] | None = None
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
    occurred_at: Moment | None = None
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
_NUL = b"\\u0000"
_address = lru_cache(maxsize=4_096)(parse_ip)  # few distinct ones recur


def decode(raw: bytes | memoryview | msgspec.Raw, *, now: datetime | None = None, faults_max: int = FAULTS_MAX) -> RecordInput:
    """Return one record decoded from JSON. `prepare` checks what a decoder cannot.

    Args:
        raw: The JSON. A byte order mark in front of it is skipped.
        now: The server's clock, for a refusal that lists all faults.
        faults_max: Faults that a refusal lists.

    Raises:
        DecklogError: `body-too-large`, `invalid-json` or `invalid-record`, with the path of each fault.
    """
    if (len(raw) if isinstance(raw, bytes) else len(memoryview(raw))) > RECORD_BYTES_MAX:
        raise DecklogError(Code.BODY_TOO_LARGE, f"A record may have at most {RECORD_BYTES_MAX} bytes.")
    try:
        return _input.decode(raw)
    except msgspec.ValidationError:
        unexplained = DecklogError(Code.INVALID_RECORD, "The record does not have the form of a record.")
        raise explained(unexplained, bytes(raw), RecordInput, now, faults_max) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if (text := bytes(raw)).startswith(BOM_UTF8):
            return decode(text.removeprefix(BOM_UTF8), now=now, faults_max=faults_max)
        if where := lone_surrogate(text):
            raise _invalid(where, SURROGATE) from None
        raise DecklogError(Code.INVALID_JSON, f"The record is not valid JSON in UTF-8: {syntax(error)}.") from None
    except RecursionError:
        raise _invalid("The record", TOO_DEEP) from None


def _invalid(where: str, why: str) -> DecklogError:
    return DecklogError(Code.INVALID_RECORD, f"{where[:200]}: {why}.")


def prepare_sent(
    raw: bytes | msgspec.Raw,
    *,
    now: datetime,
    fingerprint_key: bytes,
    default_id: str | None = None,
    recorder: bytes | None = None,
    faults_max: int = FAULTS_MAX,
) -> Prepared:
    """Return a record as a client sent it, ready to be stored; see `decode` and `prepare`. A refusal lists all its faults."""
    text = bytes(raw)
    try:
        record = _input.decode(text) if len(text) <= RECORD_BYTES_MAX else decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        record = decode(text, now=now, faults_max=faults_max)  # with the reason
    try:
        return prepare(record, now=now, fingerprint_key=fingerprint_key, default_id=default_id, recorder=recorder, sent=text)
    except DecklogError as error:
        raise explained(error, text, RecordInput, now, faults_max) from None


def _canonical_forms(record: RecordInput, complete: RecordInput) -> tuple[bytes, bytes, int]:
    """Return the canonical bytes of `record` and of `complete`, both with secrets masked, and the colons that masking took away.

    `complete` is `record` with defaults. Most records need neither defaults nor masking; then both results are one object.
    """
    metadata, before, after = record.metadata, record.before, record.after
    plain = (
        (metadata is UNSET or not findings(metadata, DEPTH_MAX))
        and (before is UNSET or not findings(before, DEPTH_MAX))
        and (after is UNSET or not findings(after, DEPTH_MAX))
    )
    if plain and complete is record:
        both = canonical_plain(record)
        return both, both, 0
    care = {} if plain else {name: bits for name in JSON_FIELDS if (bits := findings(getattr(record, name), DEPTH_MAX))}
    lost = 0
    rewritten: dict[str, Any] = {}
    masked: list[str] = []
    for name, bits in care.items():
        value, found = getattr(record, name), bits
        if bits & FOREIGN:
            value = json_types(value)
            found = findings(value, DEPTH_MAX)
        if found & DEEP:
            raise _invalid(name, TOO_DEEP)
        written = canonical(value)
        if found & SECRET:
            if _NUL in written and (where := path_of(value, has_nul, name)):
                raise _invalid(where, NUL)  # a masked value would hide it from the check of the whole record
            lost += colons(written)
            written = canonical(mask(value, f"/{name}", masked))
            lost -= colons(written)
        rewritten[name] = msgspec.Raw(written)
    same = complete is record and not masked
    if rewritten:
        record = replace(record, **rewritten)
    if same:
        both = canonical_plain(record)
        return both, both, lost
    if rewritten:
        complete = replace(complete, **rewritten)
    if masked:
        complete = _Content(**{name: getattr(complete, name) for name in complete.__struct_fields__}, masked=sorted(masked))
    return canonical_plain(record), canonical_plain(complete), lost


def _moment(sent: str | datetime, now: datetime) -> tuple[datetime, str | datetime]:
    """Return the time of a record, cut to microseconds, and how the record writes it. Raises `invalid-record`."""
    try:
        moment, spelling = read_time(sent) if isinstance(sent, str) else (sent, sent)
    except NotATimeError as error:
        raise _invalid("occurred_at", f"{error}".removesuffix(".")) from None
    if (moment > now or moment.year < 2) and (reason := out_of_time(moment, now)) is not None:
        raise _invalid("occurred_at", reason)
    return moment, spelling


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


def _refuse_repeated(sent: bytes) -> None:
    if found := repeated(sent.removeprefix(BOM_UTF8)):
        raise _invalid("The record", str(found[0]))


def prepare(
    record: RecordInput,
    *,
    now: datetime,
    fingerprint_key: bytes,
    default_id: str | None = None,
    recorder: bytes | None = None,
    sent: bytes | None = None,
) -> Prepared:
    """Return a record ready to be stored, before it has a place in its log.

    Args:
        record: What the client sent.
        now: The server's clock; `occurred_at` if the record has none.
        fingerprint_key: Key of the HMAC-SHA-256 of what the client sent, with secrets masked and without defaults; 16 bytes of it are kept.
        default_id: Stands for the record's own `id` if that is absent (`Idempotency-Key`).
        recorder: Becomes the member `recorded_by` of the content; None adds none. The fingerprint does not cover it, so a retry
            by another credential is a retry.
        sent: The JSON that the record was decoded from, to refuse a name that occurs twice in one object.

    Raises:
        DecklogError: `invalid-record` (time in the future, nesting, U+0000, a repeated name) and `body-too-large`.
    """
    asked, time = record, record.occurred_at
    record = _with_id(record, default_id)
    moment, spelling = (now, now) if time is None else _moment(time, now)
    if time is not None and spelling != time:
        record = replace(record, occurred_at=spelling)
    severity, outcome = record.severity or Severity.INFO, record.outcome or Outcome.UNKNOWN
    complete = record
    if time is None or record.severity is None or record.outcome is None:
        complete = replace(record, occurred_at=record.occurred_at or now, severity=severity, outcome=outcome)
    escapes = sent is None or default_id is not None or sent.find(b"\\") >= 0  # `find` is several times faster than `in`
    recognised, content, masked = _encoded(record, complete, escapes=escapes)
    if sent is not None:
        kept = colons(recognised) + masked - (0 if record is asked else _colons_added(asked, record))
        if may_repeat(sent, kept, escapes=escapes):
            _refuse_repeated(sent)
    if recorder is not None:
        content = _recorded(content, outcome, recorder)
    actor, resource, source = record.actor, record.resource, record.source
    return Prepared(
        id=record.id,
        fingerprint=None if record.id is None else fingerprint(fingerprint_key, recognised, record.occurred_at),
        occurred_at=moment if moment.tzinfo is UTC else moment.astimezone(UTC),
        action=column(record.action),
        actor_type=optional_column(actor.type),
        actor_id=column(actor.id),
        resource_type=optional_column(resource.type) if resource else None,
        resource_id=optional_column(resource.id) if resource else None,
        severity=_SEVERITY[severity],
        outcome=_OUTCOME[outcome],
        ip=_address(source.ip) if source and source.ip and len(source.ip) <= IP_CHARS_MAX else None,
        session_id=optional_column(record.session_id),
        correlation_id=optional_column(record.correlation_id),
        content=content,
        digest=digest(content),
    )


def _encoded(record: RecordInput, complete: RecordInput, *, escapes: bool) -> tuple[bytes, bytes, int]:
    """Return what `_canonical_forms` returns. Raises `invalid-record` and `body-too-large`.

    Without `escapes` in the JSON that was sent, no text has U+0000.
    """
    try:
        recognised, content, masked = _canonical_forms(record, complete)
    except UnicodeEncodeError:
        raise _invalid(path_of(json_types(record), has_surrogate, "") or "The record", SURROGATE) from None
    except ValueError as error:
        raise DecklogError(Code.INVALID_RECORD, f"The record cannot be written as JSON: {error}.") from None
    if escapes and content.find(_NUL) >= 0 and (where := path_of(json_types(record), has_nul, "")):
        raise _invalid(where, NUL)
    if len(content) > RECORD_BYTES_MAX:
        raise DecklogError(Code.BODY_TOO_LARGE, f"A record may have at most {RECORD_BYTES_MAX} bytes in canonical form.")
    return recognised, content, masked


def _colons_added(sent: RecordInput, record: RecordInput) -> int:
    """Return the colons that a record has beyond what was sent: of its id, and of the offset of its time."""
    added = 0
    if sent.id is None and record.id is not None:
        added += 1 + record.id.count(":")
    if isinstance(sent.occurred_at, str) and isinstance(record.occurred_at, str):
        added += record.occurred_at.count(":") - sent.occurred_at.count(":")
    return added
