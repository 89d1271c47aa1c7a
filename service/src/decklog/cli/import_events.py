"""`decklog import`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Literal

import msgspec
import stamina
from cyclopts import App

from decklog.cli.connection import KEY_HELP, Connection
from decklog.cli.manual import manual
from decklog.cli.options import Flag, Json
from decklog.client.checkpoint import Checkpoints, default_folder
from decklog.client.importing import Importer, Report
from decklog.client.progress import Progress

app = App(
    name="import",
    help_epilogue=manual(
        f"""Files may be plain or gzip. CloudTrail: Records arrays, or one event a line. Kubernetes: EventLists, or one event a line.
What is not an event is refused by file and line, and the rest is imported. Events keep their ids, so a second import stores
nothing twice while the server remembers them. The same command continues an interrupted import.

{KEY_HELP}""",
        "decklog import cloudtrail trail.json.gz --url https://decklog.example.com --key-file writer.key",
        "decklog import kubernetes audit.log audit-*.log.gz --json",
        exits="0, 1 (something was refused), 2 (the import could not be completed)",
    ),
)


@app.default
async def import_events(
    kind: Literal["cloudtrail", "kubernetes"],
    files: list[Path],
    /,
    *,
    connection: Connection | None = None,
    state: Path | None = None,
    restart: Flag = False,
    as_json: Json = False,
) -> int:
    """Import audit events of other systems into a log.

    Args:
        kind: System that wrote the files.
        files: Files to import, in this order.
        connection: Address and credential.
        state: Folder that records how far an import has come (XDG state home).
        restart: Send every event, also those that an interrupted import has sent.
        as_json: Write the summary as JSON.
    """
    stamina.instrumentation.set_on_retry_hooks([])  # The progress line says why the import waits.
    progress = Progress(sys.stderr, live=sys.stderr.isatty())
    checkpoints = Checkpoints(state or default_folder(os.environ))
    async with (connection or Connection()).client() as client:
        importer = Importer(client, kind, progress, checkpoints)
        try:
            report = await importer.run(files, restart=restart)
        except asyncio.CancelledError:
            progress.say("Interrupted. The same command continues here.")
            raise
    sys.stdout.write((msgspec.json.encode(report).decode() if as_json else summary(report)) + "\n")
    if report.stopped:
        return 2
    return 1 if report.refused else 0


def summary(report: Report) -> str:
    """Return a report as lines of text: one for each of several files, then the totals."""
    lines = [
        f"{file.file}: {file.stored} stored, {file.duplicates} already there, {file.refused} refused" for file in report.files
    ]
    if len(lines) == 1:
        lines = []
    lines.append(
        f"{report.stored} stored, {report.duplicates} already there, {report.refused} refused, in tenant {report.tenant!r}."
    )
    if report.replaced:
        lines.append(f"{report.replaced} characters that cannot be stored were replaced.")
    if report.stopped:
        lines.append(f"Stopped early: {report.stopped} The same command continues from there.")
    return "\n".join(lines)
