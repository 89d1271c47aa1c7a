"""A client of the API: each method is one request, and a refusal is the DecklogError that the server raised.

It knows addresses and shapes and decides nothing: no retries, no interpretation of records.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

from decklog.domain.errors import Code, DecklogError

TIMEOUT = 60.0
"""Seconds without any progress of a request; the server's own limits are shorter."""

Parameters = Mapping[str, str | int | Sequence[str]]
"""Query parameters as the API names them; a sequence is a parameter given several times."""

_KEY = re.compile(r"[!-~]{1,16384}")
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
"""What an answer without a problem document means: it comes from a proxy in between, which knows no codes."""


class ItemError(msgspec.Struct, frozen=True):
    """Why one record of a bulk was rejected."""

    code: str
    detail: str


class BulkItem(msgspec.Struct, frozen=True):
    """What became of one record: `stored`, `duplicate` or `rejected`."""

    status: str
    seq: int | None = None
    error: ItemError | None = None


class BulkAnswer(msgspec.Struct, frozen=True):
    """What became of a bulk, in the order sent."""

    stored: int
    duplicates: int
    rejected: int
    items: list[BulkItem]


class AppendAnswer(msgspec.Struct, frozen=True):
    """Where one record is."""

    tenant: str
    log: str
    epoch: int
    seq: int
    received_at: datetime
    digest: str
    status: str


class Page(msgspec.Struct, frozen=True):
    """Records newest first, as plain JSON. `head` is the number that the next record will get."""

    items: list[dict[str, Any]]
    next: str | None
    head: int
    indexed: int
    engine: str


class Bucket(msgspec.Struct, frozen=True):
    """A count. `key` has one value for each name in `by`; `start` is None without an interval."""

    key: list[str | None]
    count: int
    start: datetime | None = msgspec.field(name="from", default=None)


class Stats(msgspec.Struct, frozen=True):
    """Exact counts, in the order that the server gives them."""

    by: list[str]
    buckets: list[Bucket]
    total: int


class WhoAmI(msgspec.Struct, frozen=True):
    """What the credential proves. `tenant` is None for the platform."""

    kind: str
    subject: str
    role: str
    permissions: list[str]
    tenant: str | None = None
    state: str | None = None
    issuer: str | None = None
    expires_at: datetime | None = None


class Readiness(msgspec.Struct, frozen=True):
    """`ready`, `degraded` or `unready`, and what became of each backend: `ok`, `timeout` or a code."""

    status: str
    checks: dict[str, str]


class _Problem(msgspec.Struct, frozen=True):
    detail: str
    code: str = ""
    retry_after: float | None = None
    errors: list[Any] | None = None
    parameter: str | None = None
    seq: int | None = None


_T = TypeVar("_T")


def _told(body: bytes) -> DecklogError | None:
    """The refusal that a problem document holds, None where it is none of ours."""
    try:
        problem = msgspec.json.decode(body, type=_Problem)
        code = Code(problem.code)
    except (msgspec.DecodeError, ValueError):
        return None
    extra = {name: getattr(problem, name) for name in ("errors", "parameter", "seq") if getattr(problem, name) is not None}
    return DecklogError(code, problem.detail, retry_after=problem.retry_after, extra=extra)


def _error(response: httpx.Response, body: bytes) -> DecklogError:
    """The refusal that an answer with a status of 400 or more stands for."""
    if told := _told(body):
        return told
    header = response.headers.get("retry-after", "")
    return DecklogError(
        _BY_STATUS.get(response.status_code, Code.INTERNAL),
        f"{response.url.host} answered {response.status_code} without saying why.",
        retry_after=float(header) if header.isascii() and header.isdigit() else None,
    )


def _address(url: str) -> str:
    """Where the API is, without a slash at its end. Raises `misconfigured`."""
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL("")
    if address.scheme not in ("http", "https") or not address.host:
        raise DecklogError(Code.MISCONFIGURED, "The URL must be like https://decklog.example.com.")
    if address.userinfo:
        raise DecklogError(Code.MISCONFIGURED, "The URL must not hold credentials; give the key beside it.")
    return str(address.copy_with(query=None, fragment=None)).rstrip("/")


async def readiness(url: str, *, timeout: float = TIMEOUT, transport: httpx.AsyncBaseTransport | None = None) -> Readiness | None:
    """What /readyz says, which needs no credential; None where it is not exposed.

    Raises `misconfigured`, `storage-unavailable` where nothing can be reached and what else a Client raises.
    """
    address = _address(url)
    with _Translated(address):
        async with httpx.AsyncClient(timeout=timeout, transport=transport) as http:
            response = await http.get(address + "/readyz")
    try:
        return msgspec.json.decode(response.content, type=Readiness)
    except msgspec.DecodeError:
        if response.status_code in (401, 403, 404):
            return None
        raise _error(response, response.content) from None


