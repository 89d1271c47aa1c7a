"""Requests to an issuer over HTTPS: its public keys, its configuration and its tokens, with bounded sizes and times.

It never interprets the document; `services.identity` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

from decklog.outbound.addresses import is_safe
from decklog.outbound.bodies import read_body

TIMEOUT_SECONDS = 5.0
"""Seconds for each step; the whole call may take twice as long."""
BYTES_MAX = 256 * 1024
"""Bytes of a document; real ones have less than 10 KiB."""
_HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
"""A compressed document could grow to a thousand times its size before it can be measured."""


async def fetch(url: str) -> bytes:
    """Return the document at `url`, without following redirects. Raises OSError with the reason why there is none."""
    return await _document("GET", url)


async def post(url: str, form: Mapping[str, str], user: tuple[str, str] | None) -> bytes:
    """Return the answer to a form, sent with HTTP Basic authentication where `user` is given. Raises OSError as `fetch`."""
    return await _document("POST", url, data=dict(form), auth=user)


async def _document(method: str, url: str, **sent: Any) -> bytes:
    if not is_safe(url):
        raise OSError("an issuer is asked over https only")
    try:
        async with (
            asyncio.timeout(2 * TIMEOUT_SECONDS),
            httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=True) as client,
            client.stream(method, url, headers=_HEADERS, **sent) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise OSError(f"the issuer answered {response.status_code}")
            return await read_body(response, bytes_max=BYTES_MAX, sender="the issuer", of="document")
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise OSError(f"the issuer cannot be reached: {type(error).__name__}") from error
