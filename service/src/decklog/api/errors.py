"""Errors as HTTP has them: every refusal becomes RFC 9457 problem details, with one status per code.

The only place where a code meets a status. What nobody expected is logged with its cause and answered as `internal`,
without saying more.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, NotFoundException
from litestar.types import Scope, Send

from decklog.api.limits import ClientGoneError
from decklog.api.rate import rate_headers
from decklog.api.request import has_head
from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.append import Rate

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "https://decklog.dev/problems/"
"""In front of the code in a problem's `type`: an identifier, not an address that is read."""

STATUSES: dict[Code, tuple[int, str]] = {
    # 422 and not 400: a lone surrogate is well-formed JSON that cannot be stored, and the decoder does not tell them apart.
    Code.INVALID_JSON: (422, "The body is not valid JSON"),
    Code.INVALID_RECORD: (422, "The record is not valid"),
    Code.INVALID_PARAMETER: (422, "A parameter is not valid"),
    Code.UNKNOWN_PARAMETER: (422, "There is no such parameter"),
    Code.INVALID_CURSOR: (422, "The cursor is not valid"),
    Code.REQUEST_TIMEOUT: (408, "The request did not arrive in time"),
    Code.BODY_TOO_LARGE: (413, "The body is too large"),
    Code.TOO_MANY_RECORDS: (413, "There are too many records"),
    Code.UNSUPPORTED_ENCODING: (415, "The content encoding cannot be read"),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, "The media type is not supported"),
    Code.UNAUTHENTICATED: (401, "The credential is missing or not valid"),
    Code.FORBIDDEN: (403, "The credential does not allow this"),
    Code.TENANT_SUSPENDED: (403, "The tenant is suspended"),
    Code.NOT_FOUND: (404, "There is no such thing"),
    Code.METHOD_NOT_ALLOWED: (405, "The method is not allowed here"),
    Code.ID_CONFLICT: (409, "The id was used for other content"),
    Code.BATCH_REJECTED: (422, "The batch was rejected as a whole"),
    Code.BATCH_EXCEEDS_BURST: (422, "The batch is larger than the tenant's burst"),
    Code.RATE_LIMITED: (429, "The tenant's rate limit is reached"),
    Code.QUOTA_EXCEEDED: (429, "The tenant's quota is used up"),
    Code.TOO_MANY_STREAMS: (429, "There are too many open streams"),
    Code.TOO_MANY_BUCKETS: (422, "There are too many buckets"),
    Code.OVERLOADED: (503, "The service is overloaded"),
    Code.OUTCOME_UNKNOWN: (503, "Whether it was stored is not known"),
    Code.STORAGE_UNAVAILABLE: (503, "The storage is not available"),
    Code.SEARCH_UNAVAILABLE: (503, "The search is not available"),
    Code.ACCESS_LOG_UNAVAILABLE: (503, "The access log cannot be written"),
    Code.REGISTRY_STALE: (503, "The registry cannot be read"),
    Code.CLOCK_BEHIND: (503, "The clock is behind the log"),
    Code.INVALID_TENANT: (422, "The tenant is not valid"),
    Code.CONFLICT: (409, "There is a conflict"),
    Code.MANAGED_BY_KUBERNETES: (409, "Kubernetes manages the tenants"),
    Code.MISCONFIGURED: (500, "The service is misconfigured"),
    Code.INTERNAL: (500, "Something went wrong inside"),
}
_RETRY_AFTER_DEFAULT = 1
"""Seconds; every 429 and 503 says when to come back."""

_log = structlog.get_logger(__name__)


def request_id(scope: Scope) -> str:
    """The id that the edge gave to this request."""
    found: str = scope.get("state", {}).get("request_id", "")
    return found


def problem(error: DecklogError, instance: str) -> dict[str, Any]:
    """The problem document as plain JSON."""
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
    """Whole seconds for `Retry-After`, at least one, where waiting helps."""
    if error.retry_after is not None:
        return max(1, math.ceil(error.retry_after))
    return _RETRY_AFTER_DEFAULT if STATUSES[error.code][0] in (429, 503) else None


def problem_headers(error: DecklogError) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    if error.code is Code.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b'Bearer realm="decklog"'))
    if (seconds := retry_after(error)) is not None:
        headers.append((b"retry-after", b"%d" % seconds))
    if isinstance(rate := error.extra.get("rate"), Rate):
        headers.extend(rate_headers(rate))
    return headers


async def send_problem(
    error: DecklogError, scope: Scope, send: Send, *, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer a request with a problem."""
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
    """Any exception as one of ours; what is unknown is logged with its cause and becomes `internal`."""
    if isinstance(error, DecklogError):
        if STATUSES[error.code][0] == 500:
            _log.error("request failed", request_id=request_id(scope), code=error.code.value, exc_info=error)
        return error
    if isinstance(error, ClientGoneError):
        return DecklogError(Code.REQUEST_TIMEOUT, "The client went away before its request was complete.")
    if isinstance(error, HTTPException) and error.status_code < 500:
        return _of_framework(error)
    _log.error("request failed", request_id=request_id(scope), path=scope["path"], exc_info=error)
    return DecklogError(Code.INTERNAL, "Something went wrong inside the service. It was logged under the id in `instance`.")


def _of_framework(error: HTTPException) -> DecklogError:
    if isinstance(error, NotFoundException):
        return DecklogError(Code.NOT_FOUND, "There is nothing at this path. See /schema for what there is.")
    if error.status_code == 405:
        return DecklogError(Code.METHOD_NOT_ALLOWED, "This path does not take this method. See the header Allow.")
    if error.status_code == 413:
        return DecklogError(Code.BODY_TOO_LARGE, "The body is too large.")
    return DecklogError(Code.INVALID_PARAMETER, "The request is not valid.")


def _allowed(error: Exception, path: str) -> list[tuple[bytes, bytes]]:
    """`Allow` as the router gives it, without what is no method."""
    if not isinstance(error, HTTPException) or error.status_code != 405:
        return []
    methods = {name for name in (error.headers or {}).get("allow", "").split(", ") if name.isupper()}
    if "GET" in methods and has_head(path):
        methods.add("HEAD")
    return [(b"allow", ", ".join(sorted(methods)).encode())]


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's way to our problem documents."""
    ours = translated(error, request.scope)
    headers = [*problem_headers(ours), *_allowed(error, request.scope["path"])]
    return Response(
        msgspec.json.encode(problem(ours, request_id(request.scope))),
        status_code=STATUSES[ours.code][0],
        media_type=PROBLEM_JSON,
        headers={name.decode(): value.decode() for name, value in headers},
    )


def close_code(error: DecklogError) -> int:
    """A WebSocket close code: 1013 (try again later), 1011 (internal), else 4000 and the HTTP status."""
    status = STATUSES[error.code][0]
    if status == 503:
        return 1013
    return 1011 if status == 500 else 4000 + status
