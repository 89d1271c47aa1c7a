"""The verbs of the command line that talk to a running Decklog over its API."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec
import stamina

from decklog.client import doctor
from decklog.client.checkpoint import Checkpoints, default_folder
from decklog.client.client import Client
from decklog.client.importing import MAPPINGS, Importer, Report
from decklog.client.progress import Progress
from decklog.domain.errors import Code, DecklogError

_KEY_HELP = """The key is read from --key-file, from the variable DECKLOG_KEY, from the file that DECKLOG_KEY_FILE names, or
from --key; other users of the machine can see what stands on a command line, so prefer the first three."""


def add_parsers(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's verbs; each sets `run`, a coroutine function of the parsed arguments that returns the exit code."""
    parser = verbs.add_parser(
        "import",
        help="bring audit events of other systems into a log",
        description="""Map CloudTrail events (Records arrays or one event a line) or Kubernetes audit events (EventLists or
        one event a line), plain or gzip, to records, and append them. What is not an event is refused by file and line,
        and the rest goes on. Events keep their ids, so importing again stores nothing twice while the server remembers
        them; an interrupted import, started again, goes on where it stopped.""",
        epilog=_KEY_HELP + " Exits with 0, 1 (something was refused) or 2 (it could not be done).",
    )
    parser.add_argument("kind", choices=sorted(MAPPINGS), help="what wrote the files")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add_connection(parser)
    parser.add_argument("--state", type=Path, metavar="DIR", help="where to remember how far an import has come (XDG state home)")
    parser.add_argument("--restart", action="store_true", help="send every event, whatever an interrupted import has done")
    parser.add_argument("--json", action="store_true", help="write the summary as JSON")
    parser.set_defaults(run=run_import)
    examining = verbs.add_parser(
        "doctor",
        help="check a running installation end to end, and say what is wrong",
        description="""Ask a running installation whether its backends answer, then write a probe record in the tenant of the
        key, and see that it is streamed, read, found, indexed, and that reading it is recorded. Use a tenant made for
        this: its probes stay in its log. Nothing else is changed.""",
        epilog=_KEY_HELP + " Exits with 0 (all is well), 1 (something is wrong) or 2 (it could not begin).",
    )
    add_connection(examining)
    examining.add_argument("--ready", action="store_true", help="ask for the backends alone, as a probe of health; needs no key")
    examining.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="that each check may take (%(default)s)"
    )
    examining.add_argument("--json", action="store_true", help="write the findings as JSON")
    examining.set_defaults(run=run_doctor)


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the API is and who asks; `connect` reads them."""
    parser.add_argument("--url", help="where the API is, as in https://decklog.example.com (DECKLOG_URL)")
    parser.add_argument("--key", help="API key or JWT (DECKLOG_KEY)")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="file with the key (DECKLOG_KEY_FILE)")


def _key(arguments: argparse.Namespace) -> str:
    file = arguments.key_file
    if arguments.key is None and file is None:
        if found := os.environ.get("DECKLOG_KEY"):
            return found
        named = os.environ.get("DECKLOG_KEY_FILE")
        file = Path(named) if named else None
    if arguments.key is not None and file is not None:
        raise DecklogError(Code.MISCONFIGURED, "Give either --key or --key-file, not both.")
    if file is not None:
        try:
            return str(file.read_text(encoding="utf-8").strip())
        except (OSError, ValueError):
            raise DecklogError(Code.MISCONFIGURED, f"The key cannot be read from {file}.") from None
    if arguments.key is None:
        raise DecklogError(Code.MISCONFIGURED, "There is no key: give --key-file FILE, or set DECKLOG_KEY.")
    return str(arguments.key)


def connect(arguments: argparse.Namespace) -> Client:
    """A client as the options and the environment say. Raises `misconfigured`."""
    return Client(_url(arguments), _key(arguments))


def _url(arguments: argparse.Namespace) -> str:
    url = arguments.url or os.environ.get("DECKLOG_URL")
    if not url:
        raise DecklogError(Code.MISCONFIGURED, "There is no address: give --url URL, or set DECKLOG_URL.")
    return str(url)


async def run_import(arguments: argparse.Namespace) -> int:
    """`decklog import`. Raises DecklogError where it cannot begin."""
    stamina.instrumentation.set_on_retry_hooks([])  # the progress says why it waits, in words for people
    progress = Progress(sys.stderr, live=sys.stderr.isatty())
    checkpoints = Checkpoints(arguments.state or default_folder(os.environ))
    async with connect(arguments) as client:
        importer = Importer(client, arguments.kind, progress, checkpoints)
        try:
            report = await importer.run(arguments.files, restart=arguments.restart)
        except asyncio.CancelledError:
            progress.say("Interrupted. The same command goes on where this stopped.")
            raise
    sys.stdout.write((msgspec.json.encode(report).decode() if arguments.json else summary(report)) + "\n")
    if report.stopped:
        return 2
    return 1 if report.refused else 0


async def run_doctor(arguments: argparse.Namespace) -> int:
    """`decklog doctor`. Raises `misconfigured` where it cannot begin."""
    if not arguments.timeout > 0:
        raise DecklogError(Code.MISCONFIGURED, "--timeout must be more than 0 seconds.")
    if arguments.ready:
        report = await doctor.examine_backends(_url(arguments), timeout=arguments.timeout)
    else:
        async with connect(arguments) as client:
            report = await doctor.examine(client, timeout=arguments.timeout)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n" if arguments.json else doctor.told(report))
    return 0 if report.healthy else 1


def summary(report: Report) -> str:
    """A report for people."""
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
        lines.append(f"Stopped early: {report.stopped} The same command goes on from there.")
    return "\n".join(lines)
