"""Append many records in one request."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from msgspec import Meta

from decklog.api.errors import retry_after
from decklog.api.limits import BULK_BYTES_MAX, RECORD_OVERHEAD_BYTES, check_length, decoded, read_body, split_array, split_lines
from decklog.api.openapi import JSON, Json, Media, Operation, json_answer, parameter
from decklog.api.rate import RATE_HEADERS, rate_headers
from decklog.api.reads import RECORD_INPUT
from decklog.api.request import ask, media_type, refuse_parameters
from decklog.api.routes.append import APPEND_ERRORS, IDEMPOTENCY_KEY, OVERSIZE, WORDS, idempotency_key, sender_of, trims
from decklog.domain.errors import Code, DecklogError, invalid_parameter
from decklog.domain.identity.access import Permission, acting_tenant
from decklog.domain.records.append import Receipt
from decklog.domain.records.record import RecordInput
from decklog.services.budget import Held
from decklog.services.records.bulk import cut_faults, shown_rejected
from decklog.services.records.ingest import RECORDS_PER_REQUEST_MAX, BulkResult
from decklog.shapes import BulkAnswer

NDJSON = "application/x-ndjson"


def _item(result: Receipt | DecklogError) -> Json:
    if isinstance(result, DecklogError):
        return shown_rejected(result)
    item: Json = {"status": WORDS[result.status], "seq": result.seq}
    return {**item, "trimmed": result.trimmed} if result.trimmed else item


def _flag(parameters: dict[str, str], name: str) -> bool:
    value = parameters.get(name, "false")
    if value not in ("true", "false"):
        raise invalid_parameter(name, f"{value[:80]!r} is neither true nor false.")
    return value == "true"


async def _records(request: Request[Any, Any, Any], headers: dict[bytes, bytes], held: Held) -> list[bytes] | list[msgspec.Raw]:
    """The records of the body, each as its own bytes. `held` counts them twice: as sent, and as they will be stored."""
    sent_as = media_type(headers)
    if sent_as not in (JSON, NDJSON):
        raise DecklogError(
            Code.UNSUPPORTED_MEDIA_TYPE, f"Content-Type {sent_as[:80]!r}: a bulk is either {JSON} (an array) or {NDJSON}."
        )
    check_length(headers.get(b"content-length"), BULK_BYTES_MAX, held)
    body = await read_body(request.receive, BULK_BYTES_MAX, held=held)
    body = await decoded(body, headers.get(b"content-encoding", b"").strip().lower().decode("latin-1"), held=held)
    records = split_array(body) if sent_as == JSON else split_lines(body)
    held.take(len(records) * RECORD_OVERHEAD_BYTES)
    return records


def _answer(result: BulkResult) -> Json:
    """Return the body of the answer. Raises `nothing-stored`, or what refused a part, where no record is stored."""
    items = [_item(item) for item in result.items]
    cut_faults(items)
    count = Counter(item["status"] for item in items)
    answer = {
        "stored": count["stored"],
        "duplicates": count["duplicate"],
        "rejected": count["rejected"],
        "kept": result.kept,
        "items": items,
    }
    if items and not count["stored"] and not count["duplicate"]:
        raise _nothing_stored(result, answer)
    return answer


def _nothing_stored(result: BulkResult, answer: Json) -> DecklogError:
    if (refused := result.refused) is not None:
        return DecklogError(refused.code, refused.detail, retry_after=refused.retry_after, extra={**refused.extra, **answer})
    first = next(item for item in result.items if isinstance(item, DecklogError))
    return DecklogError(
        Code.NOTHING_STORED,
        f"Every record was rejected ({len(result.items)}), so nothing was stored; `items` says why. The first one: {first.detail}",
        extra=answer if result.rate is None else {**answer, "rate": result.rate},
    )


_RETRY: dict[str, Any] = {
    "Retry-After": {
        "description": "Seconds to wait before the records that were refused are sent again; only after a part was refused.",
        "schema": {"type": "integer"},
    }
}
_REJECTED: dict[str, Any] = {
    "Decklog-Rejected": {
        "description": "Number of records that were rejected, also of an answer with another status.",
        "schema": {"type": "integer"},
    }
}
_OPERATION = Operation(
    "append_bulk",
    "append",
    {
        200: json_answer(
            "One result for each record, in the order of the request.",
            BulkAnswer,
            {
                "stored": 1,
                "duplicates": 1,
                "rejected": 1,
                "kept": 1,
                "items": [
                    {"status": "stored", "seq": 2042},
                    {"status": "duplicate", "seq": 2041},
                    {
                        "status": "rejected",
                        "error": {
                            "code": "invalid-record",
                            "detail": "actor: is required, and absent.",
                            "errors": [{"path": "actor", "message": "is required, and absent"}],
                        },
                    },
                ],
            },
            {**RATE_HEADERS, **_RETRY, **_REJECTED},
        )
    },
    (
        *APPEND_ERRORS,
        Code.TOO_MANY_RECORDS,
        Code.IDEMPOTENCY_KEY_REUSED,
        Code.NOTHING_STORED,
        Code.BATCH_REJECTED,
        Code.BATCH_EXCEEDS_BURST,
    ),
    parameters=[
        parameter("atomic", "Store all records or none.", {"type": "boolean", "default": False}),
        parameter(
            "strict",
            "Answer 422 if any record is rejected, and store nothing then. It implies `atomic`.",
            {"type": "boolean", "default": False},
        ),
        OVERSIZE,
        IDEMPOTENCY_KEY,
        parameter(
            "Content-Encoding",
            "Compression of the body.",
            {"type": "string", "enum": ["identity", "gzip", "zstd"]},
            place="header",
        ),
    ],
    body={
        JSON: Media(
            Annotated[list[RecordInput], Meta(max_length=RECORDS_PER_REQUEST_MAX)],
            [RECORD_INPUT, {"action": "user.login", "actor": {"id": "bob"}}],
        ),
        NDJSON: Media(
            {"type": "string", "description": "One record on each line."},
            '{"action": "user.login", "actor": {"id": "alice"}}\n{"action": "user.login", "actor": {"id": "bob"}}\n',
        ),
    },
)


@post("/logs/bulk", status_code=200, opt={"operation": _OPERATION})
async def append_bulk(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Append many records.

    The body is a JSON array or NDJSON, plain or compressed, of at most 10,000 records and 16 MiB. Valid records are stored
    even if others are rejected; `items` has one result for each record, and the header `Decklog-Rejected` counts those that were
    rejected; `kept` of them are kept for an admin. If every record is rejected, the status is 422 and the problem has the `items`. With `atomic=true` or `strict=true`
    either all records are stored or none, and then the status is 422. Otherwise a bulk is stored in parts of at most 500 records
    and 1 MiB. If a later part is refused, `items` says so and `Retry-After` says when to send these records again.
    """
    parameters = refuse_parameters(request.scope["query_string"], "atomic", "strict", "oversize")
    atomic = _flag(parameters, "atomic") | _flag(parameters, "strict")
    asked = await ask(request)
    tenant = acting_tenant(asked.principal, Permission.APPEND)
    headers = dict(request.scope["headers"])
    asked.services.ingest.byte_rates.refuse_early(tenant)
    asked.services.ingest.bodies.refuse_early(tenant.id)
    with asked.services.ingest.bodies.account(tenant.id) as held:
        records = await _records(request, headers, held)
        result = await asked.services.ingest.append_bulk(
            tenant,
            records,
            key=idempotency_key(headers, request.scope),
            atomic=atomic,
            sender=sender_of(asked.principal, request.scope),
            trims=trims(parameters),
        )
    answer = _answer(result)
    told = {"Decklog-Rejected": str(answer["rejected"])}
    if result.rate is not None:
        told |= {name.decode(): value.decode() for name, value in rate_headers(result.rate)}
    if result.refused is not None and (seconds := retry_after(result.refused)) is not None:
        told["Retry-After"] = str(seconds)
    return Response(msgspec.json.encode(answer), media_type=JSON, headers=told)
