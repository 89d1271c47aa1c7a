"""Options of a client, with their bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from decklog_client.errors import ConfigurationError, Refusal

if TYPE_CHECKING:
    import ssl

OnRejected = Callable[[Refusal], object]
KIB, MIB = 1024, 1024 * 1024

_Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All options but the address, the key and the folder.

    Attributes:
        spool_bytes: Bytes that the folder may have; 1 MiB to 1 TiB.
        segment_bytes: Bytes of one file. Space is released by files.
        record_bytes: Bytes of one record as JSON, at most 4 MiB. The server has a limit of its own, 256 KiB unless its tenant raises it.
        batch_records: Records of one request, at most 10,000.
        batch_bytes: Bytes of one request, at most 16 MiB.
        linger: Seconds for which the sender collects a batch; `commit` and `close` end it. Fewer requests disturb the application less.
        fsync: `interval` asks the disk each second, `always` before `record` returns, `never` leaves it to the system.
        when_full: `block` waits for room, `raise` does not.
        full_timeout: Seconds for which `block` waits.
        request_timeout: Seconds without progress of a request.
        backoff_max: Seconds between two attempts, at most.
        retry_after_max: Seconds that the server may ask the client to wait, at most.
        pause: Seconds between two attempts while the credential, the tenant or the address is refused.
        scan: Seconds between two looks for the files of processes that have ended.
        exit_timeout: Seconds for which an ending program waits for the server.
        rejected_bytes: Bytes of `rejected.ndjson`. Where it is full, the sender waits, and loses nothing.
        on_rejected: Is called for each refused record, by the thread of the sender.
        ssl_context: TLS settings, where those of the system are not the right ones.
    """

    spool_bytes: Annotated[int, Meta(ge=MIB, le=1024 * 1024 * MIB)] = 256 * MIB
    segment_bytes: Annotated[int, Meta(ge=16 * KIB, le=256 * MIB)] = 4 * MIB
    record_bytes: Annotated[int, Meta(ge=KIB, le=4 * MIB)] = 256 * KIB
    batch_records: Annotated[int, Meta(ge=1, le=10_000)] = 500
    batch_bytes: Annotated[int, Meta(ge=KIB, le=16 * MIB)] = MIB
    linger: _Seconds = 1.0
    fsync: Literal["always", "interval", "never"] = "interval"
    when_full: Literal["block", "raise"] = "block"
    full_timeout: _Seconds = 30.0
    request_timeout: _Seconds = 30.0
    backoff_max: _Seconds = 30.0
    retry_after_max: _Seconds = 300.0
    pause: _Seconds = 30.0
    scan: _Seconds = 5.0
    exit_timeout: _Seconds = 2.0
    rejected_bytes: Annotated[int, Meta(ge=MIB)] = 64 * MIB
    on_rejected: Any = None
    ssl_context: Any = None


class OptionValues(TypedDict, total=False):
    """The members of `Options`, for type checkers."""

    spool_bytes: int
    segment_bytes: int
    record_bytes: int
    batch_records: int
    batch_bytes: int
    linger: float
    fsync: Literal["always", "interval", "never"]
    when_full: Literal["block", "raise"]
    full_timeout: float
    request_timeout: float
    backoff_max: float
    retry_after_max: float
    pause: float
    scan: float
    exit_timeout: float
    rejected_bytes: int
    on_rejected: OnRejected | None
    ssl_context: ssl.SSLContext | None


def options(values: OptionValues) -> Options:
    """Return the options. Raises ConfigurationError with the name and what is allowed."""
    try:
        return msgspec.convert(values, Options)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"Options of Decklog: {error}.") from None
