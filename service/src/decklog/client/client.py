"""A client of the HTTP API: each method sends one request, and raises the server's error as a DecklogError.

It knows addresses and shapes, and decides nothing: it neither retries nor interprets records.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from decklog import key_shapes, session_shapes, shapes
from decklog.client.problems import error_of
from decklog.client.server_events import ServerEvent, events
from decklog.domain.errors import Code, DecklogError

TIMEOUT = 60.0
"""Seconds without any progress of a request; the server's own limits are shorter."""

Parameters = Mapping[str, str | int | Sequence[str]]
"""Query parameters by the API's names. A sequence repeats the parameter."""

_KEY = re.compile(r"[!-~]{1,16384}")
_T = TypeVar("_T")


class Found(msgspec.Struct, frozen=True):
    """One page of records, each as the bytes that the server wrote: numbers keep their digits, and members their order."""

    items: list[msgspec.Raw]
    next: str | None = None
    total: int | None = None
    position: str | None = None


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


class Unread(msgspec.Struct, frozen=True):
    """A part of a question that was not understood."""

    start: int
    end: int
    text: str


class ValueCount(msgspec.Struct, frozen=True):
    """A count of an answer."""

    value: str
    count: int


class Answered(msgspec.Struct, frozen=True):
    """The answer to a question in plain words, with its records as the bytes that the server wrote."""

    query: str
    answer: str
    comment: str = ""
    notes: list[str] = []
    not_understood: list[Unread] = []
    records: list[msgspec.Raw] = []
    counts: list[ValueCount] = []
    by: str | None = None
    conversation: str | None = None


class Exported:
    """An open export. `position` is the one up to which it reads, and `total` its number of records, for `count=exact`."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.position = response.headers.get("decklog-position", "")
        total = response.headers.get("decklog-total", "")
        self.total = int(total) if total.isascii() and total.isdigit() else None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_bytes()


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
        raise error_of(response, response.content) from None


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
    async def export(self, parameters: Parameters | None = None) -> AsyncIterator[Exported]:
        """Open an export of all records that match the filters, oldest first, and iterate over it in pieces of bytes.

        The iteration raises `outcome-unknown` if the transfer ends early: the pieces so far are not the whole export.
        """
        with self._translated():
            headers = {"accept": "*/*"}  # `format` decides, and NDJSON is the default
            async with self._http.stream("GET", "/logs/export", params=_plain(parameters), headers=headers) as response:
                if response.status_code >= 400:
                    raise error_of(response, await response.aread())
                yield Exported(response)

    @asynccontextmanager
    async def events(self, parameters: Parameters | None = None) -> AsyncIterator[AsyncIterator[ServerEvent]]:
        """Open a stream, and iterate over its events; the first one is `opened`, with the position where it begins.

        `after` starts at an older position, exclusive: -1 is before the first record. The iteration raises the error that
        ended the stream.
        """
        with self._translated():
            async with self._http.stream(
                "GET", "/logs/stream", params=_plain(parameters), headers={"accept": "text/event-stream"}
            ) as response:
                if response.status_code >= 400:
                    raise error_of(response, await response.aread())
                async with aclosing(events(response)) as found:
                    yield found

    @asynccontextmanager
    async def stream(self, parameters: Parameters | None = None) -> AsyncIterator[AsyncIterator[shapes.Record]]:
        """Iterate over new records, once the server has confirmed that the stream is open. Parameters are those of `events`."""
        async with self.events(parameters) as found:
            if await anext(found, None) is None:
                raise DecklogError(Code.OUTCOME_UNKNOWN, f"{self.url} ended the stream before it was open.")
            yield (msgspec.json.decode(event.data, type=shapes.Record) async for event in found if event.kind == "record")

    async def stats(self, parameters: Parameters) -> shapes.Stats:
        """Return exact counts. Parameters: `by`, `interval`, and filters."""
        return await self._ask(shapes.Stats, "GET", "/logs/stats", params=parameters)

    async def ask(self, question: Mapping[str, Any]) -> msgspec.Raw:
        """Ask a question in plain words: `question`, `zone`, `log`, `conversation`. The answer is an `Answered`."""
        return await self._ask(msgspec.Raw, "POST", "/logs/ask", json=dict(question))

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

    async def keys(self) -> Sequence[key_shapes.ApiKey]:
        """Return the API keys of the tenant, without their secrets. Role: admin."""
        return (await self._ask(key_shapes.ApiKeys, "GET", "/keys")).items

    async def make_key(self, wanted: Mapping[str, Any]) -> key_shapes.MadeKey:
        """Make an API key of the tenant: `role`, `name`, and `expires_in` in seconds. Role: admin."""
        return await self._ask(key_shapes.MadeKey, "POST", "/keys", json=dict(wanted))

    async def revoke_key(self, number: str) -> None:
        """Revoke an API key that was made over the API. Role: admin. Raises `not-found`."""
        await self._done("DELETE", f"/keys/{quote(number, safe='')}")

    async def retention(self, *, log: str = "events") -> shapes.LogRetention:
        """Return the ranges of a log, oldest first, and until when they can be read."""
        return await self._ask(shapes.LogRetention, "GET", "/retention", params={"log": log})

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
        await self._done("DELETE", "/session", headers=_csrf(session))

    async def make_link(self, session: session_shapes.Session | None = None) -> session_shapes.SignInLink:
        """Make a one-time link that signs a browser in: with the key of this client, or with all identities of its session."""
        return await self._ask(
            session_shapes.SignInLink, "POST", "/sessions/links", headers={} if session is None else _csrf(session)
        )

    def _translated(self) -> _Translated:
        return _Translated(self.url)

    async def _done(self, method: str, path: str, **request: Any) -> None:
        """Send a request whose answer has no body."""
        with self._translated():
            response = await self._http.request(method, path, **request)
        if response.status_code >= 400:
            raise error_of(response, response.content)

    async def _ask(self, kind: type[_T], method: str, path: str, *, params: Parameters | None = None, **request: Any) -> _T:
        with self._translated():
            response = await self._http.request(method, path, params=_plain(params), **request)
        self.request_id = response.headers.get("x-request-id", "")
        if response.status_code >= 400:
            raise error_of(response, response.content)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            raise DecklogError(
                Code.INTERNAL,
                f"{self.url} answered {method} {path} with status {response.status_code} and another body: {error}.",
            ) from None


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
