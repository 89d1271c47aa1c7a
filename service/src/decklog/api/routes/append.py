"""Records in: the route that everything waits for, and the same for many records at once.

A single append is answered by an ASGI application of its own, because Litestar's way from request to response costs
more than all the rest of it. Its handler declares the route and carries the documentation, and is never called.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import msgspec
from litestar import Request, Response, post
from litestar.types import HTTPScope, Receive, Send

from decklog.api.auth import authenticate, bearer
from decklog.api.errors import STATUSES, send_problem, translated
from decklog.api.limits import (
    BULK_BYTES_MAX,
    ClientGoneError,
    check_length,
    decoded,
    read_body,
    split_array,
    split_lines,
)
from decklog.api.metrics import observe
from decklog.api.operations import APPEND, APPEND_BULK
from decklog.api.rate import rate_headers
from decklog.api.request import ask, make_request_id, media_type, refuse_parameters
from decklog.api.services import ApiServices
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, Principal, acting_tenant
from decklog.domain.log import rfc3339
from decklog.domain.records.append import Rate, Receipt, Status
from decklog.domain.records.canonical import digest_text
from decklog.domain.records.record import RECORD_BYTES_MAX

PATH = "/api/v1/logs"
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]
_STATUS = {Status.STORED: (201, "stored"), Status.DUPLICATE: (200, "duplicate")}


def receipt_json(tenant: str, receipt: Receipt, status: str) -> bytes:
    """The answer to an append. Nothing in it needs escaping: a tenant's name is made of letters, digits and '-'."""
    return (
        f'{{"tenant":"{tenant}","log":"events","epoch":{receipt.epoch},"seq":{receipt.seq},'
        f'"received_at":"{rfc3339(receipt.received_at)}","digest":"{digest_text(receipt.digest)}","status":"{status}"}}'
    ).encode()


async def answer(services: ApiServices, scope: HTTPScope, receive: Receive, send: Send) -> None:
    """The ASGI application behind `POST /api/v1/logs`: every part of the answer, errors, request id and metrics included."""
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
    except Exception as error:  # noqa: BLE001 - the edge: translated, and logged where unknown
        ours = translated(error, scope)
        status = STATUSES[ours.code][0]
        await send_problem(ours, scope, send, headers=common[1:])
    finally:
        observe(PATH, "POST", status, perf_counter() - started)


async def _stored(
    services: ApiServices, scope: HTTPScope, headers: dict[bytes, bytes], receive: Receive
) -> tuple[int, bytes, Rate | None]:
    if scope["query_string"]:
        refuse_parameters(scope["query_string"])
    tenant = acting_tenant(await _principal(services, scope, headers), Permission.APPEND)
    _check_single(headers)
    check_length(headers.get(b"content-length"), RECORD_BYTES_MAX)
    raw = await read_body(receive)
    key = headers.get(b"idempotency-key")
    receipt, rate = await services.ingest.append(tenant, raw, key=None if key is None else key.decode("latin-1"))
    status, word = _STATUS[receipt.status]
    return status, receipt_json(tenant.name, receipt, word), rate


async def _principal(services: ApiServices, scope: HTTPScope, headers: dict[bytes, bytes]) -> Principal:
    """As `authenticate`, without waiting where the credential is known."""
    authorization = headers.get(b"authorization")
    if authorization is not None and len(headers) == len(list(scope["headers"])):
        principal = services.identity.recognise(bearer(authorization))
        if principal is not None:
            return principal
    return await authenticate(services.identity, scope["headers"])


def _check_single(headers: dict[bytes, bytes]) -> None:
    if headers.get(b"content-type") != b"application/json" and media_type(headers) != "application/json":
        raise DecklogError(Code.UNSUPPORTED_MEDIA_TYPE, "A record is sent as application/json.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise DecklogError(
            Code.UNSUPPORTED_ENCODING, "A single record is sent without Content-Encoding; /logs/bulk takes gzip and zstd."
        )


@post("/logs", opt=APPEND)
async def append() -> None:
    """Append one record.

    Answered only after the record is durable. Sending the same `id` with the same content again is safe and answers
    200 with the first record's place; other content under the same `id` is refused. The header `Idempotency-Key`
    stands for `id` where the record has none.
    """


def _item(result: Receipt | DecklogError) -> dict[str, Any]:
    if isinstance(result, DecklogError):
        return {"status": "rejected", "error": {"code": result.code.value, "detail": result.detail}}
    return {"status": _STATUS[result.status][1], "seq": result.seq}


def _atomic(parameters: dict[str, str]) -> bool:
    value = parameters.get("atomic", "false")
    if value not in ("true", "false"):
        raise DecklogError(Code.INVALID_PARAMETER, "atomic: must be true or false.", extra={"parameter": "atomic"})
    return value == "true"


@post("/logs/bulk", status_code=200, opt=APPEND_BULK)
async def append_bulk(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Append many records.

    A JSON array or NDJSON, plain or compressed. Good records are stored beside bad ones, each with its own result in
    the order sent; with `atomic=true` all are stored or none. The header `Idempotency-Key` gives item *i* the id
    `key/i` where it has none.
    """
    atomic = _atomic(refuse_parameters(request.scope["query_string"], "atomic"))
    asked = await ask(request)
    tenant = acting_tenant(asked.principal, Permission.APPEND)
    headers = dict(request.scope["headers"])
    sent_as = media_type(headers)
    if sent_as not in ("application/json", "application/x-ndjson"):
        raise DecklogError(Code.UNSUPPORTED_MEDIA_TYPE, "A bulk is application/json (an array) or application/x-ndjson.")
    check_length(headers.get(b"content-length"), BULK_BYTES_MAX)
    body = await read_body(request.receive, BULK_BYTES_MAX)
    body = await decoded(body, headers.get(b"content-encoding", b"").strip().lower().decode("latin-1"))
    raws = split_array(body) if sent_as == "application/json" else split_lines(body)
    key = headers.get(b"idempotency-key")
    result = await asked.services.ingest.append_bulk(
        tenant, raws, key=None if key is None else key.decode("latin-1"), atomic=atomic
    )
    items = [_item(item) for item in result.items]
    count = {word: sum(item["status"] == word for item in items) for word in ("stored", "duplicate", "rejected")}
    answer = {
        "stored": count["stored"],
        "duplicates": count["duplicate"],
        "rejected": count["rejected"],
        "items": items,
    }
    headers_out = {} if result.rate is None else {name.decode(): value.decode() for name, value in rate_headers(result.rate)}
    return Response(msgspec.json.encode(answer), media_type="application/json", headers=headers_out)
