"""Errors as HTTP answers: each DecklogError becomes an RFC 9457 problem document, with one status for each code.

No other module maps a code to a status. An unexpected exception is logged with its cause and answered as `internal`, without
details.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, NotFoundException
from litestar.types import Scope, Send

from decklog.api.limits import ClientGoneError
from decklog.api.rate import rate_headers
from decklog.api.refusals import note_refused
from decklog.api.request import has_head, make_request_id
from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.append import Rate

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "https://decklog.dev/problems/"
"""Prefix of the code in a problem's `type`. It is an identifier and need not resolve."""

STATUSES: dict[Code, tuple[int, str]] = {
    Code.MALFORMED_REQUEST: (400, "Malformed request"),
    Code.HEADERS_TOO_LARGE: (431, "Headers too large"),
    Code.URI_TOO_LONG: (414, "URI too long"),
    Code.TOO_MANY_CONNECTIONS: (429, "Too many connections"),
    # Never an answer, as nobody reads it: the reason in the access record of the end.
    Code.READER_TOO_SLOW: (408, "Reader too slow"),
    # 422 and not 400: a lone surrogate is well-formed JSON that cannot be stored, and the decoder reports both alike.
    Code.INVALID_JSON: (422, "Invalid JSON"),
    Code.INVALID_RECORD: (422, "Invalid record"),
    Code.INVALID_PARAMETER: (422, "Invalid parameter"),
    Code.UNKNOWN_PARAMETER: (422, "Unknown parameter"),
    Code.INVALID_QUERY: (422, "Invalid query"),
    Code.INVALID_CURSOR: (422, "Invalid cursor"),
    Code.QUESTION_NOT_UNDERSTOOD: (422, "Question not understood"),
    Code.QUESTION_TOO_COSTLY: (422, "Question too costly"),
    Code.REQUEST_TIMEOUT: (408, "Request timeout"),
    Code.BODY_TOO_LARGE: (413, "Body too large"),
    Code.TOO_MANY_RECORDS: (413, "Too many records"),
    Code.UNSUPPORTED_ENCODING: (415, "Unsupported content encoding"),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, "Unsupported media type"),
    Code.UNAUTHENTICATED: (401, "Not authenticated"),
    Code.FORBIDDEN: (403, "Forbidden"),
    Code.CSRF: (403, "Cross-site request"),
    Code.TENANT_SUSPENDED: (403, "Tenant suspended"),
    Code.NOT_FOUND: (404, "Not found"),
    Code.HTTP_VERSION: (426, "HTTP/1.1 required"),
    Code.METHOD_NOT_ALLOWED: (405, "Method not allowed"),
    Code.ID_CONFLICT: (409, "Id already used"),
    Code.IDEMPOTENCY_KEY_REUSED: (422, "Idempotency key already used"),
    Code.NOTHING_STORED: (422, "Nothing stored"),
    Code.BATCH_REJECTED: (422, "Batch rejected"),
    Code.BATCH_EXCEEDS_BURST: (422, "Batch exceeds burst"),
    Code.RATE_LIMITED: (429, "Rate limit reached"),
    Code.QUOTA_EXCEEDED: (429, "Quota exceeded"),
    Code.TOO_MANY_STREAMS: (429, "Too many streams"),
    Code.TOO_MANY_BUCKETS: (422, "Too many buckets"),
    Code.OVERLOADED: (503, "Service overloaded"),
    Code.OUTCOME_UNKNOWN: (503, "Outcome unknown"),
    Code.STORAGE_UNAVAILABLE: (503, "Storage unavailable"),
    Code.SEARCH_UNAVAILABLE: (503, "Search unavailable"),
    Code.ACCESS_LOG_UNAVAILABLE: (503, "Access log unavailable"),
    Code.REGISTRY_STALE: (503, "Registry unavailable"),
    Code.ISSUER_UNAVAILABLE: (503, "Issuer unavailable"),
    Code.CLOCK_BEHIND: (503, "Clock behind the log"),
    Code.INVALID_TENANT: (422, "Invalid tenant"),
    Code.CONFLICT: (409, "Conflict"),
    Code.MANAGED_BY_KUBERNETES: (409, "Managed by Kubernetes"),
    Code.RECORD_DAMAGED: (500, "Record damaged"),
    Code.MISCONFIGURED: (500, "Service misconfigured"),
    Code.INTERNAL: (500, "Internal error"),
}
COMMON_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
NO_STORE = (b"cache-control", b"no-store")
NO_CONTENT_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
REJECTED = b"decklog-rejected"
"""Header of every answer to a bulk: how many of its records were rejected."""
_RETRY_AFTER_DEFAULT = 1
"""Seconds. Every 429 and 503 carries `Retry-After`."""

_log = structlog.get_logger(__name__)


def request_id(scope: Scope) -> str:
    """Return the id of this request, as in the header X-Request-Id."""
    found: str = scope.get("state", {}).get("request_id", "")
    return found


def problem(error: DecklogError, instance: str) -> dict[str, Any]:
    """Return the problem document as plain JSON. `instance` is the id of the request."""
    status, title = STATUSES[error.code]
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + error.code.value,
        "title": title,
        "status": status,
        "code": error.code.value,
        "detail": error.detail,
        "instance": instance,
    }
    if (seconds := retry_after(error)) is not None:
        document["retry_after"] = seconds
    for name, value in error.extra.items():
        if not isinstance(value, Rate):
            document.setdefault(name, value)
    return document


