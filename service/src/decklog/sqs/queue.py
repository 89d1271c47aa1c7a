"""`WakeQueue` over Amazon SQS. boto3's calls block, so they run in threads.

A long poll cannot be interrupted. Its thread is a daemon, so a stopping process does not wait for it, and messages that it still
receives become visible again after their visibility timeout.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog
from botocore.exceptions import BotoCoreError, ClientError

from decklog import aws
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.store import WakeUp
from decklog.settings import Queue

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

BATCH_MAX = 10
"""Messages of one request; SQS allows no more."""
WAKE_UPS_MAX = 100
"""Wake-ups of one message, about 6 KB: the logs of a class grow together, and each request costs money and milliseconds."""
WAIT_SECONDS_MAX = 20
"""Seconds of one long poll; SQS allows no more."""
CALL_SECONDS_MAX = 3
"""Seconds until an answer begins, except for long polls."""
CONNECT_SECONDS_MAX = 1
CALLS_SECONDS_MAX = 5
"""Seconds after which a batch of calls makes no further one. With its last call it ends before its callers stop waiting."""
CALLS_MAX = 8
"""Threads for calls other than long polls."""
URLS_MAX = 10_000
"""Queue addresses remembered."""

_GONE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")

_log = structlog.get_logger("decklog.sqs")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class _Body(msgspec.Struct, frozen=True):
    """A wake-up in the text of a message, as JSON. A message has one, or an array of several."""

    tenant_id: int
    log: LogName
    next_seq: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Body | list[_Body])


def _parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _texts(wake_ups: Sequence[WakeUp]) -> list[str]:
    """Return the texts of the messages with these wake-ups."""
    bodies = [_Body(each.tenant_id, each.log, each.next_seq) for each in wake_ups]
    return [_encoder.encode(some[0] if len(some) == 1 else some).decode() for some in _parts(bodies, WAKE_UPS_MAX)]


async def _in_thread(limit: asyncio.Semaphore, call: Callable[[], _Result]) -> _Result:
    """Return the result of a blocking call in a daemon thread.

    The thread of a cancelled caller runs to its end and occupies its place in `limit` until then.
    """
    await limit.acquire()
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def finish(set_outcome: Callable[[], None]) -> None:
        limit.release()
        if not future.done():
            set_outcome()

    def run() -> None:
        outcome: Callable[[], None]
        try:
            result = call()
        except Exception as error:  # noqa: BLE001  # passed on to the caller, whatever it is
            problem = error

            def outcome() -> None:
                future.set_exception(problem)
        else:

            def outcome() -> None:
                future.set_result(result)

        with suppress(RuntimeError):  # the loop is closed: the process ends, and no caller waits
            loop.call_soon_threadsafe(finish, outcome)

    threading.Thread(target=run, name="sqs", daemon=True).start()
    return await future


class SqsWakeQueue:
    """`WakeQueue` over SQS or a server of the same protocol; `WakeQueue` says what each method promises.

    `polls` is the maximum of simultaneous long polls, each of which occupies a thread.
    """

    def __init__(self, settings: Queue, *, polls: int) -> None:
        self._calls = _connect_once(settings, CALL_SECONDS_MAX, CALLS_MAX)
        self._polls = _connect_once(settings, CALL_SECONDS_MAX + WAIT_SECONDS_MAX, polls)
        self._calls_limit = asyncio.Semaphore(CALLS_MAX)
        self._polls_limit = asyncio.Semaphore(polls)
        self._urls: dict[str, str] = {}

    async def send(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
        """See the protocol."""
        await self._call(queue, lambda: self._send(queue, wake_ups))

    async def receive(self, queue: str, *, wait: float) -> list[WakeUp]:
        """See the protocol."""
        seconds = max(0, min(int(wait), WAIT_SECONDS_MAX))
        return await self._call(queue, lambda: self._receive(queue, seconds), polling=True)

    async def delete(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
        """See the protocol."""
        if given := list(dict.fromkeys(each.receipt for each in wake_ups if each.receipt)):
            await self._call(queue, lambda: self._delete(queue, given))

    async def close(self) -> None:
        """Ends idle connections; running long polls are left to themselves."""
        self._calls.close()
        self._polls.close()

    async def _call(self, queue: str, call: Callable[[], _Result], *, polling: bool = False) -> _Result:
        try:
            return await _in_thread(self._polls_limit if polling else self._calls_limit, call)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            if code in _GONE:
                self._urls.pop(queue, None)
            raise _unavailable(queue, f"answered {code}") from error
        except BotoCoreError as error:
            raise _unavailable(queue, f"cannot be reached ({type(error).__name__})") from error

    # The methods below run in threads.

    def _url(self, queue: str) -> str:
        url = self._urls.get(queue)
        if url is None:
            url = self._calls.get_queue_url(QueueName=queue)["QueueUrl"]
            if len(self._urls) >= URLS_MAX:
                self._urls.clear()
            self._urls[queue] = url
        return url

    def _send(self, queue: str, wake_ups: Sequence[WakeUp]) -> None:
        began = time.monotonic()
        url = self._url(queue)
        for bodies in _parts(_texts(wake_ups), BATCH_MAX):
            if time.monotonic() - began > CALLS_SECONDS_MAX:
                raise _unavailable(queue, "does not answer in time")
            answer = self._calls.send_message_batch(
                QueueUrl=url, Entries=[{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
            )
            if failed := answer.get("Failed"):
                raise _unavailable(queue, f"did not take {len(failed)} of {len(bodies)} messages ({failed[0].get('Code')})")

    def _receive(self, queue: str, seconds: int) -> list[WakeUp]:
        url = self._url(queue)
        answer = self._polls.receive_message(
            QueueUrl=url, MaxNumberOfMessages=BATCH_MAX, WaitTimeSeconds=seconds, MessageSystemAttributeNames=["SentTimestamp"]
        )
        found: list[WakeUp] = []
        unreadable: list[str] = []
        for message in answer.get("Messages", ()):
            if wake_ups := _read(message):
                found += wake_ups
            elif receipt := message.get("ReceiptHandle"):
                unreadable.append(receipt)
        if unreadable:
            _log.warning("messages that are not wake-ups were deleted", queue=queue, count=len(unreadable))
            self._delete(queue, unreadable)
        return found

    def _delete(self, queue: str, receipts: Sequence[str]) -> None:
        url = self._url(queue)
        for some in _parts(receipts, BATCH_MAX):
            # Deletion by an expired receipt fails. The message is delivered again, which is harmless.
            self._calls.delete_message_batch(
                QueueUrl=url, Entries=[{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(some)]
            )


def connect(
    settings: Queue,
    *,
    connect_timeout: int = 2,
    read_timeout: int = 5,
    connections: int = CALLS_MAX,
    attempts: int = aws.ATTEMPTS_MAX,
) -> SQSClient:
    """Return a client; timeouts are in seconds, `connections` is the maximum kept open, `attempts` are those of one call."""
    connected: SQSClient = aws.client(
        "sqs",
        settings,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        connections=connections,
        attempts=attempts,
    )
    return connected


def _connect_once(settings: Queue, read_timeout: int, connections: int) -> SQSClient:
    """Return a client that repeats no call: messages only wake, and the sweep finds what a call was about."""
    return connect(settings, connect_timeout=CONNECT_SECONDS_MAX, read_timeout=read_timeout, connections=connections, attempts=1)


def _read(message: MessageTypeDef) -> list[WakeUp]:
    """Return the wake-ups of a message, none for any other message."""
    try:
        read = _decoder.decode(message.get("Body", ""))
    except msgspec.DecodeError:
        return []
    bodies = read if isinstance(read, list) else [read]
    sent = message.get("Attributes", {}).get("SentTimestamp", "")  # milliseconds since 1970, by the queue's clock
    waited = max(0.0, time.time() - int(sent) / 1_000) if sent.isdecimal() else None
    return [
        WakeUp(body.tenant_id, body.log, body.next_seq, message.get("ReceiptHandle", ""), waited)
        for body in bodies
        if body.tenant_id >= 0 and body.next_seq >= 0
    ]


def _unavailable(queue: str, why: str) -> DecklogError:
    return DecklogError(Code.STORAGE_UNAVAILABLE, f"The queue {queue} {why}. Try again.", retry_after=1)
