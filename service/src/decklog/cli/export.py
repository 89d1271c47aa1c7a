"""`decklog export`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from decklog.cli.columns import column_names
from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND, NOTHING
from decklog.cli.manual import manual
from decklog.cli.options import Flag
from decklog.cli.querying import QUERY_HELP, LogName, Words, asked, query_of
from decklog.client.client import Client
from decklog.client.export_file import ExportFile, Wanted
from decklog.client.progress import Progress
from decklog.domain.errors import Code, DecklogError

app = App(
    name="export",
    help_epilogue=manual(
        f"""Writes all matching records, oldest first, up to the newest one when the export began. Without --file they go to standard
output.

With --file, a broken connection is continued. The records are in FILE.part until the file is complete. After a kill, the same command
with --resume goes on behind the last whole record, and the file then has the bytes of an unbroken export. For that, CSV and --fields
need the field seq.

{QUERY_HELP}

{KEY_HELP}""",
        "decklog export 'since:7d' --file week.ndjson",
        "decklog export 'since:7d' --file week.ndjson --resume",
        "decklog export outcome:denied -o csv --fields seq,occurred_at,action,actor.id > denied.csv",
        exits=EXITS,
    ),
)


@app.default
async def export(
    *query: Words,
    connection: Asking | None = None,
    file: Annotated[Path | None, Parameter(name=("--file", "-f"))] = None,
    resume: Flag = False,
    force: Flag = False,
    output: Annotated[Literal["ndjson", "json", "csv"], Parameter(name=("--output", "-o"))] = "ndjson",
    fields: Annotated[str | None, Parameter(completer=column_names)] = None,
    bom: Flag = False,
    log: LogName = "events",
) -> int:
    """Export all matching records, oldest first.

    Args:
        query: Query in the query language.
        connection: Address and credential.
        file: File that is written, in place of standard output.
        resume: Continue FILE.part where it broke off.
        force: Replace a file or a part.
        output: Format.
        fields: Paths of the fields that are exported, separated by commas.
        bom: Begin CSV with a byte order mark, by which some spreadsheets recognise UTF-8.
        log: Log that is exported.
    """
    if file is None and (resume or force):
        raise DecklogError(Code.MISCONFIGURED, "--resume and --force are about a file: give --file, too.")
    asking = connection or Asking()
    async with asking.client() as client:
        wanted = Wanted(client.url, query_of(query), log, output, fields, bom)
        if file is None or asking.explain:
            return await _to_pipe(client, wanted)
        return await _to_file(client, wanted, file, resume=resume, force=force)


async def _to_pipe(client: Client, wanted: Wanted) -> int:
    given = asked(wanted.query, wanted.log, format=wanted.format, fields=wanted.fields, bom="true" if wanted.bom else None)
    written = False
    async with client.export(given) as pieces:
        async for piece in pieces:
            sys.stdout.buffer.write(piece)
            written = True
    sys.stdout.buffer.flush()
    return FOUND if written else NOTHING


async def _to_file(client: Client, wanted: Wanted, file: Path, *, resume: bool, force: bool) -> int:
    progress = Progress(sys.stderr, live=sys.stderr.isatty())
    try:
        records = await ExportFile(file, wanted, progress).run(client, resume=resume, force=force)
    except asyncio.CancelledError:
        progress.say("Interrupted. The same command with --resume continues here.")
        raise
    finally:
        progress.clear()
    sys.stderr.write(f"{records:,} records in {file}.\n")
    return FOUND if records else NOTHING
