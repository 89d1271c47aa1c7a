"""Requests to a model over the chat completions protocol of OpenAI, with bounded sizes and times.

It never interprets what a model says; `services.ask` does. An error names neither the address nor the key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import httpx

from decklog.domain.errors import Code, DecklogError
from decklog.domain.pauses import jittered
from decklog.outbound.addresses import is_safe
from decklog.outbound.bodies import read_body

BYTES_MAX: Final = 1024 * 1024
"""Bytes of an answer. One has less than 100 KiB."""
CONNECT_TIME: Final = timedelta(seconds=5)
RETRY_PAUSE: Final = timedelta(milliseconds=500)
"""Before the one retry, before jitter."""
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""


class _TransientError(OSError):
    """A failure after which the same request may succeed."""


class ChatCompletions:
    """The endpoint of a model. A failed request is repeated once where that may help."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url

    async def __call__(self, body: bytes) -> bytes:
        """Return the answer to a request. Raises OSError with the reason why there is none."""
        try:
            return await self._once(body)
        except _TransientError:
            await asyncio.sleep(jittered(RETRY_PAUSE.total_seconds(), 0.25))
            return await self._once(body)

    async def _once(self, body: bytes) -> bytes:
        try:
            async with self._client.stream("POST", self._url, content=body) as response:
                _check(response)
                return await read_body(response, bytes_max=BYTES_MAX, sender="the model", of="answer")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise _TransientError(f"the model cannot be reached: {type(error).__name__}") from None


def _check(response: httpx.Response) -> None:
    if response.status_code in _TRANSIENT:
        raise _TransientError(f"the model answered {response.status_code}")
    if response.status_code != httpx.codes.OK:
        raise OSError(f"the model answered {response.status_code}")


@asynccontextmanager
async def opened(url: str, key: str, seconds: float) -> AsyncIterator[ChatCompletions]:
    """Open the endpoint `url`/chat/completions, which has `seconds` for each step of an answer, and close it at the end.

    Raises:
        DecklogError: `misconfigured` where the address is neither https nor this machine's own, or names a user, or the key is no header.
    """
    if not is_safe(url) or "@" in url or "?" in url or "#" in url:
        raise DecklogError(
            Code.MISCONFIGURED,
            "DECKLOG_ASK_MODEL_URL must begin with https://, or with http:// for this machine alone, without user, query and fragment: "
            "questions and records are sent there. Set the key in DECKLOG_ASK_MODEL_KEY_FILE.",
        )
    if not key.isascii() or not key.isprintable():
        raise DecklogError(Code.MISCONFIGURED, "DECKLOG_ASK_MODEL_KEY must have printable ASCII characters only.")
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_TIME.total_seconds()))
    limits = httpx.Limits(max_connections=16, max_keepalive_connections=4)
    async with httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits, follow_redirects=False) as client:
        yield ChatCompletions(client, url.rstrip("/") + "/chat/completions")
