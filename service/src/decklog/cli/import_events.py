"""`decklog import`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import stamina
from cyclopts import App, Parameter

from decklog.cli.connection import KEY_HELP, Connection
from decklog.cli.manual import manual
from decklog.cli.options import Flag, Form, Json
from decklog.client.checkpoint import Checkpoints, default_folder
from decklog.client.event_files import STDIN
from decklog.client.import_report import summary
from decklog.client.importing import Importer
from decklog.client.progress import Progress

app = App(
    name="import",
    help_epilogue=manual(
        f"""Files hold JSON in any form (lines, indented, arrays, Records, EventLists, lookup-events), logs of containers, or exports of
Decklog (JSON or CSV); plain, gzip or zstd. Folders are read with all files below them, and - is standard input. Envelopes of
collectors and clouds around an event are taken off. What is not an event is refused, counted by kind, and the rest is imported.
Events keep their ids. A key that may read (role admin, or --read-key-file) asks the log which of them it holds, so a second import
stores nothing twice. Without one the server recognises ids for the tenant's dedupWindow, 24 hours by default. The same command
continues an interrupted import.

{KEY_HELP}""",
        "decklog import cloudtrail trail.json.gz --url https://decklog.example.com --key-file writer.key",
        "decklog import kubernetes audit.log audit-*.log.gz --json",
        "decklog import auto AWSLogs/ --url https://decklog.example.com --key-file writer.key",
        "zcat export.ndjson.gz | decklog import decklog - --url https://decklog.example.com --key-file writer.key",
        exits="0, 1 (something was refused), 2 (the import could not be completed)",
    ),
)


def _are_no_options(_: Any, paths: Sequence[Path]) -> None:
    """Refuse what looks like an option: `-` alone is standard input. Raises ValueError."""
    for path in paths:
        if str(path).startswith("-") and path != STDIN:
            raise ValueError(f'Unknown option: "{path}". A file of this name is ./{path}.')


Files = Annotated[list[Path], Parameter(allow_leading_hyphen=True, validator=_are_no_options)]


@app.default
async def import_events(
    kind: Literal["auto", "cloudtrail", "kubernetes", "decklog"],
    files: Files,
    /,
    *,
    connection: Connection | None = None,
    read_key_file: Path | None = None,
    state: Path | None = None,
    restart: Flag = False,
    as_json: Json = False,
    output: Form = "text",
) -> int:
    """Import audit events of other systems into a log.

    Args:
        kind: System that wrote the files, or auto to recognise each event.
        files: Files or folders to import, in this order.
        connection: Address and credential.
        read_key_file: File that holds a key of the role auditor, to ask the log which events it holds.
        state: Folder that records how far an import has come (XDG state home).
        restart: Send every event, also those that an interrupted import has sent.
        as_json: Write the summary as JSON.
        output: Text, or JSON.
    """
    as_json = as_json or output == "json"
    stamina.instrumentation.set_on_retry_hooks([])  # The progress line says why the import waits.
    progress = Progress(sys.stderr, live=sys.stderr.isatty())
    checkpoints = Checkpoints(state or default_folder(os.environ))
    given = connection or Connection()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(given.client())
        reader = None if read_key_file is None else await stack.enter_async_context(given.client(read_key_file))
        importer = Importer(client, kind, progress, checkpoints, reader=reader)
        try:
            report = await importer.run(files, restart=restart)
        except asyncio.CancelledError:
            progress.say("Interrupted. The same command continues here.")
            raise
    sys.stdout.write((msgspec.json.encode(report).decode() if as_json else summary(report)) + "\n")
    if report.stopped:
        return 2
    return 1 if report.refused else 0
