"""Errors of Decklog: one exception with a stable code.

An error is raised where it is known and translated once at each edge (HTTP status, exit code, condition). No code in between may
depend on its text. A new code is added here and to `api/errors.py`; docs/reference/errors.md is generated from both.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Stable, documented error codes. The value is the last part of a problem's `type`."""

    MALFORMED_REQUEST = "malformed-request"
    HEADERS_TOO_LARGE = "headers-too-large"
    URI_TOO_LONG = "uri-too-long"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    READER_TOO_SLOW = "reader-too-slow"
    INVALID_JSON = "invalid-json"
    INVALID_RECORD = "invalid-record"
    INVALID_PARAMETER = "invalid-parameter"
    UNKNOWN_PARAMETER = "unknown-parameter"
    INVALID_QUERY = "invalid-query"
    INVALID_CURSOR = "invalid-cursor"
    QUESTION_NOT_UNDERSTOOD = "question-not-understood"
    QUESTION_TOO_COSTLY = "question-too-costly"
    REQUEST_TIMEOUT = "request-timeout"
    BODY_TOO_LARGE = "body-too-large"
    TOO_MANY_RECORDS = "too-many-records"
    UNSUPPORTED_ENCODING = "unsupported-encoding"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    CSRF = "csrf"
    TENANT_SUSPENDED = "tenant-suspended"
    NOT_FOUND = "not-found"
    HTTP_VERSION = "http-version"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    ID_CONFLICT = "id-conflict"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    NOTHING_STORED = "nothing-stored"
    BATCH_REJECTED = "batch-rejected"
    BATCH_EXCEEDS_BURST = "batch-exceeds-burst"
    RATE_LIMITED = "rate-limited"
    QUOTA_EXCEEDED = "quota-exceeded"
    TOO_MANY_STREAMS = "too-many-streams"
    TOO_MANY_BUCKETS = "too-many-buckets"
    OVERLOADED = "overloaded"
    OUTCOME_UNKNOWN = "outcome-unknown"
    STORAGE_UNAVAILABLE = "storage-unavailable"
    SEARCH_UNAVAILABLE = "search-unavailable"
    ACCESS_LOG_UNAVAILABLE = "access-log-unavailable"
    REGISTRY_STALE = "registry-stale"
    ISSUER_UNAVAILABLE = "issuer-unavailable"
    CLOCK_BEHIND = "clock-behind"
    INVALID_TENANT = "invalid-tenant"
    CONFLICT = "conflict"
    MANAGED_BY_KUBERNETES = "managed-by-kubernetes"
    RECORD_DAMAGED = "record-damaged"
    MISCONFIGURED = "misconfigured"
    INTERNAL = "internal"


class DecklogError(Exception):
    """An error: what was wrong, where, and what to do about it.

    Args:
        code: The stable code.
        detail: One or two sentences for a person, without secrets and without data of other tenants.
        retry_after: Seconds to wait, if waiting helps.
        extra: Further members of the problem document, for example `errors`.
    """

    def __init__(self, code: Code, detail: str, *, retry_after: float | None = None, extra: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.extra = extra or {}

    def __repr__(self) -> str:
        return f"DecklogError({self.code.value!r}, {self.detail!r})"


NAME_CHARS_MAX = 80
"""Characters of a parameter's name or value that an error repeats where the text may be of any length."""


def invalid_parameter(name: str, why: str) -> DecklogError:
    """Return the refusal of one query parameter: what is wrong with its value, or what is allowed."""
    name = name[:NAME_CHARS_MAX]
    return DecklogError(Code.INVALID_PARAMETER, f"{name}: {why}", extra={"parameter": name})


def unknown_parameter(name: str, known: str) -> DecklogError:
    """Return the refusal of a query parameter that does not exist; `known` lists those that do."""
    name = name[:NAME_CHARS_MAX]
    return DecklogError(Code.UNKNOWN_PARAMETER, f"There is no parameter {name!r}. Known: {known}.", extra={"parameter": name})
