"""What the parts of a tenant have in common: actions, marks of ownership, and reasons why something is not done."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from decklog.domain.tenancy.names import PREFIX
from decklog.domain.tenancy.status import Part
from decklog.domain.tenant import DEFAULT_CELL


class Trouble(msgspec.Struct, frozen=True):
    """Why something could not be seen or done. `reason` is one word, `message` is for people and holds no secret."""

    reason: str
    message: str


class Installation(msgspec.Struct, frozen=True):
    """Whose all this is. `uid` is that of the reserved tenant, which owns what tenants share; None where it is not
    known. Names of indices and queues begin with `prefix`. `cell` is the name of the one database that holds records."""

    uid: str | None = None
    prefix: str = PREFIX
    cell: str = DEFAULT_CELL


class Action(msgspec.Struct, frozen=True, tag=True, tag_field="action"):
    """One thing to do, for the tenant that the plan is of. Doing it again changes nothing."""

    part: ClassVar[Part]


class Mark(msgspec.Struct, frozen=True):
    """What is created carries whose it is: the tenant's name and uid; the reserved tenant's on what tenants share."""

    tenant: str
    uid: str


class Refusal(Trouble, frozen=True):
    """Why nothing at all is done until somebody changes something."""
