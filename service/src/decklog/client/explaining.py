"""A transport that sends nothing: it shows the request that a verb would send."""

from __future__ import annotations

import httpx

from decklog.client.curl import Explained, curl


class Explaining(httpx.AsyncBaseTransport):
    """Raises `Explained` with the first request."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raise `Explained`."""
        headers = [(name.lower(), value) for name, value in request.headers.items()]
        raise Explained(curl(request.method, str(request.url), headers, await request.aread()))
