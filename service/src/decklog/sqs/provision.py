"""Provisioning of a tenant's queue and its dead-letter queue: create, tag with the owner, correct drift, delete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.parts.part import Mark
from decklog.domain.tenancy.parts.queue import CreateQueue, QueueSeen, RemoveQueue, SetQueueAttributes, queue_values
from decklog.domain.tenancy.status import NAME_BLOCKED

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

CALLS_MAX = 8
"""Simultaneous threads of provisioning."""
URLS_MAX = 10_000
"""Queue addresses remembered."""
UID_TAG = "decklog.dev/uid"
TENANT_TAG = "decklog.dev/tenant"
DEAD_LETTER_SUFFIX = "-dlq"

_ATTRIBUTES = {"ReceiveMessageWaitTimeSeconds": "20"}
# 14 days, the most that SQS allows: people inspect these messages.
_DEAD_LETTER_ATTRIBUTES = {"MessageRetentionPeriod": "1209600"}

_GONE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
_EXISTS = frozenset({"QueueAlreadyExists", "QueueNameExists"})
_DELETED_RECENTLY = frozenset({"AWS.SimpleQueueService.QueueDeletedRecently", "QueueDeletedRecently"})

_log = structlog.get_logger("decklog.sqs")
_Result = TypeVar("_Result")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


class SqsProvisioning:
    """Queues over a boto3 client. Its calls block, so they run in threads."""

    def __init__(self, client: SQSClient) -> None:
        self._client = client
        self._calls = asyncio.Semaphore(CALLS_MAX)
        self._urls: dict[str, str] = {}

    async def observe(self, queue: str) -> QueueSeen:
        """Return the state of the queue and its dead-letter queue.

        Raises:
            DecklogError: `storage-unavailable`.
        """
        return await self._in_thread(queue, lambda: self._observe(queue))

    async def apply(self, action: CreateQueue | SetQueueAttributes | RemoveQueue) -> None:
        """Apply one action.

        Raises:
            DecklogError: `storage-unavailable`, or `conflict` if the queue belongs to another owner.
        """
        if isinstance(action, RemoveQueue):
            await self._in_thread(action.queue, lambda: self._remove(action))
        else:
            await self._in_thread(action.queue, lambda: self._converge(action))

    async def _in_thread(self, queue: str, call: Callable[[], _Result]) -> _Result:
        try:
            async with self._calls:
                return await asyncio.to_thread(call)
        except ClientError as error:
            code = _code(error)
            if code in _DELETED_RECENTLY:
                _log.info("queue was just deleted", queue=queue)
                raise DecklogError(
                    Code.STORAGE_UNAVAILABLE,
                    f"The queue {queue!r} was just deleted. SQS allows its name again after 60 seconds; Decklog tries again then.",
                    retry_after=60,
                    extra={"reason": NAME_BLOCKED},
                ) from error
            raise DecklogError(
                Code.STORAGE_UNAVAILABLE, f"SQS answered {code} for the queue {queue!r}.", retry_after=1
            ) from error
        except BotoCoreError as error:
            raise DecklogError(
                Code.STORAGE_UNAVAILABLE, f"SQS cannot be reached ({type(error).__name__}).", retry_after=1
            ) from error

    # The methods below run in threads.

    def _url(self, queue: str) -> str | None:
        try:
            return self._client.get_queue_url(QueueName=queue)["QueueUrl"]
        except ClientError as error:
            if _code(error) in _GONE:
                return None
            raise

    def _attributes(self, url: str) -> Mapping[str, str]:
        told = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        return {str(name): value for name, value in told.get("Attributes", {}).items()}

    def _tags(self, url: str) -> Mapping[str, str]:
        return self._client.list_queue_tags(QueueUrl=url).get("Tags", {})

    def _known(self, queue: str) -> tuple[str, Mapping[str, str]] | None:
        """Return address and attributes of a queue, None where it does not exist.

        The address is cached: a request by address fails just as well once the queue is gone.
        """
        if (url := self._urls.get(queue)) is not None:
            try:
                return url, self._attributes(url)
            except ClientError as error:
                if _code(error) not in _GONE:
                    raise
                self._urls.pop(queue, None)
        if (url := self._url(queue)) is None:
            return None
        if len(self._urls) >= URLS_MAX:
            self._urls.clear()
        self._urls[queue] = url
        return url, self._attributes(url)

    def _observe(self, queue: str) -> QueueSeen:
        main, dead = self._known(queue), self._known(queue + DEAD_LETTER_SUFFIX)
        tags = [self._tags(known[0]) for known in (main, dead) if known is not None]
        owners, tenants = (tuple(each.get(name) for each in tags) for name in (UID_TAG, TENANT_TAG))
        if main is None or dead is None:
            missing = tuple(name for name, known in (("queue", main), ("dead-letter queue", dead)) if known is None)
            return QueueSeen(owners=owners, tenants=tenants, missing=missing)
        there, there_dead = main[1], dead[1]
        drift = _differing(_ATTRIBUTES, there)
        drift += [f"dead-letter {name}" for name in _differing(_DEAD_LETTER_ATTRIBUTES, there_dead)]
        settings = {name: int(there[name]) for name in ("VisibilityTimeout", "MessageRetentionPeriod") if name in there}
        receives = _receives(there.get("RedrivePolicy", ""), there_dead["QueueArn"])
        if receives is None:
            drift.append("RedrivePolicy")
        else:
            settings["maxReceiveCount"] = receives
        return QueueSeen(exists=True, owners=owners, drift=tuple(drift), settings=settings, tenants=tenants, depth=_depth(there))

    def _remove(self, action: RemoveQueue) -> None:
        """Delete both queues with their messages, which only wake workers that no longer serve the tenant."""
        for queue in (action.queue, action.queue + DEAD_LETTER_SUFFIX):
            try:
                url = self._url(queue)
                if url is not None and self._tags(url).get(UID_TAG) in action.owners:
                    self._client.delete_queue(QueueUrl=url)
            except ClientError as error:
                if _code(error) not in _GONE:  # SQS lists a deleted queue for a while
                    raise

    def _converge(self, action: CreateQueue | SetQueueAttributes) -> None:
        dead = self._ensure(action.queue + DEAD_LETTER_SUFFIX, _DEAD_LETTER_ATTRIBUTES, action)
        values = queue_values(action.settings)
        redrive = _redrive(self._attributes(dead)["QueueArn"], values.pop("maxReceiveCount"))
        attributes = {**_ATTRIBUTES, **{name: str(value) for name, value in values.items()}, "RedrivePolicy": redrive}
        self._ensure(action.queue, attributes, action)

    def _ensure(self, queue: str, attributes: dict[str, str], action: CreateQueue | SetQueueAttributes) -> str:
        """Return the address of the queue, after giving it these attributes and the action's mark."""
        url = self._url(queue)
        if url is None:
            try:
                # The tags are part of the request, so no queue is ever without an owner.
                return self._client.create_queue(QueueName=queue, Attributes=attributes, tags=_tags(action.mark))["QueueUrl"]  # type: ignore[arg-type]
            except ClientError as error:
                if _code(error) not in _EXISTS:
                    raise
                url = self._client.get_queue_url(QueueName=queue)["QueueUrl"]
        if isinstance(action, CreateQueue) and self._tags(url).get(UID_TAG) != action.mark.uid:
            raise DecklogError(Code.CONFLICT, f"Another owner has just created the queue {queue!r}.")
        self._client.set_queue_attributes(QueueUrl=url, Attributes=attributes)  # type: ignore[arg-type]
        self._client.tag_queue(QueueUrl=url, Tags=_tags(action.mark))
        return url


def _differing(wanted: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Return names of attributes with another value.

    Some servers of SQS's protocol do not return all attributes. Those that are missing count as equal, since they cannot be corrected.
    """
    return [name for name, value in wanted.items() if there.get(name, value) != value]


def _tags(mark: Mark) -> dict[str, str]:
    return {UID_TAG: mark.uid, TENANT_TAG: mark.tenant}


def _depth(attributes: Mapping[str, str]) -> int:
    """Return the messages that wait or are being processed, as SQS estimates them."""
    return sum(int(attributes.get(f"ApproximateNumberOfMessages{which}", 0)) for which in ("", "NotVisible"))


def _redrive(dead_letter_arn: str, receives: int) -> str:
    return json.dumps({"deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": receives})


def _receives(policy: str, dead_letter_arn: str) -> int | None:
    """Return the deliveries before a message moves to this dead-letter queue; None if it moves to another one or never."""
    try:
        told = json.loads(policy)
        return int(told["maxReceiveCount"]) if told["deadLetterTargetArn"] == dead_letter_arn else None
    except (ValueError, KeyError, TypeError):
        return None
