"""Generations of a search index, and the receipt-time ranges that each consists of: names and bounds.

A generation is one filling of an index with one mapping, from the first record on. It has a cursor of its own in every log, so a
cursor never counts for documents of another generation. A generation is a row of indices, one for each range of receipt time.
A record belongs to the last range that begins at or before its receipt time.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from typing import Protocol

import msgspec

RANGES_MAX = 4
"""Whole ranges that the days of an index are divided into: each is a shard of every tenant. A range is also in use before its end, and
those of `AHEAD` are made."""
DOCUMENTS_MAX = 500_000_000
"""Documents of a range after which the next one begins early. Lucene holds 2.1 billion in a shard; at 8,000/s the rest fills in two days."""
AHEAD = timedelta(days=3)
"""A range is made so long before it begins."""
_DAY = timedelta(days=1)
_NAME = re.compile(r"v([0-9]{1,6})-([0-9]{1,9})")
_EPOCH_DAY = date(1970, 1, 1)


class GenerationState(IntEnum):
    """The use of a generation of a search index. The number is what storage holds."""

    BUILDING = 0
    """Workers fill it. No search reads it."""
    LIVE = 1
    """Searches read it, and workers fill it. An index has one at most."""
    RETIRED = 2
    """Nothing uses it any more. Its indices and cursors are to be removed."""


class GenerationRow(msgspec.Struct, frozen=True):
    """A generation of a search index as the database has it: the first day and the uuid of the index of each range, in order."""

    name: str
    state: GenerationState
    starts: tuple[date, ...]
    uuids: tuple[str, ...]


class IndexGeneration(msgspec.Struct, frozen=True):
    """One generation of `index`: `name` is `v<version of the mapping>-<build>`, and `starts` are the first days of its ranges, ascending."""

    index: str
    name: str
    starts: tuple[date, ...]

    @property
    def version(self) -> int:
        """Version of the mapping of its indices."""
        return parse_name(self.name)[0]

    @property
    def alias(self) -> str:
        """The alias of all its ranges, by which searches read."""
        return f"{self.index}.{self.name}"

    def range_of(self, received_at: datetime) -> date | None:
        """Return the first day of the range of this receipt time; None before the first range."""
        at = bisect_right(self.starts, received_at.astimezone(UTC).date())
        return self.starts[at - 1] if at else None

    def range_index(self, start: date) -> str:
        """Return the name of the index of the range that begins on this day."""
        return range_index(self.index, self.name, start)

    @property
    def range_indices(self) -> tuple[str, ...]:
        """Names of the indices of all ranges."""
        return tuple(self.range_index(start) for start in self.starts)


def range_index(index: str, name: str, start: date) -> str:
    """Return the index of a range of the generation `name`. Names of tenants have no dot, so no other tenant's index has this name."""
    return f"{index}.{name}.{start:%Y%m%d}"


def parse_range_index(index: str, found: str) -> tuple[str, date] | None:
    """Return the generation's name and the first day of a range by the name of its index; None for a name of another form."""
    name, _, day = found.removeprefix(f"{index}.").partition(".")
    if not _NAME.fullmatch(name) or not re.fullmatch(r"[0-9]{8}", day):
        return None
    try:
        return name, datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def parse_name(name: str) -> tuple[int, int]:
    """Return the version of the mapping, and the build, that a generation's name states. Raises ValueError for another text."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is not the name of a generation.")
    return int(found[1]), int(found[2])


def next_name(version: int, names: Iterable[str]) -> str:
    """Return the name of a new generation beside those of these names."""
    builds = (build for of, build in map(parse_name, names) if of == version)
    return f"v{version}-{max(builds, default=0) + 1}"


def range_days(partition_days: int, kept_days: int) -> int:
    """Return the days of one range: the fewest whole partitions of which `RANGES_MAX` ranges hold `kept_days`."""
    return partition_days * -(-kept_days // (RANGES_MAX * partition_days))


def first_starts(first: date, today: date, partition_days: int, kept_days: int) -> tuple[date, ...]:
    """Return the starts of the ranges of a new generation that holds records received from `first` on.

    The first range also takes what is older than `kept_days`, and is dropped as soon as all of it is. The others begin with a
    partition. Those of `AHEAD` are included.
    """
    oldest = max(first, today - timedelta(days=kept_days))
    start = oldest - (oldest - _EPOCH_DAY) % timedelta(days=partition_days)
    length = timedelta(days=range_days(partition_days, kept_days))
    starts = [start]
    while starts[-1] + length <= today + AHEAD:
        starts.append(starts[-1] + length)
    return (min(first, start), *starts[1:])


def next_start(last: date, today: date, partition_days: int, kept_days: int, *, full: bool = False) -> date | None:
    """Return the start of the range that must be made after the one that begins at `last`; None where it is not due yet.

    `full`: the range that is written has `DOCUMENTS_MAX`. A range that should have been made earlier begins the day after tomorrow:
    until then every worker has learnt of it, and no record is written to two ranges.
    """
    soon = today + 2 * _DAY
    if full and last <= today:
        return soon
    following = last + timedelta(days=range_days(partition_days, kept_days))
    return max(following, soon) if following <= today + AHEAD else None


class TendedIndex(msgspec.Struct, frozen=True):
    """An index as workers tend it.

    `kept_days`: the most days that a tenant may search it for. `idle_seconds`: since one of the generations changed.
    """

    name: str
    kept_days: int
    partition_days: int
    idle_seconds: float
    generations: tuple[GenerationRow, ...]


class GenerationProgress(msgspec.Struct, frozen=True):
    """How far a generation has come: `done` of the `records` of all logs of its index. `state` is None where it is unknown."""

    state: GenerationState | None
    done: int
    records: int


class Generations(Protocol):
    """The generations of all search indices, as the database has them. Every method raises `storage-unavailable`."""

    async def all(self) -> list[TendedIndex]:
        """Return the indices that have a generation, by name."""
        ...

    async def record(self, generation: IndexGeneration, uuids: Sequence[str], *, at_once: bool) -> bool:
        """Record a new generation, whose ranges are empty; return whether it was new.

        Searches read it where `at_once`, or where the index has no live one. Otherwise workers build it.
        """
        ...

    async def add_range(self, generation: IndexGeneration, start: date, uuid: str) -> bool:
        """Record a range that was made ahead; return whether it was new."""
        ...

    async def drop_range(self, generation: IndexGeneration, start: date) -> bool:
        """Take the first range out of a generation; return whether it was there, with another one after it."""
        ...

    async def switch(self, generation: IndexGeneration, *, lag_max: int) -> bool:
        """Let searches read a generation that was built, once no log lacks more than `lag_max` records; return whether they do."""
        ...

    async def progress(self, generation: IndexGeneration) -> GenerationProgress:
        """Return how far a generation has come."""
        ...

    async def forget(self, generation: IndexGeneration) -> bool:
        """Forget a retired generation whose indices are removed; return whether it was there."""
        ...


class Ranges(Protocol):
    """The indices of ranges, in the search engine. Every method raises `search-unavailable`."""

    version: int
    """Version of the mapping that this process makes."""

    async def uuids(self, index: str) -> dict[str, str]:
        """Return the uuids of the indices of this name and of all ranges of its generations that Decklog made, by name."""
        ...

    async def documents(self, name: str) -> int:
        """Return the number of documents in an index, 0 where it does not exist."""
        ...

    async def make(self, generation: IndexGeneration, start: date, *, like: str) -> str:
        """Create the index of a range, with the owner of the index `like`, unless it exists; return its uuid."""
        ...

    async def remove(self, names: Sequence[str]) -> None:
        """Delete these indices."""
        ...
