"""What `decklog plan` prints: the plan for a manifest over what was seen, or over an empty world. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec
from msgspec.structs import replace

from decklog.domain.tenancy.decision import Observation
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.credentials import VaultSeen, held
from decklog.domain.tenancy.parts.part import Action, Installation, Mark, Refusal, Trouble
from decklog.domain.tenancy.parts.queue import QueueSeen
from decklog.domain.tenancy.parts.search import IndexSeen
from decklog.domain.tenancy.plan import plan, refusal
from decklog.domain.tenancy.registered import DatabaseSeen, Row
from decklog.domain.tenancy.spec import spec_changes
from decklog.domain.tenancy.status import Part

NEW = "new"
"""Stands for the uid of the reserved tenant where it is not made yet: provisioning makes it before any other tenant."""


class Planned(msgspec.Struct, frozen=True):
    """What would be done for one tenant. `changes` names the fields of the spec that differ from what was applied last;
    `unseen` are backends that did not answer, for which nothing is planned."""

    name: str
    changes: tuple[str, ...]
    actions: tuple[Action, ...]
    refused: Refusal | None
    unseen: dict[Part, Trouble]
    platform_first: bool


def empty_world(installation: Installation, *, search: bool, queue: bool) -> Observation:
    """Backends with nothing in them, the reserved tenant neither."""
    index, queues = (IndexSeen() if search else None), (QueueSeen() if queue else None)
    return Observation(DatabaseSeen(), replace(installation, uid=NEW), index, queues, VaultSeen())


def planned(manifest: Manifest, seen: Observation, now: datetime) -> Planned:
    """The plan over what was seen. The vault cannot be asked from everywhere; where it was not, it is taken to hold the
    keys that the registry has."""
    database = seen.database
    if isinstance(database, DatabaseSeen):
        if seen.vault is None:
            seen = replace(seen, vault=held(database))
        if seen.installation.uid is None:
            seen = replace(seen, installation=replace(seen.installation, uid=NEW))
    row = database.row if isinstance(database, DatabaseSeen) else None
    parts = {Part.DATABASE: database, Part.SEARCH: seen.search, Part.QUEUE: seen.queue}
    return Planned(
        manifest.name,
        spec_changes(row.spec, manifest.spec) if row and row.spec else (),
        tuple(plan(manifest, seen, now)),
        refusal(manifest, seen),
        {part: found for part, found in parts.items() if isinstance(found, Trouble)},
        seen.installation.uid == NEW,
    )


def plain(planned: Planned) -> dict[str, Any]:
    """As `decklog plan --json` shows it; each action with the condition that it is for."""
    shown: dict[str, Any] = msgspec.to_builtins(planned)
    del shown["platform_first"]  # the same for all
    shown["actions"] = [{"part": action.part.value, **msgspec.to_builtins(action)} for action in planned.actions]
    return shown


def lines(planned: Planned) -> Iterator[str]:
    """For people: the tenant, then a line for each action with what it is about."""
    if planned.refused is not None:
        yield f"{planned.name}: refused ({planned.refused.reason}). {planned.refused.message}"
        return
    changed = f" (changes spec.{', spec.'.join(planned.changes)})" if planned.changes else ""
    yield f"{planned.name}: {len(planned.actions) or 'nothing'} to do{changed}"
    for action in planned.actions:
        part = action.part.removesuffix("Ready").lower()
        yield f"  {part:<11}  {type(action).__name__:<18}  {' '.join(_facts(action))}".rstrip()
    for part, trouble in planned.unseen.items():
        yield f"  {part.removesuffix('Ready').lower():<11}  not seen ({trouble.reason}). {trouble.message}"


def _facts(thing: msgspec.Struct) -> Iterator[str]:
    """`name=value` for what a struct says, those it holds included. Whose it is and when it is is left out."""
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
    """A value without blanks in it."""
    if isinstance(value, Enum):
        value = value.name.lower()
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "-")