class Client:
    """One server and one credential. To be used in `async with`.

    `url` is where the API is, without `/api/v1`; `key` is an API key or a JWT. Raises `misconfigured` where one of
    them cannot be used. Every method raises what the server refused with; `storage-unavailable` where it cannot be
    reached and `outcome-unknown` where the connection broke after the request had begun.
    """

    def __init__(
        self, url: str, key: str, *, timeout: float = TIMEOUT, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = _address(url)
        if not _KEY.fullmatch(key):
            raise DecklogError(Code.MISCONFIGURED, "The key must be one word of ASCII characters.")
        self._http = httpx.AsyncClient(
            base_url=self.url + "/api/v1",
            headers={"authorization": f"Bearer {key}", "accept": "application/json"},
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

    async def append(self, record: bytes, *, idempotency_key: str | None = None) -> AppendAnswer:
        """Append one record, given as JSON."""
        headers = {"content-type": "application/json", **_idempotency(idempotency_key)}
        return await self._ask(AppendAnswer, "POST", "/logs", content=record, headers=headers)

    async def append_bulk(
        self, records: Sequence[bytes], *, atomic: bool = False, idempotency_key: str | None = None
    ) -> BulkAnswer:
        """Append records, each JSON on one line. A bad one does not hold up the others, unless `atomic`."""
        headers = {"content-type": "application/x-ndjson", **_idempotency(idempotency_key)}
        parameters = {"atomic": "true"} if atomic else {}
        content = b"\n".join(records)
        answer = await self._ask(BulkAnswer, "POST", "/logs/bulk", content=content, headers=headers, params=parameters)
        if len(answer.items) != len(records):
            raise DecklogError(Code.INTERNAL, f"{self.url} answered for {len(answer.items)} records, not for {len(records)}.")
        return answer

    async def list(self, parameters: Parameters | None = None) -> Page:
        """One page: filters, `limit`, `cursor`, `log`."""
        return await self._ask(Page, "GET", "/logs", params=parameters)

    async def records(self, parameters: Parameters | None = None) -> AsyncIterator[dict[str, Any]]:
        """All records that the filters find, newest first, page by page."""
        wanted = dict(parameters or {})
        while True:
            page = await self.list(wanted)
            for item in page.items:
                yield item
            if page.next is None:
                return
            wanted["cursor"] = page.next

    async def get(self, seq: int, *, log: str = "events") -> dict[str, Any]:
        """One record. Raises `not-found`."""
        return await self._ask(dict[str, Any], "GET", f"/logs/{seq}", params={"log": log})

    @asynccontextmanager
    async def export(self, parameters: Parameters | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Everything that the filters find, oldest first, in pieces of bytes as they come.

        A transfer that ends early raises `outcome-unknown` from the iteration: what arrived is not the whole.
        """
        with self._translated():
            async with self._http.stream("GET", "/logs/export", params=_plain(parameters)) as response:
                if response.status_code >= 400:
                    raise _error(response, await response.aread())
                yield response.aiter_bytes()

    @asynccontextmanager
    async def stream(self, parameters: Parameters | None = None) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Records as they come, once the server has said that the stream is open; `after` begins at an older position.

        The iteration raises what the server ended the stream with.
        """
        with self._translated():
            async with self._http.stream(
                "GET", "/logs/stream", params=_plain(parameters), headers={"accept": "text/event-stream"}
            ) as response:
                if response.status_code >= 400:
                    raise _error(response, await response.aread())
                async with aclosing(_events(response)) as events:
                    if await anext(events, None) is None:
                        raise DecklogError(Code.OUTCOME_UNKNOWN, f"{self.url} ended a stream before it began.")
                    yield (record async for kind, record in events if kind == "record")

    async def stats(self, parameters: Parameters) -> Stats:
        """Counts: `by`, `interval` and filters."""
        return await self._ask(Stats, "GET", "/logs/stats", params=parameters)

    async def whoami(self) -> WhoAmI:
        return await self._ask(WhoAmI, "GET", "/whoami")

    async def tenant(self, name: str) -> dict[str, Any]:
        """One tenant with its conditions. Raises `not-found`, also for one that is not the caller's to see."""
        return await self._ask(dict[str, Any], "GET", f"/tenants/{name}")

    async def tenants(self) -> Sequence[dict[str, Any]]:
        """All tenants with their conditions; for the platform's key."""
        answer = await self._ask(dict[str, list[dict[str, Any]]], "GET", "/tenants")
        return answer["items"]

    def _translated(self) -> _Translated:
        return _Translated(self.url)

    async def _ask(self, kind: type[_T], method: str, path: str, *, params: Parameters | None = None, **request: Any) -> _T:
        with self._translated():
            response = await self._http.request(method, path, params=_plain(params), **request)
        if response.status_code >= 400:
            raise _error(response, response.content)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError:
            raise DecklogError(
                Code.INTERNAL, f"{self.url} answered {response.status_code} with something else than Decklog answers."
            ) from None


async def _events(response: httpx.Response) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    """Server-Sent Events as kind and content. Raises what an `error` among them says."""
    kind = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ").encode()
            if kind == "error":
                raise _told(data) or DecklogError(Code.INTERNAL, f"{response.url.host} ended a stream without saying why.")
            yield kind, msgspec.json.decode(data, type=dict[str, Any])


def _plain(parameters: Parameters | None) -> httpx.QueryParams:
    pairs: list[tuple[str, str]] = []
    for name, value in (parameters or {}).items():
        pairs += [(name, str(item)) for item in ([value] if isinstance(value, str | int) else value)]
    return httpx.QueryParams(tuple(pairs))


def _idempotency(key: str | None) -> dict[str, str]:
    return {} if key is None else {"idempotency-key": key}


class _Translated:
    """Failures of the transport as DecklogError."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            raise DecklogError(Code.STORAGE_UNAVAILABLE, f"{self._url} cannot be reached.") from error
        if isinstance(error, httpx.TransportError):
            raise DecklogError(Code.OUTCOME_UNKNOWN, f"The connection to {self._url} broke.") from error
