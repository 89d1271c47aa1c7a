"""The errors that answers carry: problem documents, and what proxies on the way send in place of one."""

from __future__ import annotations

import httpx
import msgspec

from decklog import shapes
from decklog.domain.errors import Code, DecklogError

_BY_STATUS = {
    401: Code.UNAUTHENTICATED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    408: Code.REQUEST_TIMEOUT,
    413: Code.BODY_TOO_LARGE,
    429: Code.RATE_LIMITED,
    502: Code.OUTCOME_UNKNOWN,
    503: Code.OUTCOME_UNKNOWN,
    504: Code.OUTCOME_UNKNOWN,
}
"""Codes for answers without a problem document: a proxy on the way sent them, and it knows no codes."""


def decoded_problem(body: bytes) -> DecklogError | None:
    """Return the error of a problem document, None if it is not one of Decklog's."""
    try:
        problem = msgspec.json.decode(body, type=shapes.Problem)
        code = Code(problem.code)
    except (msgspec.DecodeError, ValueError):
        return None
    extra = {
        name: getattr(problem, name) for name in ("errors", "parameter", "seq", "items") if getattr(problem, name) is not None
    }
    return DecklogError(code, problem.detail, retry_after=problem.retry_after, extra=extra)


def error_of(response: httpx.Response, body: bytes) -> DecklogError:
    """Return the error of an answer with a status of 400 or more."""
    if error := decoded_problem(body):
        return error
    header = response.headers.get("retry-after", "")
    return DecklogError(
        _BY_STATUS.get(response.status_code, Code.INTERNAL),
        f"{response.url.host} answered with status {response.status_code} and no problem document.",
        retry_after=float(header) if header.isascii() and header.isdigit() else None,
    )
