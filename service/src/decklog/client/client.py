"""A client of the HTTP API: each method sends one request, and raises the server's error as a DecklogError.

It knows addresses and shapes, and decides nothing: it neither retries nor interprets records.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

from decklog import session_shapes, shapes
from decklog.domain.errors import Code, DecklogError

TIMEOUT = 60.0
"""Seconds without any progress of a request; the server's own limits are shorter."""

Parameters = Mapping[str, str | int | Sequence[str]]
"""Query parameters by the API's names. A sequence repeats the parameter."""

_KEY = re.compile(r"[!-~]{1,16384}")
_LINE_END = re.compile(rb"\r\n?|\n")
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

_T = TypeVar("_T")


class Found(msgspec.Struct, frozen=True):
    """One page of records, each as the bytes that the server wrote: numbers keep their digits, and members their order."""

    items: list[msgspec.Raw]
    next: str | None = None
    total: int | None = None
    position: str | None = None


def _decoded_problem(body: bytes) -> DecklogError | None:
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


def _error(response: httpx.Response, body: bytes) -> DecklogError:
    """Return the error of an answer with a status of 400 or more."""
    if error := _decoded_problem(body):
        return error
    header = response.headers.get("retry-after", "")
    return DecklogError(
        _BY_STATUS.get(response.status_code, Code.INTERNAL),
        f"{response.url.host} answered with status {response.status_code} and no problem document.",
        retry_after=float(header) if header.isascii() and header.isdigit() else None,
    )


def _address(url: str) -> str:
    """Return the base address of the API without a trailing slash. Raises `misconfigured`."""
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL("")
    if address.scheme not in ("http", "https") or not address.host:
        raise DecklogError(Code.MISCONFIGURED, "The URL must have the form https://decklog.example.com.")
    if address.userinfo:
        raise DecklogError(Code.MISCONFIGURED, "The URL must not contain credentials. Pass the key separately.")
    return str(address.copy_with(query=None, fragment=None)).rstrip("/")


async def readiness(
    url: str, *, timeout: float = TIMEOUT, transport: httpx.AsyncBaseTransport | None = None
) -> shapes.Readiness | None:
    """Return the answer of /readyz, which needs no credential; None if the address does not expose it.

    Raises `misconfigured`, `storage-unavailable` if the address cannot be reached, and what else a Client raises.
    """
    address = _address(url)
    with _Translated(address):
        async with httpx.AsyncClient(timeout=timeout, transport=transport) as http:
            response = await http.get(address + "/readyz")
    try:
        return msgspec.json.decode(response.content, type=shapes.Readiness)
    except msgspec.DecodeError:
        if response.status_code in (401, 403, 404):
            return None
        raise _error(response, response.content) from None


