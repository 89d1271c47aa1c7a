"""Conversations: the questions of one user in a tenant and what was answered, kept for a time so that a question may refer to earlier ones.

A conversation names records by their numbers and contains none of them.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final, Protocol

import msgspec

from decklog.domain.ask.understanding import Understanding
from decklog.domain.identity.access import Principal
from decklog.domain.tenant import Tenant

TURNS_MAX: Final = 50
"""Questions of one conversation."""
TURN_BYTES_MAX: Final = 16 * 1024
"""Bytes of one turn, as JSON; a longer answer is cut."""
CONVERSATION_BYTES_MAX: Final = 256 * 1024
"""Bytes of all turns of one conversation."""
PER_OWNER_MAX: Final = 100
"""Conversations of one user in a tenant. Those used longest ago give way."""
PER_TENANT_MAX: Final = 5_000
"""Conversations of one tenant. Those used longest ago give way."""
TITLE_CHARS_MAX: Final = 200
"""Characters of a title, which is the beginning of the first question."""
ANSWER_CHARS_MAX: Final = 4_000
"""Characters of an answer that are kept."""
RECORDS_MAX: Final = 100
"""Numbers of records that are kept with an answer."""


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A question, how it was understood, and what was answered. `records` are the numbers of the records that were shown."""

    asked_at: datetime
    question: str
    understanding: Understanding
    answer: str
    engine: str
    records: tuple[int, ...] = ()


class ConversationHead(msgspec.Struct, frozen=True):
    """A conversation without its turns. After `ends_at` it is deleted; each question moves that time."""

    id: str
    title: str
    length: int
    started_at: datetime
    last_at: datetime
    ends_at: datetime


class Conversation(ConversationHead, frozen=True):
    """A conversation with its turns, the oldest first."""

    turns: tuple[Turn, ...]


class Conversations(Protocol):
    """The conversations of the users of a cell's tenants. Every method raises `storage-unavailable`."""

    async def begin(self, tenant: Tenant, number: str, owner: bytes, turn: Turn, *, days: int) -> None:
        """Store a new conversation with its first turn, kept for `days` after its last one. Older ones beyond a bound are deleted."""
        ...

    async def go_on(self, tenant: Tenant, number: str, owner: bytes, turn: Turn, *, days: int) -> bool:
        """Add a turn, and return whether this owner has such a conversation with room for it."""
        ...

    async def all(self, tenant: Tenant, owner: bytes) -> list[ConversationHead]:
        """Return the conversations of an owner, the one used last first."""
        ...

    async def get(self, tenant: Tenant, number: str, owner: bytes) -> Conversation | None:
        """Return a conversation, None where this owner has none of this number."""
        ...

    async def delete(self, tenant: Tenant, number: str, owner: bytes) -> bool:
        """Delete a conversation, and return whether this owner had one of this number."""
        ...


def owner_of(principal: Principal) -> bytes:
    """Return the owner of this principal's conversations: the SHA-256 of its kind, issuer and subject.

    A session has the identity of the credential that opened it.
    """
    return hashlib.sha256(msgspec.json.encode((principal.kind, principal.issuer, principal.subject))).digest()


def title_of(question: str) -> str:
    """Return the title of the conversation that this question begins."""
    line = " ".join("".join(each if each.isprintable() else " " for each in question).split())
    return line if len(line) <= TITLE_CHARS_MAX else line[: TITLE_CHARS_MAX - 1] + "…"


def encoded(turn: Turn) -> str:
    """Return a turn as one line of JSON of at most `TURN_BYTES_MAX` bytes. A longer answer is cut, and then its numbers are left out."""
    if len(turn.answer) > ANSWER_CHARS_MAX:
        turn = msgspec.structs.replace(turn, answer=turn.answer[: ANSWER_CHARS_MAX - 1] + "…")
    for lesser in (turn, msgspec.structs.replace(turn, records=()), msgspec.structs.replace(turn, records=(), answer="…")):
        text = msgspec.json.encode(lesser)
        if len(text) <= TURN_BYTES_MAX:
            return text.decode()
    raise ValueError(f"a turn without its answer has more than {TURN_BYTES_MAX} bytes")


_decode = msgspec.json.Decoder(Turn).decode


def decoded(lines: str) -> tuple[Turn, ...]:
    """Return the turns of a conversation from its lines."""
    return tuple(_decode(line) for line in lines.split("\n"))
