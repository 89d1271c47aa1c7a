"""Bodies of answers from other systems, read within a bound and never decompressed: a few bytes could grow to gigabytes."""

from __future__ import annotations

import httpx


async def read_body(response: httpx.Response, *, bytes_max: int, sender: str, of: str) -> bytes:
    """Return the body of a streamed answer.

    Args:
        response: The answer; its status is the caller's matter.
        bytes_max: Most bytes of the body.
        sender: The other system, for the reason of a refusal.
        of: The kind of body, for the same.

    Raises:
        OSError: The body is compressed or too large.
    """
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise OSError(f"{sender} sent a compressed {of}, which was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > bytes_max:
            raise OSError(f"{sender} sent more than {bytes_max} bytes")
    return bytes(body)
