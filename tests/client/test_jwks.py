"""Fetching the key set of an issuer: over HTTPS only, and bounded in size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from decklog.outbound.jwks import BYTES_MAX, fetch


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The address of a server that says this to everyone, whatever they ask."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def test_fetch_returns_the_body_unchanged() -> None:
    async with answering(ok(b'{"keys": []}')) as url:
        assert await fetch(url) == b'{"keys": []}'


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"nonsense\r\n\r\n",
        b"",
        ok(b" " * (BYTES_MAX + 1)),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=lambda answer: answer[:20].decode(),
)
async def test_fetch_raises_oserror_for_an_incomplete_or_oversized_answer(answer: bytes) -> None:
    async with answering(answer) as url:
        with pytest.raises(OSError, match="the issuer"):
            await fetch(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "http://10.0.0.1/keys",
        "http://127.0.0.1.issuer.example/keys",
        "file:///etc/passwd",
        "ftp://127.0.0.1/keys",
        "keys",
        "",
    ],
)
async def test_fetch_requires_https_except_for_loopback(url: str) -> None:
    with pytest.raises(OSError, match="https only"):
        await fetch(url)


async def test_fetch_raises_oserror_for_an_address_that_is_none() -> None:
    with pytest.raises(OSError, match="cannot be reached"):
        await fetch("https://issuer.example:port/keys")
