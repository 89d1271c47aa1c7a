"""The queue part of a tenant: the SQS queue of its wake-ups and the dead-letter queue beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import ClassVar

import msgspec

from decklog.domain.tenancy.parts.part import WAITING_FOR_OWNER, Action, Look, Mark, Step
from decklog.domain.tenancy.spec import Queue
from decklog.domain.tenancy.status import Part, Verdict

_GOOD = Verdict("True", "Provisioned", "The queue and its dead-letter queue are as asked for.")
_NOT_CONFIGURED = Verdict("True", "NotConfigured", "No queue is configured: the workers find new records by their sweep.")


class QueueSeen(msgspec.Struct, frozen=True):
    """A queue and its dead-letter queue.

    `exists` is true when both exist, else `missing` names the absent ones. `owners` and `tenants` hold the UID and name of
    each mark, None where a queue has none. `settings` holds the values that a spec decides, by their SQS names, as far as
    the server reports them; `drift` names other attributes that differ. `depth` counts messages.
    """

    exists: bool = False
    owners: tuple[str | None, ...] = ()
    drift: tuple[str, ...] = ()
    settings: Mapping[str, int] = {}
    missing: tuple[str, ...] = ()
    tenants: tuple[str | None, ...] = ()
    depth: int = 0


class CreateQueue(Action, frozen=True):
    """Create the queue, its dead-letter queue and the redrive policy between them."""

    queue: str
    mark: Mark
    settings: Queue = Queue()
    part: ClassVar[Part] = Part.QUEUE


class SetQueueAttributes(Action, frozen=True):
    """Correct the attributes and marks that `drift` names, and create a queue of the two that is missing."""

    queue: str
    mark: Mark
    drift: tuple[str, ...]
    settings: Queue = Queue()
    part: ClassVar[Part] = Part.QUEUE


class RemoveQueue(Action, frozen=True):
    """Delete the queue and its dead-letter queue, each only where one of these UIDs owns it."""

    queue: str
    owners: frozenset[str]
    part: ClassVar[Part] = Part.QUEUE


def queue_values(settings: Queue) -> dict[str, int]:
    """Return the values that a spec decides, by their SQS names."""
    return {
        "VisibilityTimeout": settings.visibility_timeout_seconds,
        "MessageRetentionPeriod": settings.message_retention_seconds,
        "maxReceiveCount": settings.max_receive_count,
    }


def marks(look: Look, found: QueueSeen) -> Iterator[tuple[str, str | None]]:
    """Yield the description and the owner of each queue that exists under the tenant's name."""
    yield from ((f"queue {look.queue!r}", owner) for owner in found.owners)


def plan(look: Look, found: QueueSeen, now: datetime) -> Iterator[Step]:
    """Yield what the queue and its dead-letter queue need."""
    mark = look.mark
    if mark is None:
        return
    foreign = set(found.owners) - {mark.uid}
    if not foreign <= look.former:
        return  # another owner's, unless the registry says otherwise once it can be reached
    settings = look.manifest.spec.queue or Queue()
    drift = [name for name, value in queue_values(settings).items() if found.settings.get(name, value) != value]
    drift += found.drift
    if foreign:
        drift.append("owner")
    elif set(found.tenants) - {mark.tenant}:
        drift.append("tag of the tenant")
    if drift:
        yield Step(SetQueueAttributes(look.queue, mark, tuple(drift), settings), tuple(drift), disabling=False)
    elif not found.exists:
        yield Step(CreateQueue(look.queue, mark, settings), found.missing or ("queue",), essential=True)


def removal(look: Look, found: QueueSeen) -> Iterator[Action]:
    """Yield the removal of a Dedicated tenant's queues. The queue of a retention class stays."""
    if not look.made_shared and not look.removable.isdisjoint(found.owners):
        yield RemoveQueue(look.row.queue if look.row else look.queue, look.removable)


def verdict(look: Look, found: QueueSeen | None) -> Verdict:
    """Return the verdict of queues that were seen."""
    if found is None:
        return _NOT_CONFIGURED
    return WAITING_FOR_OWNER if look.unverified(*found.owners) else _GOOD
