"""Append one record.

An ASGI application of its own answers `POST /api/v1/logs`: Litestar's routing and response handling cost more than the rest
of the request. The handler at the end declares the route and its operation, and is never called.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any, cast

import msgspec
from litestar import post
from litestar.types import HTTPScope, Receive, Scope, Send

from decklog import shapes
from decklog.api.auth import authenticate, bearer, recorder_of
from decklog.api.errors import STATUSES, send_problem, translated
from decklog.api.limits import BODY_ERRORS, ClientGoneError, check_length, read_record
from decklog.api.metrics import observe
from decklog.api.openapi import JSON, Json, Media, Operation, json_answer, parameter
from decklog.api.rate import RATE_HEADERS, rate_headers
from decklog.api.reads import RECORD_INPUT, SERVER_FIELDS
from decklog.api.refusals import note_refused
from decklog.api.request import PRINCIPAL, make_request_id, refuse_parameters, require_json
from decklog.api.services import ApiServices
from decklog.domain.errors import Code, invalid_parameter
from decklog.domain.identity.access import Permission, Principal, acting_tenant
from decklog.domain.log import rfc3339
from decklog.domain.records.append import Rate, Receipt, Status
from decklog.domain.records.canonical import digest_text
from decklog.domain.records.idempotency import HEADER, KEY_CHARS_MAX, read_key
from decklog.domain.records.record import RECORD_BYTES_MAX, RecordInput
from decklog.domain.records.trimming import OVERSIZE_BYTES_MAX
from decklog.services.records.bulk import Sender

PATH = "/api/v1/logs"
WORDS = {Status.STORED: "stored", Status.DUPLICATE: "duplicate"}
"""`status` of a result on the wire."""
APPEND_ERRORS = (
    *BODY_ERRORS,
    Code.UNKNOWN_PARAMETER,
    Code.INVALID_PARAMETER,
    Code.FORBIDDEN,
    Code.TENANT_SUSPENDED,
    Code.RATE_LIMITED,
    Code.QUOTA_EXCEEDED,
    Code.OVERLOADED,
    Code.OUTCOME_UNKNOWN,
    Code.STORAGE_UNAVAILABLE,
    Code.CLOCK_BEHIND,
)
"""Errors of every append: of its permission, its body and its commit."""
_KEY_PATTERN = r'^("([ !#-\[\]-~]|\\["\\])+"|[!#-+\--~]([ -+\--~]*[!-+\--~])?)$'
IDEMPOTENCY_KEY = parameter(
    HEADER,
    f"Id of the record if the record has no `id`: at most {KEY_CHARS_MAX} characters, in quotes or without. The key of a bulk belongs to "
    "its items, in their order; record *i* without an `id` gets the id `<key>/<i>`.",
    {"type": "string", "minLength": 1, "maxLength": 2 * KEY_CHARS_MAX + 2, "pattern": _KEY_PATTERN},
    place="header",
    example="order-77",
)
OVERSIZE = parameter(
    "oversize",
    "What is done with a record that is too large or too deep: refuse it, or store it without the largest or deepest values of "
    "`metadata`, `before` and `after`, which the record lists in `trimmed`. Default: `spec.ingest.oversize` of the tenant.",
    {"type": "string", "enum": ["reject", "trim"]},
)
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]
_HTTP_STATUS = {Status.STORED: 201, Status.DUPLICATE: 200}
_RECEIPT: Json = {**SERVER_FIELDS, "status": "stored"}


def receipt_json(tenant: str, receipt: Receipt, status: str) -> bytes:
    """Return the answer to an append. Nothing needs escaping: names of tenants consist of letters, digits and '-'."""
    return (
        f'{{"tenant":"{tenant}","log":"events","epoch":{receipt.epoch},"seq":{receipt.seq},'
        f'"received_at":"{rfc3339(receipt.received_at)}","digest":"{digest_text(receipt.digest)}","status":"{status}"{_trimmed(receipt)}}}'
    ).encode()


def _trimmed(receipt: Receipt) -> str:
    return f',"trimmed":{msgspec.json.encode(receipt.trimmed).decode()}' if receipt.trimmed else ""


async def answer(services: ApiServices, scope: HTTPScope, receive: Receive, send: Send) -> None:
    """Answer `POST /api/v1/logs` as an ASGI application: errors, request id and metrics included."""
    started = perf_counter()
    headers = dict(scope["headers"])
    identifier = make_request_id(headers.get(b"x-request-id"))
    scope.setdefault("state", {})["request_id"] = identifier
    common = [*_HEADERS, (b"x-request-id", identifier.encode())]
    status = 0
    try:
        status, body, rate = await _stored(services, scope, headers, receive)
        common.append((b"content-length", b"%d" % len(body)))
        if rate is not None:
            common += rate_headers(rate)
        await send({"type": "http.response.start", "status": status, "headers": common})
        await send({"type": "http.response.body", "body": body, "more_body": False})
    except ClientGoneError:
        pass
    except Exception as error:  # noqa: BLE001 - the edge translates every error, and logs those that it does not know
        note_refused(services, scope, error)
        ours = translated(error, scope)
        status = STATUSES[ours.code][0]
        await send_problem(ours, scope, send, headers=common[1:])
    finally:
        observe(PATH, "POST", status, perf_counter() - started)


async def _stored(
    services: ApiServices, scope: HTTPScope, headers: dict[bytes, bytes], receive: Receive
) -> tuple[int, bytes, Rate | None]:
    asked = refuse_parameters(scope["query_string"], "oversize") if scope["query_string"] else {}
    principal = _recognised(services, scope, headers) or await authenticate(services.identity, services.sessions, scope)
    scope["state"][PRINCIPAL] = principal
    tenant = acting_tenant(principal, Permission.APPEND)
    require_json(headers, "a record")
    trimming = trims(asked) if asked else None
    bytes_max = OVERSIZE_BYTES_MAX if trimming or (trimming is None and tenant.limits.trims) else RECORD_BYTES_MAX
    check_length(headers.get(b"content-length"), bytes_max)
    raw = await read_record(receive, services.ingest.bodies, tenant.id, bytes_max)
    receipt, rate = await services.ingest.append(
        tenant, raw, key=idempotency_key(headers, scope), sender=sender_of(principal, scope), trims=trimming
    )
    return _HTTP_STATUS[receipt.status], receipt_json(tenant.name, receipt, WORDS[receipt.status]), rate


def sender_of(principal: Principal, scope: Scope) -> Sender:
    """Return the sender of a request's records."""
    return Sender(recorder_of(principal, scope), scope["state"]["request_id"])


