"""One answer as bytes: what is written at once, what is written alone, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from decklog.api.exchange import Exchange

BODY = b'{"a":1}'
LENGTH = (b"content-length", b"%d" % len(BODY))


class Wire:
    """A transport that keeps each write."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def exchange(wire: Any, *, method: str = "GET", keep_alive: bool = True) -> Exchange:
    return Exchange(
        scope={"method": method},
        transport=wire,
        flow=FlowControl(wire),
        default_headers=[(b"date", b"today")],
        awaits_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )


async def answered(one: Exchange, headers: list[tuple[bytes, bytes]], *bodies: bytes, status: int = 200) -> None:
    await one.send({"type": "http.response.start", "status": status, "headers": headers})
    for number, body in enumerate(bodies, start=1):
        await one.send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})


async def test_answer_of_known_length_leaves_in_one_write() -> None:
    wire = Wire()
    await answered(exchange(wire), [LENGTH], BODY)
    assert wire.written == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 7\r\n\r\n" + BODY]
    assert not wire.closed


async def test_large_body_is_not_copied_behind_its_head() -> None:
    wire, large = Wire(), b"x" * 1_000_000
    await answered(exchange(wire), [(b"content-length", b"1000000")], large)
    assert wire.written[1] is large


async def test_head_of_a_stream_is_sent_before_its_first_part() -> None:
    wire = Wire()
    one = exchange(wire)
    await answered(one, [])
    assert wire.written == [b"HTTP/1.1 200 OK\r\ndate: today\r\ntransfer-encoding: chunked\r\n\r\n"]
    await one.send({"type": "http.response.body", "body": b"ab", "more_body": True})
    await one.send({"type": "http.response.body", "body": b"", "more_body": False})
    assert wire.written[1:] == [b"2\r\nab\r\n", b"0\r\n\r\n"]


async def test_answers_to_head_and_without_content_have_no_body() -> None:
    wire = Wire()
    await answered(exchange(wire, method="HEAD"), [LENGTH], BODY)
    await answered(exchange(wire), [], b"", status=204)
    assert b"".join(wire.written).count(b"\r\n\r\n") == 2
    assert b"chunked" not in b"".join(wire.written)
    assert BODY not in b"".join(wire.written)


@pytest.mark.parametrize(("keep_alive", "headers"), [(False, []), (True, [(b"connection", b"keep-alive, Close")])])
async def test_last_answer_says_so_and_closes(keep_alive: bool, headers: list[tuple[bytes, bytes]]) -> None:
    wire = Wire()
    await answered(exchange(wire, keep_alive=keep_alive), [LENGTH, *headers], BODY)
    assert wire.written[0].lower().count(b"connection: ") == 1
    assert wire.closed


@pytest.mark.parametrize(
    "header", [(b"x", b"a\r\nset-cookie: b"), (b"x\r\ny", b"a"), (b"x", b"a\0"), (b"x y", b"a"), (b"x:", b"a")]
)
async def test_header_that_would_end_its_line_is_refused(header: tuple[bytes, bytes]) -> None:
    wire = Wire()
    with pytest.raises(RuntimeError, match="header"):
        await answered(exchange(wire), [header, LENGTH], BODY)
    assert wire.written == []


@pytest.mark.parametrize("body", [BODY + b" ", BODY[1:]])
async def test_body_of_another_length_than_declared_is_refused(body: bytes) -> None:
    with pytest.raises(RuntimeError, match="Content-Length"):
        await answered(exchange(Wire()), [LENGTH], body)


async def test_failing_application_is_answered_with_500_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    wire, tasks = Wire(), set[Any]()

    async def fails(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ValueError("broken on purpose")

    task = asyncio.create_task(exchange(wire).run(fails, tasks.discard))
    tasks.add(task)
    await task
    assert wire.written[0].startswith(b"HTTP/1.1 500 ")
    assert not tasks
    assert "Exception in ASGI application" in caplog.text


async def test_body_that_arrives_later_is_waited_for() -> None:
    one = exchange(Wire())
    waiting = asyncio.create_task(one.receive())
    await asyncio.sleep(0)
    one.body += b"abc"
    one.more_body = False
    one.message_event.set()
    assert await waiting == {"type": "http.request", "body": b"abc", "more_body": False}
