"""A request without its body: its id, headers, query parameters and principal."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from litestar import Request, WebSocket
from litestar.types import Scope

from decklog.api.auth import authenticate
from decklog.api.services import ApiServices
from decklog.domain.errors import Code, DecklogError, invalid_parameter, unknown_parameter
from decklog.domain.identity.access import Principal, RequestContext
from decklog.services.records.list_options import Parameters

PARAMETERS_MAX = 100
QUERY_BYTES_MAX = 16 * 1024
USER_AGENT_CHARS_MAX = 512

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_CREDENTIALS = frozenset({"token", "access_token", "api_key", "apikey", "authorization", "key"})
"""Query parameters that other services use for credentials. Logs and browser histories keep them, so they are refused."""

_LEAF = re.compile(r"(metadata|before|after)\[(.+)\]", re.DOTALL)
_STREAMED = ("/export", "/stream")

PRINCIPAL = "principal"
"""Member of the scope's state with the principal of a request, for the record of its refusal."""

_process = secrets.token_hex(6)
_numbers = itertools.count(1)


def has_head(path: str) -> bool:
    """Return whether HEAD is supported at this path: not where the answer is streamed."""
    return not path.rstrip("/").endswith(_STREAMED)


class Asked(NamedTuple):
    """An authenticated request with its parsed query parameters, in the order sent."""

    services: ApiServices
    principal: Principal
    context: RequestContext
    parameters: Parameters


def require_http_1_1(scope: Scope, what: str) -> None:
    """Refuse a streamed answer to a client or a proxy that speaks HTTP/1.0. Raises `http-version`.

    HTTP/1.0 has no chunks (RFC 9112, 6.1), so its body would end with the connection, and a file that was cut off would look whole.
    """
    if scope["http_version"] == "1.0":
        raise DecklogError(
            Code.HTTP_VERSION,
            f"{what} needs HTTP/1.1: by HTTP/1.0 a transfer that was cut off cannot be told from a whole one. "
            "If a proxy is in between, let it speak HTTP/1.1 to Decklog (nginx: proxy_http_version 1.1).",
        )


def make_request_id(sent: bytes | None) -> str:
    """Return the client's X-Request-Id if it is safe to log, else a new id."""
    if sent is not None and _SANE_ID.fullmatch(sent):
        return sent.decode()
    return f"{_process}-{next(_numbers):x}"


def media_type(headers: dict[bytes, bytes]) -> str:
    """Return the media type of Content-Type without parameters; JSON if the header is absent."""
    return headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower().decode("latin-1")


def require_json(headers: dict[bytes, bytes], subject: str) -> None:
    """Check that the body is declared as uncompressed JSON. `subject` names its content, as in "a record".

    Raises `unsupported-media-type` and `unsupported-encoding`.
    """
    if headers.get(b"content-type") != b"application/json" and (sent_as := media_type(headers)) != "application/json":
        raise DecklogError(
            Code.UNSUPPORTED_MEDIA_TYPE, f"Content-Type {sent_as[:80]!r}: {subject} must be sent as application/json."
        )
    if (encoding := headers.get(b"content-encoding", b"identity").lower()) != b"identity":
        raise DecklogError(
            Code.UNSUPPORTED_ENCODING,
            f"Content-Encoding {encoding[:40].decode('latin-1')!r}: {subject} must be sent uncompressed. "
            "Only /api/v1/logs/bulk accepts gzip and zstd.",
        )


def _no_credential() -> DecklogError:
    return DecklogError(
        Code.UNKNOWN_PARAMETER,
        "Credentials are not accepted in the query string, because logs keep it. Send Authorization: Bearer <token>.",
    )


def query_parameters(query_string: bytes) -> list[tuple[str, str]]:
    """Return the query parameters in order. Raises `invalid-parameter`, and `unknown-parameter` for credentials."""
    if not query_string:
        return []
    if len(query_string) > QUERY_BYTES_MAX:
        raise DecklogError(
            Code.INVALID_PARAMETER, f"The query string has {len(query_string)} bytes; the maximum is {QUERY_BYTES_MAX}."
        )
    try:
        found = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except ValueError:
        raise DecklogError(
            Code.INVALID_PARAMETER,
            f"The query string must be percent-encoded UTF-8 with at most {PARAMETERS_MAX} parameters.",
        ) from None
    if any(name.lower() in _CREDENTIALS for name, _ in found):
        raise _no_credential()
    return [(_dotted(name), value) for name, value in found] if b"%5b" in query_string.lower() or b"[" in query_string else found


def _dotted(name: str) -> str:
    """Return the name of a leaf of a deepObject (`metadata[a.b]`) in its other form (`metadata.a.b`); any other name as it is."""
    match = _LEAF.fullmatch(name)
    return name if match is None else f"{match[1]}.{match[2]}"


def refuse_parameters(query_string: bytes, *known: str) -> dict[str, str]:
    """Return the query parameters of a route that has only the `known` ones.

    Raises `unknown-parameter`, and `invalid-parameter` for a repeated one.
    """
    found: dict[str, str] = {}
    for name, value in query_parameters(query_string):
        if name not in known:
            raise unknown_parameter(name, ", ".join(known) or "none")
        if name in found:
            raise invalid_parameter(name, "may be given only once.")
        found[name] = value
    return found


def context_of(scope: Scope) -> RequestContext:
    """Return what an access record says of the request.

    The address is the peer's, or the one that a trusted proxy forwards: see `server.serve`. No other header can change it.
    """
    headers = dict(scope["headers"])
    agent = headers.get(b"user-agent")
    client = scope.get("client")
    return RequestContext(
        request_id=scope["state"]["request_id"],
        ip=client[0] if client else None,
        user_agent=None if agent is None else agent.decode("latin-1").replace("\0", "")[:USER_AGENT_CHARS_MAX],
    )


async def ask(connection: Request[Any, Any, Any] | WebSocket[Any, Any, Any], subprotocols: Sequence[str] = ()) -> Asked:
    """Parse and authenticate a request or the handshake of a WebSocket.

    `subprotocols` are those that the client offers: one of them may carry the token. Raises `unauthenticated`,
    `registry-stale`, and the errors of `query_parameters`.
    """
    parameters = query_parameters(connection.scope["query_string"])
    services: ApiServices = connection.app.state.services
    principal = await authenticate(services.identity, services.sessions, connection.scope, subprotocols)
    connection.scope["state"][PRINCIPAL] = principal
    return Asked(services, principal, context_of(connection.scope), parameters)
