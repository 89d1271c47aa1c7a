"""Errors of the client. None of them contains a credential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class DecklogError(Exception):
    """The base of all errors that this library raises."""


class ConfigurationError(DecklogError):
    """An option is missing or malformed."""


class InvalidRecordError(DecklogError, ValueError):
    """A record cannot be written: a required field is missing, or a value has no form in JSON."""


class RecordTooLargeError(InvalidRecordError):
    """A record has more bytes than `record_bytes`."""


class SpoolError(DecklogError):
    """The folder of the spool cannot be written. The record was not taken."""


class SpoolFullError(SpoolError):
    """The spool, or the disk, has no room. The record was not taken."""


class ClosedError(DecklogError):
    """The client is closed. The record was not taken."""


class NotStoredYetError(DecklogError, TimeoutError):
    """Records are not stored within the time of a `commit`. They stay in the spool and are sent later."""


class Refusal(msgspec.Struct, frozen=True):
    """A record that the server refuses for what it is, so that no retry can help.

    Attributes:
        id: Id of the record.
        code: Code of the error, as in the server's reference of errors.
        detail: The reason, for people.
        record: The record as it was sent.
    """

    id: str
    code: str
    detail: str
    record: dict[str, Any]


class RefusedError(DecklogError):
    """The server refused records. They are in the file `rejected.ndjson` of the spool.

    Attributes:
        refusals: The refusals, at most 100 of them.
    """

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        first = refusals[0]
        super().__init__(f"The server refused {len(refusals)} records. The first one: {first.code}: {first.detail}")
        self.refusals = list(refusals)


class ServerError(DecklogError):
    """An answer of the server that is an error, or no answer.

    Attributes:
        code: Code of the problem document, or `unreachable` or `unknown`.
        status: Status of the answer, 0 without an answer.
        retry_after: Seconds to wait, where the server names them.
    """

    def __init__(self, code: str, detail: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.status = status
        self.retry_after = retry_after
