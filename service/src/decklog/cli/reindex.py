"""`decklog reindex`: rebuilds search indices beside live traffic; see `decklog.services.search.rebuilding`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from decklog import settings
from decklog.assembly import maintenance
from decklog.assembly.maintenance import Rebuilding
from decklog.cli.manual import manual
from decklog.cli.options import All, Json
from decklog.client.progress import Progress
from decklog.domain.errors import Code, DecklogError
from decklog.domain.index_generation import IndexGeneration
from decklog.services.search import rebuilding

app = App(
    name="reindex",
    help_epilogue=manual(
        """Workers fill a new generation of the index from the records, while searches read the old one and new records go into both. When
the new one is nearly full, searches read it, and the old one is removed an hour later at most. A Shared tenant has the index of
its class, which is rebuilt as a whole. An interrupted rebuilding goes on by itself; the same command watches it again.
A newer version of Decklog rebuilds indices with an older mapping without this command.

Needs DECKLOG_DATABASE_OWNER_DSN, or DECKLOG_DATABASE_DSN with the worker's role; and DECKLOG_SEARCH_ as the workers have them.""",
        "decklog reindex acme",
        "decklog reindex --all --no-wait --json",
        exits="0, 1 (an index has no generation to rebuild, which provisioning makes), 2 (the command could not be completed)",
    ),
)


class Report(msgspec.Struct, frozen=True):
    """The generations that were begun, or were under way, by their aliases, and indices without one to rebuild."""

    generations: list[str]
    skipped: list[str]
    records: int
    seconds: float
    complete: bool


@app.default
async def reindex(
    *names: str,
    every: All = False,
    wait: Annotated[bool, Parameter(negative="--no-wait", show_default=False)] = True,
    as_json: Json = False,
) -> int:
    """Rebuild search indices beside live traffic.

    Args:
        names: Names of tenants.
        every: All tenants of this installation.
        wait: Watch until searches read the new generations.
        as_json: Write the result as JSON.
    """
    if bool(names) is every:
        raise DecklogError(Code.MISCONFIGURED, "Give names of tenants, or --all.")
    began = time.monotonic()
    async with maintenance.open_rebuilding(settings.load(os.environ)) as opened:
        built, skipped = await _begin(opened, None if every else names)
        records = await _watch(opened, built) if wait and built else 0
    report = Report([each.alias for each in built], skipped, records, round(time.monotonic() - began, 1), complete=wait)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n" if as_json else _summary(report))
    return 1 if skipped else 0


async def _begin(opened: Rebuilding, names: Sequence[str] | None) -> tuple[list[IndexGeneration], list[str]]:
    """Begin the generations; return them, and the names of indices that have none to rebuild."""
    built: list[IndexGeneration] = []
    skipped: list[str] = []
    for index in await rebuilding.select(names, opened.generations, opened.generations):
        generation = await rebuilding.rebuild(index, opened.generations, opened.ranges)
        if generation is None:
            skipped.append(index.name)
        else:
            built.append(generation)
    return built, skipped


async def _watch(opened: Rebuilding, built: Sequence[IndexGeneration]) -> int:
    """Show the progress until searches read every generation; return their records."""
    progress = Progress(sys.stderr, live=sys.stderr.isatty())
    records = 0
    async for seen in rebuilding.watch(built, opened.generations):
        if not records:
            progress.begin(seen.records)
            progress.skip(seen.done, seen.done)
        records = seen.records
        progress.advance(seen.left[0] if seen.left else "all indices", seen.done, seen.done)
    return records


def _summary(report: Report) -> str:
    lines = [f"{alias}: {'searches read it' if report.complete else 'workers build it'}" for alias in report.generations]
    lines += [f"{index}: there is no generation with this version's mapping; provisioning makes one" for index in report.skipped]
    return "".join(f"{line}\n" for line in lines)
