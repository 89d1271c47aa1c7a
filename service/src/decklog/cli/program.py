"""The `decklog` program and its verbs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from decklog import __version__, command_line, log_lines
from decklog.cli import exits
from decklog.client.curl import Explained

VERBS = (
    ("login", "decklog.cli.login:app", "Store an address and a key as the current context."),
    ("use", "decklog.cli.use:app", "Choose the current context, or list all contexts."),
    ("whoami", "decklog.cli.whoami:app", "Print the identity and the permissions of the key."),
    ("send", "decklog.cli.send:app", "Store records."),
    ("tail", "decklog.cli.tail:app", "Print records as they are stored."),
    ("search", "decklog.cli.search:app", "Search records, newest first."),
    ("show", "decklog.cli.show:app", "Show one record."),
    ("top", "decklog.cli.top:app", "Count records by the values of a field, or by time."),
    ("story", "decklog.cli.story:app", "Tell everything of one request, session, actor or resource, in order."),
    ("export", "decklog.cli.export:app", "Export all matching records, oldest first."),
    ("ask", "decklog.cli.ask:app", "Answer a question in plain words."),
    ("keys", "decklog.cli.keys:app", "List, create and revoke API keys."),
    ("retention", "decklog.cli.retention:app", "Print until when the records of a log can be read."),
    ("dev", "decklog.cli.dev:app", "Run everything in one process, with its own PostgreSQL."),
    ("api", "decklog.cli.api:app", "Serve the API."),
    ("worker", "decklog.cli.worker:app", "Follow the logs: index records, create partitions, archive deleted tenants."),
    ("migrate", "decklog.cli.migrate:app", "Bring the database to this version."),
    ("provision", "decklog.cli.provision:app", "Create tenants from files and keep them right, without Kubernetes."),
    ("platform-key", "decklog.cli.platform_key:app", "Create a new platform key, print it once, and revoke the previous one."),
    ("board", "decklog.cli.board:app", "Print a one-time link that signs in to the board."),
    ("plan", "decklog.cli.plan:app", "Print what provisioning would do for Tenant manifests, without doing it."),
    ("tenants", "decklog.cli.tenants:app", "Print the table of tenants, as kubectl get tenants does."),
    ("archive", "decklog.cli.archive:app", "Examine the archives of deleted tenants."),
    ("reindex", "decklog.cli.reindex:app", "Rebuild search indices beside live traffic."),
    ("recover", "decklog.cli.recover:app", "Declare what was lost in a disaster."),
    ("doctor", "decklog.cli.doctor:app", "Check a running installation end to end."),
    ("import", "decklog.cli.import_events:app", "Import audit events of other systems into a log."),
    ("rejected", "decklog.cli.rejected:app", "List, read, replay and delete rejected records."),
    ("completion", "decklog.cli.completion:app", "Print the completion script of a shell."),
)
"""Name, place and summary of each verb, in the order of `decklog --help`."""

app = command_line.program(
    "decklog",
    "A multi-tenant audit log.",
    epilogue="decklog VERB --help prints the options of a verb, with examples.",
    version=__version__,
)
for position, (name, place, summary) in enumerate(VERBS):
    app.command(place, name=name, help=summary, sort_key=position)


def run(words: Sequence[str]) -> int:
    """Run one command line, and return its exit code: see `exits` for the verbs that ask a server."""
    asks = bool(words) and words[0] in exits.ASKING
    try:
        return command_line.run(app, words, code_of=exits.code_of if asks else lambda _: command_line.FAILED)
    except Explained as found:
        sys.stdout.write(found.command + "\n")
        return exits.FOUND


def main() -> None:
    """Run the command line of this process.

    Exits with 0, 1 (something was refused), 2 (wrong use or settings), 3 (no answer), 130 (Ctrl-C) or 141 (nobody reads the pipe).
    """
    log_lines.configure(os.environ.get("DECKLOG_LOG_FORMAT", "text" if sys.stderr.isatty() else "json"))
    sys.exit(run(sys.argv[1:]))
