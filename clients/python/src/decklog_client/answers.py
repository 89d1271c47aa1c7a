"""The answers of the server to a batch, and what they mean for its records. This module does no I/O."""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from decklog_client.errors import ServerError

PERMANENT = frozenset({"invalid-record", "invalid-json", "body-too-large", "id-conflict"})
"""Codes of items that no retry can help. Items with any other code are sent again."""
_TOO_LARGE = frozenset({"body-too-large", "too-many-records", "batch-exceeds-burst", "headers-too-large"})
_PASSING_STATUSES = frozenset({408, 421, 425, 429, 500, 502, 503, 504})


class ItemError(msgspec.Struct, frozen=True):
    """Why an item is rejected."""

    code: str
    detail: str = ""


class Item(msgspec.Struct, frozen=True):
    """The result for one record."""

    status: str
    error: ItemError | None = None

    @property
    def stored(self) -> bool:
        """True if the server has the record: a duplicate is one that an earlier attempt stored."""
        return self.status in ("stored", "duplicate")

    @property
    def refused(self) -> bool:
        """True if the server refuses the record for what it is."""
        return self.status == "rejected" and self.error is not None and self.error.code in PERMANENT


class Body(msgspec.Struct, frozen=True):
    """Members of an answer, whether it is a result or a problem document."""

    code: str = ""
    detail: str = ""
    retry_after: float | None = None
    items: list[Item] | None = None
    stored: int = 0
    duplicates: int = 0
    tenant: str | None = None
    role: str = ""


class Meaning(Enum):
    """Meaning of an answer for the whole batch."""

    ITEMS = auto()
    """Each record has its own result."""
    SPLIT = auto()
    """The batch is too large."""
    WAIT = auto()
    """A later attempt can succeed."""
    PAUSE = auto()
    """The credential, the tenant or the address is refused, so a person must act."""


class Answer(msgspec.Struct, frozen=True):
    """An answer. `retry_after` is that of the header or of the document."""

    status: int
    body: Body
    retry_after: float | None

    def meaning(self, records: int) -> Meaning:
        """Return what the answer means for a batch of so many records."""
        if self.body.items is not None and len(self.body.items) == records:
            return Meaning.ITEMS
        if self.status == 413 or self.body.code in _TOO_LARGE:
            return Meaning.SPLIT
        if self.status in _PASSING_STATUSES or self.status < 300:
            return Meaning.WAIT
        return Meaning.PAUSE

    def error(self) -> ServerError:
        """Return the answer as an error."""
        code = self.body.code or ("unknown" if self.status != 401 else "unauthenticated")
        detail = self.body.detail or f"The server answered with status {self.status} and no problem document."
        return ServerError(code, detail, status=self.status, retry_after=self.retry_after)


def parse(status: int, body: bytes, retry_after: str) -> Answer:
    """Return an answer. A body that is none of Decklog's counts as empty: a proxy sent it."""
    try:
        found = msgspec.json.decode(body, type=Body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = Body()
    seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else found.retry_after
    return Answer(status, found, seconds)
