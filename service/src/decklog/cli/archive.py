"""`decklog archive verify`."""

from __future__ import annotations

import os
import sys

import msgspec
from cyclopts import App

from decklog import settings
from decklog.assembly.backends import open_archive
from decklog.cli.manual import manual
from decklog.cli.options import Json
from decklog.client.progress import Progress
from decklog.services.archive.verify import check_archive

app = App(name="archive")
app.command(
    verify_app := App(
        name="verify",
        help="Check an archive from its manifest alone.",
        help_epilogue=manual(
            """Reads a manifest and every file that it names: the SHA-256 of each file, the counts, the sequence numbers without a gap, and the
digest of each record against its content. Needs no database and no running Decklog. The names in a manifest begin two folders
above it, so keep the folders when you copy an archive.

A bucket is read with DECKLOG_ARCHIVE_ENDPOINT_URL, _REGION, _ACCESS_KEY_ID and _SECRET_ACCESS_KEY, or with the SDK's own
credentials; the right s3:GetObject is enough.""",
            "decklog archive verify s3://bucket/audit/acme/0f3c2d5e/manifest-1204-17.json",
            "decklog archive verify copy/acme/0f3c2d5e/manifest-1204-17.json --json",
            exits="0, 1 (something is wrong), 2 (the archive could not be checked)",
        ),
    )
)


@verify_app.default
async def verify(manifest: str, /, *, as_json: Json = False) -> int:
    """Check an archive from its manifest alone.

    Args:
        manifest: s3://bucket/…/<tenant>/<uid>/manifest-….json, or a path.
        as_json: Write the findings as JSON.
    """
    progress = Progress(sys.stderr, live=sys.stderr.isatty())
    async with open_archive(settings.load(os.environ), manifest) as (objects, name, decode):
        report = await check_archive(objects, name, decode, progress=progress.show)
    progress.clear()
    if as_json:
        sys.stdout.write(msgspec.json.encode({"sound": report.sound, **msgspec.to_builtins(report)}).decode() + "\n")
        return 0 if report.sound else 1
    for problem in report.problems:
        sys.stdout.write(f"wrong: {problem}\n")
    logs = ", ".join(f"{count} in {log}" for log, count in report.logs.items())
    sys.stdout.write(f"{report.tenant} ({report.uid}): {report.records} records in {report.parts} files; the logs had {logs}.\n")
    if report.keep_until:
        sys.stdout.write(f"To be kept until {report.keep_until}.\n")
    sys.stdout.write("The archive is as it was written.\n" if report.sound else f"{report.problem_count} problems were found.\n")
    return 0 if report.sound else 1
