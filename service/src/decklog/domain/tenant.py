"""A tenant as the data plane knows it: a row of the registry, its state and the limits that each process applies.

This module must not import the control plane: what a platform engineer asks for is in `tenancy/spec.py`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

from decklog.domain.index_generation import IndexGeneration
from decklog.domain.records.record import RECORD_BYTES_MAX

PLATFORM_TENANT = "decklog"
"""The reserved tenant; its access log holds the actions that belong to no tenant."""
DEFAULT_CELL = "default"
"""Name of the only database of an installation that names none."""
CELL_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
STREAMS_MAX = 50
"""Streams that one tenant may have open at once in each process of the API, unless its spec says otherwise."""
EVENTS_PER_SECOND = 1_000
"""Records per second that a tenant may append unless its spec says otherwise."""
_BYTES_PER_EVENT = 4 * 1024
_BYTES_PER_SECOND_MIN = 1024 * 1024


def default_bytes_per_second(events_per_second: int) -> int:
    """Return the bytes per second of a tenant whose spec does not say: 4 KiB for each record, and at least 1 MiB."""
    return max(_BYTES_PER_SECOND_MIN, _BYTES_PER_EVENT * events_per_second)


class Isolation(StrEnum):
    """Whether a tenant has a schema, index and queue of its own, or shares those of its retention class."""

    DEDICATED = "Dedicated"
    SHARED = "Shared"


class State(IntEnum):
    """What the head row lets writers do. The number is what storage holds."""

    ACTIVE = 0
    SUSPENDED = 1
    DELETED = 2


class Limits(msgspec.Struct, frozen=True):
    """Limits that each process applies by itself. The others are on the tenant's heads, exact across processes.

    `streams` counts open streams, `record_bytes_max` is in bytes, and `search_days` is 0 where the index keeps all days.
    `bytes_per_second` counts the bytes of records as sent, decompressed. `trims`: a record that is too large or too deep is stored
    trimmed unless the request says otherwise. `shows_records`: a model that answers questions may see records.
    """

    streams: int = STREAMS_MAX
    record_bytes_max: int = RECORD_BYTES_MAX
    bytes_per_second: int = default_bytes_per_second(EVENTS_PER_SECOND)
    search_days: int = 0
    trims: bool = False
    shows_records: bool = False


class Tenant(msgspec.Struct, frozen=True):
    """A row of the registry, with what the service needs to serve the tenant.

    `id` is the number that storage separates by; it is never used again. `schema` is the Postgres schema of the records,
    `index` the name that its OpenSearch indices begin with, and `queue` the SQS queue of the wake-ups. `live` is the generation of the
    index that searches read, and `building` the one that is filled to take its place; None where there is none.
    """

    id: int
    name: str
    isolation: Isolation
    schema: str
    index: str
    queue: str
    retention_days: int
    state: State
    display_name: str = ""
    uid: str = ""
    limits: Limits = Limits()
    live: IndexGeneration | None = None
    building: IndexGeneration | None = None
