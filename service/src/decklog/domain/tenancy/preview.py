"""What `decklog plan` prints: the decision for a manifest, over what was seen or over empty backends. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec
from msgspec.structs import replace

from decklog.domain.tenancy.decision import decide
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.observation import Observation
from decklog.domain.tenancy.parts.credentials import VaultSeen, held
from decklog.domain.tenancy.parts.part import Action, Installation, Mark
from decklog.domain.tenancy.parts.queue import QueueSeen
from decklog.domain.tenancy.parts.search import IndexSeen
from decklog.domain.tenancy.registered import DatabaseSeen, Row
from decklog.domain.tenancy.spec import spec_changes
from decklog.domain.tenancy.status import Part
from decklog.domain.tenancy.trouble import Refusal, Trouble

NEW = "new"
"""Stands for the UID of the reserved tenant before it exists: provisioning creates it before any other tenant."""


class Planned(msgspec.Struct, frozen=True):
    """What would be done for one tenant.

    `changes` names the fields of the spec that differ from the spec applied last. `unseen` are backends that could not be
    reached; nothing is planned for them. `platform_first`: the reserved tenant would be created before.
    """

    name: str
    changes: tuple[str, ...]
    actions: tuple[Action, ...]
    refused: Refusal | None
    unseen: dict[Part, Trouble]
    platform_first: bool


def empty_world(installation: Installation, *, search: int | None, queue: bool) -> Observation:
    """Return an observation of empty backends, in which not even the reserved tenant exists.

    `search` is the version of the mapping that indices are made with; None without a search engine.
    """
    index, queues = (None if search is None else IndexSeen(search)), (QueueSeen() if queue else None)
    return Observation(DatabaseSeen(), replace(installation, uid=NEW), index, queues, VaultSeen())


def planned(manifest: Manifest, seen: Observation, now: datetime) -> Planned:
    """Return the plan over what was seen. A vault that could not be read counts as holding the registered keys."""
    if isinstance(seen.database, DatabaseSeen):
        seen = replace(
            seen,
            vault=held(seen.database) if seen.vault is None else seen.vault,
            installation=replace(seen.installation, uid=seen.installation.uid or NEW),
        )
    decision, row = decide(manifest, seen, now), seen.row
    return Planned(
        manifest.name,
        spec_changes(row.spec, manifest.spec) if row and row.spec else (),
        tuple(decision.actions),
        decision.refusal,
        {part: found for part, found in seen.troubles.items() if part is not Part.CREDENTIALS},
        seen.installation.uid == NEW,
    )


def plain(planned: Planned) -> dict[str, Any]:
    """Return the JSON of `decklog plan --json`; each action names the condition that it is for."""
    shown: dict[str, Any] = msgspec.to_builtins(planned)
    del shown["platform_first"]  # the same for all
    shown["actions"] = [{"part": action.part.value, **msgspec.to_builtins(action)} for action in planned.actions]
    return shown


def lines(planned: Planned) -> Iterator[str]:
    """Yield the text of `decklog plan`: a line for the tenant, then a line for each action and each unseen backend."""
    if planned.refused is not None:
        yield f"{planned.name}: refused ({planned.refused.reason}). {planned.refused.message}"
        return
    changed = f" (changes spec.{', spec.'.join(planned.changes)})" if planned.changes else ""
    yield f"{planned.name}: {len(planned.actions) or 'nothing'} to do{changed}"
    for action in planned.actions:
        yield f"  {_label(action.part):<11}  {type(action).__name__:<18}  {' '.join(_facts(action))}".rstrip()
    for part, trouble in planned.unseen.items():
        yield f"  {_label(part):<11}  not seen ({trouble.reason}). {trouble.message}"


def _label(part: Part) -> str:
    return part.removesuffix("Ready").lower()


def _facts(thing: msgspec.Struct) -> Iterator[str]:
    """`name=value` for the fields of an action and of the structs in it, without marks and times."""
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        if isinstance(value, Row):
            yield from (f"{key}={getattr(value, key)}" for key in ("schema", "index", "queue"))
        elif isinstance(value, msgspec.Struct) and not isinstance(value, Mark):
            yield from _facts(value)
        elif isinstance(value, tuple):
            if value:
                yield f"{name}={','.join(map(_word, value))}"
        elif isinstance(value, str | int) and value != "":
            yield f"{name}={_word(value)}"


def _word(value: object) -> str:
    """A value without blanks."""
    if isinstance(value, Enum):
        value = value.name.lower()
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "-")