def retry_after(error: DecklogError) -> int | None:
    """Return the seconds for `Retry-After`, at least 1; None if waiting does not help."""
    if error.retry_after is not None:
        return max(1, math.ceil(error.retry_after))
    return _RETRY_AFTER_DEFAULT if STATUSES[error.code][0] in (429, 503) else None


def problem_headers(error: DecklogError) -> list[tuple[bytes, bytes]]:
    """Return the headers that an error adds to its answer: WWW-Authenticate, Upgrade, Retry-After, Decklog-Rejected, RateLimit."""
    headers: list[tuple[bytes, bytes]] = []
    if error.code is Code.HTTP_VERSION:  # RFC 9110, 15.5.22 and 7.8
        headers += [(b"upgrade", b"HTTP/1.1"), (b"connection", b"upgrade")]
    if error.code is Code.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b'Bearer realm="decklog"'))
    if (seconds := retry_after(error)) is not None:
        headers.append((b"retry-after", b"%d" % seconds))
    if isinstance(rejected := error.extra.get("rejected"), int):
        headers.append((REJECTED, b"%d" % rejected))
    if isinstance(rate := error.extra.get("rate"), Rate):
        headers.extend(rate_headers(rate))
    return headers


def raw_answer(error: DecklogError) -> bytes:
    """Return a whole HTTP answer, from outside the application: a problem document with a request id of its own.

    The connection must be closed after it.
    """
    identifier = make_request_id(None)
    body = msgspec.json.encode(problem(error, identifier))
    headers = [
        (b"content-type", PROBLEM_JSON.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *problem_headers(error),
        *COMMON_HEADERS,
        NO_STORE,
        NO_CONTENT_POLICY,
        (b"x-request-id", identifier.encode()),
    ]
    status = HTTPStatus(STATUSES[error.code][0])
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *(name + b": " + value for name, value in headers)]
    return b"\r\n".join([*lines, b"", body])


async def send_problem(
    error: DecklogError, scope: Scope, send: Send, *, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer a request with a problem document, without Litestar."""
    body = msgspec.json.encode(problem(error, request_id(scope)))
    await send(
        {
            "type": "http.response.start",
            "status": STATUSES[error.code][0],
            "headers": [
                (b"content-type", PROBLEM_JSON.encode()),
                (b"content-length", b"%d" % len(body)),
                *problem_headers(error),
                *(headers or []),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def translated(error: Exception, scope: Scope) -> DecklogError:
    """Return any exception as a DecklogError. An unexpected one is logged with its cause and becomes `internal`."""
    if isinstance(error, DecklogError):
        if STATUSES[error.code][0] == 500:
            _log.error("request failed", request_id=request_id(scope), code=error.code.value, exc_info=error)
        return error
    if isinstance(error, ClientGoneError):
        return DecklogError(Code.REQUEST_TIMEOUT, "The client disconnected before its request was complete.")
    if isinstance(error, HTTPException) and error.status_code < 500:
        return _of_framework(error)
    _log.error("request failed", request_id=request_id(scope), path=scope["path"], exc_info=error)
    return DecklogError(Code.INTERNAL, "An unexpected error occurred. The service logged it with the request id in `instance`.")


def _of_framework(error: HTTPException) -> DecklogError:
    if isinstance(error, NotFoundException):
        return DecklogError(Code.NOT_FOUND, "No route has this path. See /schema for all routes.")
    if error.status_code == 405:
        return DecklogError(Code.METHOD_NOT_ALLOWED, "This path does not support this method. See the header Allow.")
    if error.status_code == 413:
        return DecklogError(Code.BODY_TOO_LARGE, "The body exceeds the size limit.")
    return DecklogError(Code.INVALID_PARAMETER, "The request is malformed.")


def allowed(methods: Iterable[str], path: str) -> bytes:
    """Return the header `Allow` of a path: the router's methods, and HEAD where GET is allowed."""
    names = set(methods)
    if "GET" in names and has_head(path):
        names.add("HEAD")
    return ", ".join(sorted(names)).encode()


def _allow_header(error: Exception, path: str) -> list[tuple[bytes, bytes]]:
    if not isinstance(error, HTTPException) or error.status_code != 405:
        return []
    return [(b"allow", allowed((name for name in (error.headers or {}).get("allow", "").split(", ") if name.isupper()), path))]


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer any exception with a problem document; Litestar's exception handler."""
    if (services := request.app.state.get("services")) is not None:
        note_refused(services, request.scope, error)
    ours = translated(error, request.scope)
    headers = [*problem_headers(ours), *_allow_header(error, request.scope["path"])]
    return Response(
        msgspec.json.encode(problem(ours, request_id(request.scope))),
        status_code=STATUSES[ours.code][0],
        media_type=PROBLEM_JSON,
        headers={name.decode(): value.decode() for name, value in headers},
    )


def close_code(error: DecklogError) -> int:
    """Return a WebSocket close code: 1013 (try again later), 1011 (internal error), else 4000 plus the HTTP status."""
    status = STATUSES[error.code][0]
    if status == 503:
        return 1013
    return 1011 if status == 500 else 4000 + status
