"""What the edge reads of a request besides its body: its id, its headers, its parameters, and who sent it."""

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
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, RequestContext
from decklog.services.records.reading import Parameters

PARAMETERS_MAX = 100
QUERY_BYTES_MAX = 16 * 1024
USER_AGENT_CHARS_MAX = 512

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_CREDENTIALS = frozenset({"token", "access_token", "api_key", "apikey", "authorization", "key"})
"""Names under which other services take secrets in addresses, where logs and histories keep them."""

_STREAMED = ("/export", "/stream")

_process = secrets.token_hex(6)
_numbers = itertools.count(1)


def has_head(path: str) -> bool:
    """Whether HEAD is answered at this path: not where the answer is made while it is sent."""
    return not path.rstrip("/").endswith(_STREAMED)


class Asked(NamedTuple):
    """A request that is authenticated and parsed."""

    services: ApiServices
    principal: Principal
    context: RequestContext
    parameters: Parameters


def make_request_id(sent: bytes | None) -> str:
    """The client's X-Request-Id where it is harmless, else a new one."""
    if sent is not None and _SANE_ID.fullmatch(sent):
        return sent.decode()
    return f"{_process}-{next(_numbers):x}"


def media_type(headers: dict[bytes, bytes]) -> str:
    """What the body is said to be, without parameters; JSON where nothing is said."""
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
        "Credentials are not taken from the query string, where logs would keep them. Send Authorization: Bearer <token>.",
    )


def query_parameters(query_string: bytes) -> list[tuple[str, str]]:
    """Query parameters in order. Raises `invalid-parameter`, and `unknown-parameter` for credentials."""
    if not query_string:
        return []
    if len(query_string) > QUERY_BYTES_MAX:
        raise DecklogError(Code.INVALID_PARAMETER, f"The query string may have at most {QUERY_BYTES_MAX} bytes.")
    try:
        found = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except ValueError:
        raise DecklogError(
            Code.INVALID_PARAMETER,
            f"The query string must be UTF-8 in percent-encoding, with at most {PARAMETERS_MAX} parameters.",
        ) from None
    if any(name.lower() in _CREDENTIALS for name, _ in found):
        raise _no_credential()
    return found


def refuse_parameters(query_string: bytes, *known: str) -> dict[str, str]:
    """Parameters of a route that has only these. Raises `unknown-parameter`, and `invalid-parameter` for doubled ones."""
    found: dict[str, str] = {}
    for name, value in query_parameters(query_string):
        if name not in known:
            may = f"Known: {', '.join(known)}." if known else "This route has none."
            raise DecklogError(
                Code.UNKNOWN_PARAMETER, f"There is no parameter {name[:80]!r}. {may}", extra={"parameter": name[:80]}
            )
        if name in found:
            raise DecklogError(Code.INVALID_PARAMETER, f"{name}: may be given once only.", extra={"parameter": name})
        found[name] = value
    return found


def context_of(scope: Scope) -> RequestContext:
    """What an access record says of the request. The address is the peer's, or the one that a trusted proxy saw: see
    `server.serve`. No other header can change it."""
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
    principal = await authenticate(services.identity, connection.scope["headers"], subprotocols)
    return Asked(services, principal, context_of(connection.scope), parameters)
