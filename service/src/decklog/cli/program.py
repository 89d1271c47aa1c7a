"""The `decklog` program: its verbs, and what every verb has in common (errors, exit codes, log lines)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from decklog import __version__, log_lines
from decklog.domain.errors import DecklogError

FAILED = 2
"""Exit code for wrong use, wrong settings, and errors of the operating system. Verbs return 0 or 1 themselves."""
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells count."""

VERBS = (
    ("dev", "decklog.cli.dev:app", "Run everything in one process, with its own PostgreSQL."),
    ("api", "decklog.cli.api:app", "Serve the API."),
    ("worker", "decklog.cli.worker:app", "Follow the logs: index records, create partitions, archive deleted tenants."),
    ("migrate", "decklog.cli.migrate:app", "Bring the database to this version."),
    ("provision", "decklog.cli.provision:app", "Create tenants from files and keep them right, without Kubernetes."),
    ("platform-key", "decklog.cli.platform_key:app", "Create a new platform key, print it once, and revoke the previous one."),
    ("plan", "decklog.cli.plan:app", "Print what provisioning would do for Tenant manifests, without doing it."),
    ("tenants", "decklog.cli.tenants:app", "Print the table of tenants, as kubectl get tenants does."),
    ("archive", "decklog.cli.archive:app", "Examine the archives of deleted tenants."),
    ("recover", "decklog.cli.recover:app", "Declare what was lost in a disaster."),
    ("doctor", "decklog.cli.doctor:app", "Check a running installation end to end."),
    ("import", "decklog.cli.import_events:app", "Import audit events of other systems into a log."),
    ("completion", "decklog.cli.completion:app", "Print the completion script of a shell."),
)
"""Name, place and summary of each verb, in the order of `decklog --help`."""


app = App(
    name="decklog",
    help="A multi-tenant audit log.",
    help_epilogue="decklog VERB --help prints the options of a verb, with examples.",
    help_format="plaintext",
    version=__version__,
    default_parameter=Parameter(negative=()),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    verbose=False,
)
for position, (name, place, summary) in enumerate(VERBS):
    app.command(place, name=name, help=summary, sort_key=position)


def run(words: Sequence[str]) -> int:
    """Run one command line, and return its exit code. An expected error becomes one line on standard error."""
    try:
        code = app(list(words))
    except CycloptsError as error:
        return _failed(str(error))
    except DecklogError as error:
        return _failed(error.detail)
    except OSError as error:
        return _failed(_explained(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _failed(why: str) -> int:
    sys.stderr.write(f"decklog: {why}\n")
    return FAILED


def _explained(error: OSError) -> str:
    """Return the cause in the operating system's words, after the file or address that it is about."""
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{error.strerror or error}."


def main() -> None:
    """Run the command line of this process. Exits with 0, 1 (something was refused), 2 (wrong use or settings) or 130 (Ctrl-C)."""
    log_lines.configure(os.environ.get("DECKLOG_LOG_FORMAT", "text" if sys.stderr.isatty() else "json"))
    sys.exit(run(sys.argv[1:]))