def trims(parameters: Mapping[str, str]) -> bool | None:
    """Return whether a request asks for trimming; None if it does not say. Raises `invalid-parameter`."""
    asked = parameters.get("oversize")
    if asked not in (None, "reject", "trim"):
        raise invalid_parameter("oversize", f"{asked[:80]!r} is neither 'reject' nor 'trim'.")
    return None if asked is None else asked == "trim"


def idempotency_key(headers: dict[bytes, bytes], scope: HTTPScope) -> str | None:
    """Return the Idempotency-Key without its quotes, None if it is absent. Raises `invalid-parameter`."""
    if b"idempotency-key" not in headers:
        return None
    return read_key([value for name, value in scope["headers"] if name == b"idempotency-key"])


def _recognised(services: ApiServices, scope: HTTPScope, headers: dict[bytes, bytes]) -> Principal | None:
    """Return the principal of a cached credential; None where `authenticate` must decide."""
    authorization = headers.get(b"authorization")
    if authorization is None or len(headers) != len(cast("list[Any]", scope["headers"])):
        return None
    return services.identity.recognise(bearer(authorization))


_OPERATION = Operation(
    "append",
    "append",
    {
        201: json_answer("The record is stored durably.", shapes.Receipt, _RECEIPT, RATE_HEADERS),
        200: json_answer(
            "The same record had been stored before, at this position.",
            shapes.Receipt,
            {**_RECEIPT, "status": "duplicate"},
            RATE_HEADERS,
        ),
    },
    (*APPEND_ERRORS, Code.INVALID_RECORD, Code.ID_CONFLICT),
    parameters=[OVERSIZE, IDEMPOTENCY_KEY],
    body={
        JSON: Media(
            RecordInput,
            examples={"smallest": {"action": "user.login", "actor": {"id": "alice"}}, "usual": RECORD_INPUT},
        )
    },
)


@post("/logs", opt={"operation": _OPERATION})
async def append() -> None:
    """Append one record.

    The answer is sent after the record is committed. A retry with the same `id` and the same content is safe: it returns
    200 and the position of the first record. The same `id` with other content returns `id-conflict`.
    """
