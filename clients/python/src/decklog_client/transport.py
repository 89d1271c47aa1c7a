"""HTTP, by httpx. It takes 60 ms to import, so `lazily` loads this module with the first request."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import httpx

from decklog_client.answers import Answer, parse
from decklog_client.errors import ServerError

_NDJSON = "application/x-ndjson"


class Transport:
    """Requests to one server. `credential` is asked for each request, so a rotated key is used at once."""

    def __init__(self, url: str, credential: Callable[[], str], *, timeout: float, context: ssl.SSLContext | None) -> None:
        self._credential = credential
        verify: ssl.SSLContext | bool = True if context is None else context
        self._http = httpx.Client(base_url=url + "/api/v1", timeout=timeout, verify=verify)

    @property
    def key(self) -> str:
        """The key as it is now. Raises ConfigurationError."""
        return self._credential()

    def whoami(self) -> Answer:
        """Return the answer that names the tenant of the key. Raises ServerError where there is none."""
        return _parsed(self._ask("GET", "/whoami"))

    def append(self, records: list[bytes]) -> Answer:
        """Send records as one bulk. Raises ServerError where there is no answer."""
        response = self._ask("POST", "/logs/bulk", content=b"\n".join(records), headers={"content-type": _NDJSON})
        return _parsed(response)

    def _ask(
        self, method: str, path: str, *, content: bytes | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        authorized = {**(headers or {}), "accept": "application/json", "authorization": f"Bearer {self._credential()}"}
        try:
            return self._http.request(method, path, content=content, headers=authorized)
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise ServerError("unreachable", f"{self._http.base_url.host}: {type(error).__name__}: {error}") from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _parsed(response: httpx.Response) -> Answer:
    return parse(response.status_code, response.content, response.headers.get("retry-after", ""))
