"""The queue part of a tenant: the SQS queue of its wake-ups and the dead-letter queue beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from decklog.domain.tenancy.parts.part import Action, Mark
from decklog.domain.tenancy.spec import Queue
from decklog.domain.tenancy.status import Part


class QueueSeen(msgspec.Struct, frozen=True):
    """A queue and its dead-letter queue; `exists` is true when both are there, else `missing` names which is not. `owners` has
    their marks (None: no mark), `settings` the values of what a spec can decide, by SQS's names, as far as they are told;
    `drift` names what else differs, `depth` counts messages, `tenants` are the names of tenants
    that they are tagged with."""

    exists: bool = False
    owners: tuple[str | None, ...] = ()
    drift: tuple[str, ...] = ()
    settings: Mapping[str, int] = {}
    missing: tuple[str, ...] = ()
    tenants: tuple[str | None, ...] = ()
    depth: int = 0


class CreateQueue(Action, frozen=True):
    """The queue and its dead-letter queue, with a redrive policy."""

    queue: str
    mark: Mark
    settings: Queue = Queue()
    part: ClassVar[Part] = Part.QUEUE


class SetQueueAttributes(Action, frozen=True):
    queue: str
    mark: Mark
    drift: tuple[str, ...]
    settings: Queue = Queue()
    part: ClassVar[Part] = Part.QUEUE


def queue_values(settings: Queue) -> dict[str, int]:
    """What a spec decides of a queue, by SQS's names."""
    return {
        "VisibilityTimeout": settings.visibility_timeout_seconds,
        "MessageRetentionPeriod": settings.message_retention_seconds,
        "maxReceiveCount": settings.max_receive_count,
    }


class RemoveQueue(Action, frozen=True):
    """The queue and its dead-letter queue, each as far as one of these uids owns it."""

    queue: str
    owners: frozenset[str]
    part: ClassVar[Part] = Part.QUEUE
