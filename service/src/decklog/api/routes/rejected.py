"""Rejected records: list, read, replay, delete."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath

from decklog import shapes
from decklog.api.limits import BODY_ERRORS, check_length, read_body
from decklog.api.openapi import JSON, Json, Media, Operation, json_answer, parameter
from decklog.api.rate import RATE_HEADERS, rate_headers
from decklog.api.reads import RECORD_INPUT, SERVER_FIELDS
from decklog.api.request import ask, refuse_parameters, require_json
from decklog.api.routes.append import APPEND_ERRORS, OVERSIZE, WORDS, receipt_json, sender_of, trims
from decklog.domain.errors import Code, invalid_parameter
from decklog.domain.identity.access import Permission, acting_tenant
from decklog.domain.log import rfc3339
from decklog.domain.records.append import Status
from decklog.domain.records.record import RecordInput
from decklog.domain.records.rejected import RejectedRecord
from decklog.domain.records.trimming import OVERSIZE_BYTES_MAX
from decklog.services.records.rejected import LIMIT_DEFAULT, LIMIT_MAX

_NUMBER_MAX = 2**63 - 1
_ERRORS = (
    Code.UNKNOWN_PARAMETER,
    Code.INVALID_PARAMETER,
    Code.FORBIDDEN,
    Code.TENANT_SUSPENDED,
    Code.STORAGE_UNAVAILABLE,
    Code.ACCESS_LOG_UNAVAILABLE,
)
_ID = parameter(
    "number", "Number of the rejected record.", {"type": "integer", "minimum": 1}, place="path", example=17, required=True
)
_LISTED: Json = {
    "id": 17,
    "rejected_at": "2026-01-01T00:00:00.000000Z",
    "code": "invalid-record",
    "detail": "Object missing required field `actor`.",
    "record_id": None,
    "recorded_by": {"type": "api_key", "id": "0f3a9c51d2e4b687", "ip": "192.0.2.7"},
    "request_id": "5f0c2b7d91aa-1c",
    "bytes": 24,
    "has_content": True,
}


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= most):
        raise invalid_parameter(name, f"must be a number from 1 to {most}.")
    return int(text)


def _shown(record: RejectedRecord) -> Json:
    return {
        "id": record.id,
        "rejected_at": rfc3339(record.rejected_at),
        "code": record.code,
        "detail": record.detail,
        "record_id": record.record_id,
        "recorded_by": record.recorded_by,
        "request_id": record.request_id,
        "bytes": record.size,
        "has_content": record.has_content,
    }


_LIST = Operation(
    "list_rejected",
    "read",
    {
        200: json_answer(
            "Rejected records, newest first, and counts.",
            shapes.RejectedPage,
            {
                "items": [_LISTED],
                "next": None,
                "rejected": 21,
                "unkept": 0,
                "dropped": 20,
                "kept": 1,
                "bytes": 24,
                "last_at": "2026-01-01T00:00:00.000000Z",
                "last_code": "invalid-record",
            },
        )
    },
    (*_ERRORS, Code.RATE_LIMITED),
    parameters=[
        parameter(
            "limit", "Records of one page.", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
        ),
        parameter("before", "`next` of the page before: records with smaller numbers follow.", {"type": "integer", "minimum": 1}),
    ],
)


@get("/rejected", opt={"operation": _LIST})
async def list_rejected(request: Request[Any, Any, Any]) -> Response[bytes]:
    """List rejected records of the tenant, without their content.

    Role: admin. A tenant keeps 1,000 rejected records and 8 MiB of them, for at most 30 days; the oldest go first. The request is
    recorded in the access log.
    """
    found = refuse_parameters(request.scope["query_string"], "limit", "before")
    limit = _number("limit", found.get("limit", str(LIMIT_DEFAULT)), LIMIT_MAX)
    before = _number("before", found["before"], _NUMBER_MAX) if "before" in found else None
    asked = await ask(request)
    page = await asked.services.rejected.list(asked.principal, asked.context, before=before, limit=limit)
    counts = msgspec.to_builtins(page.counts)
    counts["last_at"] = None if page.counts.last_at is None else rfc3339(page.counts.last_at)
    answer = {"items": [_shown(item) for item in page.items], "next": page.next, **counts}
    return Response(msgspec.json.encode(answer), media_type=JSON)


_GET = Operation(
    "get_rejected",
    "read",
    {200: json_answer("The rejected record.", shapes.RejectedRecord, {**_LISTED, "content": '{"action":"user.login","n":1}'})},
    (*_ERRORS, Code.RATE_LIMITED, Code.NOT_FOUND),
    parameters=[_ID],
)


@get("/rejected/{number:str}", opt={"operation": _GET})
async def get_rejected(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[bytes]:
    """Get one rejected record with its content.

    Role: admin. `content` is the JSON as sent, with secrets masked; null if it was no JSON or larger than 512 KiB. The request is
    recorded in the access log.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    record = await asked.services.rejected.get(asked.principal, asked.context, _number("number", number, _NUMBER_MAX))
    return Response(msgspec.json.encode({**_shown(record), "content": record.content}), media_type=JSON)