class Client:
    """A client of one server with one credential. Use it with `async with`.

    `url` is the address of the API without `/api/v1`; `key` is an API key or a JWT, None for a client that signs in. Raises
    `misconfigured` if either is malformed. Every method raises the server's error, `storage-unavailable` if the server cannot be reached, and
    `outcome-unknown` if the connection broke after the request had begun.

    `request_id` is the id that the server gave to the last answered request: its log lines and access records carry it.
    """

    def __init__(
        self, url: str, key: str | None, *, timeout: float = TIMEOUT, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = _address(url)
        self.request_id = ""
        self._http = httpx.AsyncClient(
            base_url=self.url + "/api/v1",
            headers={**({} if key is None else _authorization(key)), "accept": "application/json"},
            timeout=timeout,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    async def append(self, record: bytes, *, idempotency_key: str | None = None) -> shapes.Receipt:
        """Append one record, given as JSON."""
        headers = {"content-type": "application/json", **_idempotency(idempotency_key)}
        return await self._ask(shapes.Receipt, "POST", "/logs", content=record, headers=headers)

    async def append_bulk(
        self, records: Sequence[bytes], *, atomic: bool = False, trim: bool = False, idempotency_key: str | None = None
    ) -> shapes.BulkAnswer:
        """Append records, each given as JSON on one line. Unless `atomic`, valid records are stored beside invalid ones.

        With `trim`, a record that is too large or too deep is stored without its largest or deepest values, which it lists.

        An answer in which every record is rejected is returned, not raised.
        """
        headers = {"content-type": "application/x-ndjson", **_idempotency(idempotency_key)}
        parameters = {**({"atomic": "true"} if atomic else {}), **({"oversize": "trim"} if trim else {})}
        content = b"\n".join(records)
        try:
            answer = await self._ask(shapes.BulkAnswer, "POST", "/logs/bulk", content=content, headers=headers, params=parameters)
        except DecklogError as error:
            if error.code is not Code.NOTHING_STORED or "items" not in error.extra:
                raise
            answer = shapes.BulkAnswer(0, 0, len(error.extra["items"]), error.extra["items"])
        if len(answer.items) != len(records):
            raise DecklogError(Code.INTERNAL, f"{self.url} returned {len(answer.items)} results for {len(records)} records.")
        return answer

    async def list(self, parameters: Parameters | None = None) -> shapes.Page:
        """Return one page of records, newest first. Parameters: filters, `limit`, `cursor`, `log`."""
        return await self._ask(shapes.Page, "GET", "/logs", params=parameters)

    async def search(self, body: Mapping[str, Any]) -> shapes.Page:
        """Return one page of records, as `list` does, for a query that may be longer than an address. `query` stands for `q`."""
        return await self._ask(shapes.Page, "POST", "/logs/search", json=dict(body))

    async def found(self, parameters: Parameters) -> Found:
        """Return one page as `list` does, with its records as the bytes that the server wrote."""
        return await self._ask(Found, "GET", "/logs", params=parameters)

    async def record(self, seq: int, *, log: str = "events") -> msgspec.Raw:
        """Return one record as the bytes that the server wrote. Raises `not-found`."""
        return await self._ask(msgspec.Raw, "GET", f"/logs/{seq}", params={"log": log})

    async def records(self, parameters: Parameters | None = None) -> AsyncIterator[shapes.Record]:
        """Iterate over all records that match the filters, newest first, page by page."""
        wanted = dict(parameters or {})
        while True:
            page = await self.list(wanted)
            for item in page.items:
                yield item
            if page.next is None:
                return
            wanted["cursor"] = page.next

    async def get(self, seq: int, *, log: str = "events") -> shapes.Record:
        """Return one record. Raises `not-found`."""
        return await self._ask(shapes.Record, "GET", f"/logs/{seq}", params={"log": log})

    @asynccontextmanager
    async def export(self, parameters: Parameters | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Iterate over an export of all records that match the filters, oldest first, in pieces of bytes.

        The iteration raises `outcome-unknown` if the transfer ends early: the pieces so far are not the whole export.
        """
        with self._translated():
            headers = {"accept": "*/*"}  # `format` decides, and NDJSON is the default
            async with self._http.stream("GET", "/logs/export", params=_plain(parameters), headers=headers) as response:
                if response.status_code >= 400:
                    raise _error(response, await response.aread())
                yield response.aiter_bytes()

    @asynccontextmanager
    async def stream(self, parameters: Parameters | None = None) -> AsyncIterator[AsyncIterator[shapes.Record]]:
        """Iterate over new records, once the server has confirmed that the stream is open.

        `after` starts at an older position, exclusive: -1 is before the first record. The iteration raises the error that
        ended the stream.
        """
        with self._translated():
            async with self._http.stream(
                "GET", "/logs/stream", params=_plain(parameters), headers={"accept": "text/event-stream"}
            ) as response:
                if response.status_code >= 400:
                    raise _error(response, await response.aread())
                async with aclosing(_events(response)) as events:
                    if await anext(events, None) is None:
                        raise DecklogError(Code.OUTCOME_UNKNOWN, f"{self.url} ended the stream before it was open.")
                    yield (msgspec.json.decode(data, type=shapes.Record) async for kind, data in events if kind == "record")

    async def stats(self, parameters: Parameters) -> shapes.Stats:
        """Return exact counts. Parameters: `by`, `interval`, and filters."""
        return await self._ask(shapes.Stats, "GET", "/logs/stats", params=parameters)

    async def rejected(self, *, limit: int = 100, before: int | None = None) -> shapes.RejectedPage:
        """Return rejected records without their content, newest first, and counts. Role: admin."""
        wanted: Parameters = {"limit": limit} | ({} if before is None else {"before": before})
        return await self._ask(shapes.RejectedPage, "GET", "/rejected", params=wanted)

    async def rejected_record(self, number: int) -> shapes.RejectedRecord:
        """Return a rejected record with its content. Role: admin. Raises `not-found`."""
        return await self._ask(shapes.RejectedRecord, "GET", f"/rejected/{number}")

    async def replay_rejected(self, number: int, mended: bytes = b"", *, trim: bool = False) -> shapes.Receipt:
        """Store a rejected record, or the mended one in its place, given as JSON. Role: admin. Raises `not-found`."""
        headers = {"content-type": "application/json"} if mended else {}
        parameters = {"oversize": "trim"} if trim else {}
        path = f"/rejected/{number}/replay"
        return await self._ask(shapes.Receipt, "POST", path, content=mended, headers=headers, params=parameters)

    async def delete_rejected(self, number: int) -> None:
        """Delete a rejected record. Role: admin. Raises `not-found`."""
        await self._ask(shapes.DeletedRejected, "DELETE", f"/rejected/{number}")

    async def whoami(self) -> shapes.WhoAmI:
        """Return the identity and the permissions of the credential."""
        return await self._ask(shapes.WhoAmI, "GET", "/whoami")

    async def tenant(self, name: str) -> shapes.Tenant:
        """Return one tenant with its conditions. Raises `not-found`, also for tenants that the caller may not see."""
        return await self._ask(shapes.Tenant, "GET", f"/tenants/{name}")

    async def tenants(self) -> Sequence[shapes.Tenant]:
        """Return all tenants with their conditions. Role: platform."""
        return (await self._ask(shapes.Tenants, "GET", "/tenants")).items

    async def sign_in(self, key: str) -> session_shapes.Session:
        """Open a session, whose cookie this client then sends. A further sign-in adds the identities of the session so far."""
        return await self._ask(session_shapes.Session, "POST", "/sessions", json={}, headers=_authorization(key))

    async def sign_out(self, session: session_shapes.Session) -> None:
        """End the session of this client."""
        with self._translated():
            response = await self._http.delete("/session", headers=_csrf(session))
        if response.status_code >= 400:
            raise _error(response, response.content)

    async def make_link(self, session: session_shapes.Session | None = None) -> session_shapes.SignInLink:
        """Make a one-time link that signs a browser in: with the key of this client, or with all identities of its session."""
        return await self._ask(
            session_shapes.SignInLink, "POST", "/sessions/links", headers={} if session is None else _csrf(session)
        )

    def _translated(self) -> _Translated:
        return _Translated(self.url)

    async def _ask(self, kind: type[_T], method: str, path: str, *, params: Parameters | None = None, **request: Any) -> _T:
        with self._translated():
            response = await self._http.request(method, path, params=_plain(params), **request)
        self.request_id = response.headers.get("x-request-id", "")
        if response.status_code >= 400:
            raise _error(response, response.content)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            raise DecklogError(
                Code.INTERNAL,
                f"{self.url} answered {method} {path} with status {response.status_code} and another body: {error}.",
            ) from None


async def _events(response: httpx.Response) -> AsyncGenerator[tuple[str, bytes], None]:
    """Iterate over Server-Sent Events as kind and data. Raises the error of a `problem` event.

    Servers before 0.1.0 name it `error`, and the first event `open`. The first event may have any name.
    """
    kind, data = "", list[bytes]()
    async for line in _event_lines(response.aiter_bytes()):
        name, _, value = line.partition(b":")
        if name == b"event":
            kind = value.removeprefix(b" ").decode()
        elif name == b"data":
            data.append(value.removeprefix(b" "))
        elif not line and data:
            if kind in ("problem", "error"):
                raise _ended(response, b"\n".join(data))
            yield kind, b"\n".join(data)
            kind, data = "", []


def _ended(response: httpx.Response, problem: bytes) -> DecklogError:
    return _decoded_problem(problem) or DecklogError(
        Code.INTERNAL, f"{response.url.host} ended the stream without a problem document."
    )


async def _event_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Iterate over the lines of an event stream, which end at LF, CR or CRLF only (WHATWG HTML, 9.2.5).

    `aiter_lines` of httpx also splits at U+2028, U+2029 and U+0085, which the text of a record may contain.
    """
    rest, after_cr = b"", False
    async for received in pieces:
        piece = received[1:] if after_cr and received.startswith(b"\n") else received
        after_cr = received.endswith(b"\r")
        *lines, rest = _LINE_END.split(rest + piece)
        for line in lines:
            yield line


def _authorization(key: str) -> dict[str, str]:
    """Return the header of a credential. Raises `misconfigured`."""
    if not _KEY.fullmatch(key):
        raise DecklogError(Code.MISCONFIGURED, "The key must be one word of ASCII characters.")
    return {"authorization": f"Bearer {key}"}


def _csrf(session: session_shapes.Session) -> dict[str, str]:
    return {"decklog-csrf": session.csrf}


def _plain(parameters: Parameters | None) -> httpx.QueryParams:
    pairs: list[tuple[str, str]] = []
    for name, value in (parameters or {}).items():
        pairs += [(name, str(item)) for item in ([value] if isinstance(value, str | int) else value)]
    return httpx.QueryParams(tuple(pairs))


def _idempotency(key: str | None) -> dict[str, str]:
    return {} if key is None else {"idempotency-key": key}


class _Translated:
    """Raises failures of the transport as DecklogError."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            raise DecklogError(Code.STORAGE_UNAVAILABLE, f"{self._url} cannot be reached.") from error
        if isinstance(error, httpx.TransportError):
            raise DecklogError(Code.OUTCOME_UNKNOWN, f"The connection to {self._url} broke.") from error
