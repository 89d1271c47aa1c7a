"""Asking a model: over HTTPS or on this machine only, bounded in size and attempts, and without the key in an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.outbound import chat_completions
from decklog.outbound.chat_completions import BYTES_MAX, opened

KEY = "sk-not-a-real-key"


@asynccontextmanager
async def answering(answers: Sequence[bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """The base URL of a server that gives these answers in turn, the last one again and again, and the requests that it got."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        requests.append(head + await reader.readexactly(length))
        writer.write(answers[min(len(requests), len(answers)) - 1])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", requests


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_completions, "jittered", lambda *_: 0)


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def status(line: bytes, header: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: 0\r\n\r\n" % (line, header)


async def test_request_is_posted_with_the_key_and_the_answer_is_returned_unchanged() -> None:
    async with answering([ok(b'{"choices": []}')]) as (url, requests), opened(url + "/", KEY, 5) as complete:
        assert await complete(b'{"model": "m"}') == b'{"choices": []}'
    (sent,) = requests
    assert sent.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"Authorization: Bearer " + KEY.encode() in sent
    assert sent.endswith(b'{"model": "m"}')


@pytest.mark.parametrize(
    "first", [status(b"503 Busy"), status(b"429 Slow"), b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"]
)
async def test_request_is_repeated_once_where_that_may_help(first: bytes) -> None:
    async with answering([first, ok(b"{}")]) as (url, requests), opened(url, KEY, 5) as complete:
        assert await complete(b"{}") == b"{}"
        assert len(requests) == 2
    async with answering([first]) as (url, requests), opened(url, KEY, 5) as complete:
        with pytest.raises(OSError, match="the model"):
            await complete(b"{}")
        assert len(requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        status(b"401 Unauthorized"),
        status(b"302 Found", b"Location: http://127.0.0.1:1/\r\n"),
        ok(b" " * (BYTES_MAX + 1)),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_answer_that_cannot_be_used_is_refused_at_once_without_the_key_and_the_address(answer: bytes) -> None:
    async with answering([answer]) as (url, requests), opened(url, KEY, 5) as complete:
        with pytest.raises(OSError, match="the model") as raised:
            await complete(b"{}")
        assert len(requests) == 1
    assert KEY not in str(raised.value)
    assert url not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://models.example.com/v1", ""),
        ("http://127.0.0.1.example.com/v1", ""),
        ("ftp://127.0.0.1/v1", ""),
        ("/v1", ""),
        ("https://user:secret@models.example.com/v1", ""),
        ("https://models.example.com/v1?key=secret", ""),
        ("https://models.example.com/v1", "two\nlines"),
        ("https://models.example.com/v1", "schlüssel"),
    ],
)
async def test_address_that_is_not_safe_and_key_that_is_no_header_are_misconfigured(url: str, key: str) -> None:
    with pytest.raises(DecklogError) as raised:
        async with opened(url, key, 5):
            pass
    assert raised.value.code is Code.MISCONFIGURED
    assert "secret" not in raised.value.detail
    assert key == "" or key not in raised.value.detail
