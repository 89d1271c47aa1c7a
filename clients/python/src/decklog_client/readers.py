"""Readers of a log, which need no spool: `Reader` for threads, `AsyncReader` for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import httpx

from decklog_client import identity
from decklog_client.errors import ServerError
from decklog_client.reading import Export, Pages, Pairs, Parameters, Patience, Tail, checked
from decklog_client.records import Record

if TYPE_CHECKING:
    from typing_extensions import Self

_JSON = "application/json"
_STREAM = {"accept": "text/event-stream"}
_NDJSON = {"accept": "application/x-ndjson"}


class _Settings:
    """Arguments that both readers share."""

    def __init__(
        self,
        *,
        url: str,
        key: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        timeout: float = 60.0,
        outage_max: float = 300.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.url = identity.address(url)
        self._credential = identity.Credential(key, None if key_file is None else Path(key_file))
        self._timeout, self._outage_max = timeout, outage_max
        self._verify: ssl.SSLContext | bool = True if ssl_context is None else ssl_context

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the reader that DECKLOG_URL, and DECKLOG_KEY or DECKLOG_KEY_FILE name. Raises ConfigurationError."""
        found = os.environ if environment is None else environment
        return cls(**identity.of_environment(found))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url={self.url!r})"

    def _authorized(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {**headers, "authorization": f"Bearer {self._credential()}"}

    def _translated(self, error: httpx.HTTPError) -> ServerError:
        return ServerError("unreachable", f"{self.url}: {type(error).__name__}: {error}")


class Reader(_Settings):
    """Reads a log. Use it with `with`, or close it.

    Args:
        url: Address of the API without `/api/v1`.
        key: API key or JWT; or `key_file`, a file with one. The key needs the role auditor or admin, or is a viewer token.
        timeout: Seconds without progress of a request.
        outage_max: Seconds for which a read is repeated while the server does not answer.
        ssl_context: TLS settings, where those of the system are not the right ones.
    """

    _http: httpx.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _client(self) -> httpx.Client:
        if self._http is None:
            self._http = httpx.Client(base_url=self.url + "/api/v1", timeout=self._timeout, verify=self._verify)
        return self._http

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()

    def search(self, query: str = "", parameters: Parameters | None = None, *, limit: int | None = None) -> Iterator[Record]:
        """Iterate over the records that match, newest first, at most `limit`; the pages are read as they are needed.

        Args:
            query: Query in the query language; empty for all records.
            parameters: Parameters of `GET /api/v1/logs`, such as `from`, `to`, `sort` and `log`.
            limit: Records to return.

        Raises:
            ServerError: The server refuses the query, or does not answer for `outage_max` seconds.
        """
        pages, patience = Pages(query, parameters, limit), Patience(self._outage_max)
        while not pages.done:
            try:
                records = pages.take(self._post(pages.path, pages.body()))
            except ServerError as error:
                time.sleep(patience.delay(error))
                continue
            patience.progress()
            yield from records

    def tail(self, query: str = "", parameters: Parameters | None = None, *, after: str | int | None = None) -> Iterator[Record]:
        """Iterate over new records that match, without end. A broken connection is resumed after the last record, without gap or double.

        Args:
            query: Query in the query language; empty for all records.
            parameters: Filters.
            after: `position` or `seq` of the last record that is known; -1 begins with the first record. Default: new records only.

        Raises:
            ServerError: The server refuses the stream, or does not answer for `outage_max` seconds.
        """
        tail, patience = Tail(query, parameters, after), Patience(self._outage_max)
        while True:
            try:
                with self._stream(tail.path, tail.begin(), _STREAM) as response:
                    for piece in response.iter_bytes():
                        patience.progress()
                        yield from tail.feed(piece)
                error = ServerError("unreachable", f"{self.url} ended the stream.")
            except ServerError as raised:
                error = raised
            time.sleep(patience.delay(error))

    def export(
        self, query: str = "", parameters: Parameters | None = None, *, after: str | int | None = None
    ) -> Iterator[Record]:
        """Iterate over all records that match and were there when the iteration began, oldest first.

        A broken connection is resumed after the last record. Arguments and errors are those of `tail`.
        """
        export, patience = Export(query, parameters, after), Patience(self._outage_max)
        while True:
            try:
                with self._stream(export.path, export.begin(), _NDJSON) as response:
                    export.opened(response.headers.get("decklog-position", ""))
                    for piece in response.iter_bytes():
                        patience.progress()
                        yield from export.feed(piece)
                yield from export.end()
                break
            except ServerError as error:
                time.sleep(patience.delay(error))

    @contextlib.contextmanager
    def _stream(self, path: str, parameters: Pairs, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        authorized = self._authorized(headers)
        try:
            with self._client().stream("GET", path, params=parameters, headers=authorized) as response:
                if response.status_code >= 300:
                    checked(response.status_code, response.read(), response.headers.get("retry-after", ""))
                yield response
        except httpx.HTTPError as error:
            raise self._translated(error) from None

    def _post(self, path: str, body: bytes) -> bytes:
        headers = self._authorized({"accept": _JSON, "content-type": _JSON})
        try:
            response = self._client().post(path, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise self._translated(error) from None
        return checked(response.status_code, response.content, response.headers.get("retry-after", ""))


class AsyncReader(_Settings):
    """Reads a log with asyncio. Use it with `async with`, or close it. Arguments and errors are those of `Reader`."""

    _http: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(base_url=self.url + "/api/v1", timeout=self._timeout, verify=self._verify)
        return self._http

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    async def search(
        self, query: str = "", parameters: Parameters | None = None, *, limit: int | None = None
    ) -> AsyncIterator[Record]:
        """Iterate over the records that match, newest first, as `Reader.search` does."""
        pages, patience = Pages(query, parameters, limit), Patience(self._outage_max)
        while not pages.done:
            try:
                records = pages.take(await self._post(pages.path, pages.body()))
            except ServerError as error:
                await asyncio.sleep(patience.delay(error))
                continue
            patience.progress()
            for record in records:
                yield record

    async def tail(
        self, query: str = "", parameters: Parameters | None = None, *, after: str | int | None = None
    ) -> AsyncIterator[Record]:
        """Iterate over new records that match, without end, as `Reader.tail` does."""
        tail, patience = Tail(query, parameters, after), Patience(self._outage_max)
        while True:
            try:
                async with self._stream(tail.path, tail.begin(), _STREAM) as response:
                    async for piece in response.aiter_bytes():
                        patience.progress()
                        for record in tail.feed(piece):
                            yield record
                error = ServerError("unreachable", f"{self.url} ended the stream.")
            except ServerError as raised:
                error = raised
            await asyncio.sleep(patience.delay(error))

    async def export(
        self, query: str = "", parameters: Parameters | None = None, *, after: str | int | None = None
    ) -> AsyncIterator[Record]:
        """Iterate over all records that match, oldest first, as `Reader.export` does."""
        export, patience = Export(query, parameters, after), Patience(self._outage_max)
        while True:
            try:
                async with self._stream(export.path, export.begin(), _NDJSON) as response:
                    export.opened(response.headers.get("decklog-position", ""))
                    async for piece in response.aiter_bytes():
                        patience.progress()
                        for record in export.feed(piece):
                            yield record
                for record in export.end():
                    yield record
                break
            except ServerError as error:
                await asyncio.sleep(patience.delay(error))

    @contextlib.asynccontextmanager
    async def _stream(self, path: str, parameters: Pairs, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        authorized = self._authorized(headers)
        try:
            async with self._client().stream("GET", path, params=parameters, headers=authorized) as response:
                if response.status_code >= 300:
                    checked(response.status_code, await response.aread(), response.headers.get("retry-after", ""))
                yield response
        except httpx.HTTPError as error:
            raise self._translated(error) from None

    async def _post(self, path: str, body: bytes) -> bytes:
        headers = self._authorized({"accept": _JSON, "content-type": _JSON})
        try:
            response = await self._client().post(path, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise self._translated(error) from None
        return checked(response.status_code, response.content, response.headers.get("retry-after", ""))