_RECEIPT: Json = {**SERVER_FIELDS, "status": "stored"}
_REPLAY = Operation(
    "replay_rejected",
    "append",
    {
        201: json_answer("The record is stored durably, and no longer rejected.", shapes.Receipt, _RECEIPT, RATE_HEADERS),
        200: json_answer(
            "The same record had been stored before, at this position.",
            shapes.Receipt,
            {**_RECEIPT, "status": "duplicate"},
            RATE_HEADERS,
        ),
    },
    (
        *dict.fromkeys((*_ERRORS, *APPEND_ERRORS, *BODY_ERRORS)),
        Code.NOT_FOUND,
        Code.CONFLICT,
        Code.INVALID_RECORD,
        Code.ID_CONFLICT,
    ),
    parameters=[_ID, OVERSIZE],
    body={JSON: Media(RecordInput, RECORD_INPUT)},
    body_required=False,
)


@post("/rejected/{number:str}/replay", status_code=201, opt={"operation": _REPLAY})
async def replay_rejected(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[bytes]:
    """Store a rejected record after a fix, and remove it from the rejected ones.

    Role: admin. Without a body the kept content is stored, for example after a limit was raised; with a body that record is stored in its
    place. `recorded_by` of the record is the admin. The record keeps the id that the key of its bulk gave it; one without an id gets
    `rejected/<number>`, so a replay may be repeated. A record that is refused again stays as it is.
    """
    parameters = refuse_parameters(request.scope["query_string"], "oversize")
    asked = await ask(request)
    tenant = acting_tenant(asked.principal, Permission.MANAGE)
    wanted, trimming = _number("number", number, _NUMBER_MAX), trims(parameters)
    headers = dict(request.scope["headers"])
    with asked.services.ingest.bodies.account(tenant.id) as held:
        check_length(headers.get(b"content-length"), OVERSIZE_BYTES_MAX)
        mended = await read_body(request.receive, OVERSIZE_BYTES_MAX, held=held)
        if mended:
            require_json(headers, "a record")
        receipt, rate = await asked.services.rejected.replay(
            asked.principal, asked.context, wanted, sender_of(asked.principal, request.scope), mended, trims=trimming
        )
    told = {} if rate is None else {name.decode(): value.decode() for name, value in rate_headers(rate)}
    return Response(
        receipt_json(tenant.name, receipt, WORDS[receipt.status]),
        status_code=201 if receipt.status is Status.STORED else 200,
        media_type=JSON,
        headers=told,
    )


_DELETE = Operation(
    "delete_rejected",
    "append",
    {200: json_answer("The rejected record is deleted.", shapes.DeletedRejected, {"id": 17, "status": "deleted"})},
    (*_ERRORS, Code.NOT_FOUND),
    parameters=[_ID],
)


@delete("/rejected/{number:str}", status_code=200, opt={"operation": _DELETE})
async def delete_rejected(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[bytes]:
    """Delete one rejected record. It was never part of the log.

    Role: admin. The request is recorded in the access log.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    wanted = _number("number", number, _NUMBER_MAX)
    await asked.services.rejected.delete(asked.principal, asked.context, wanted)
    return Response(msgspec.json.encode({"id": wanted, "status": "deleted"}), media_type=JSON)
