"""The `decklog-operator` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from decklog import command_line
from decklog.domain.errors import Code, DecklogError

app = command_line.program(
    "decklog-operator",
    "Gives Tenants their database, index, queue and keys.",
    epilogue="Exit codes: 0 (stopped by a signal), 1 (an error), 2 (wrong use or settings).",
    version=lambda: version("decklog-operator"),
)
# By name, so that printing definitions loads neither Kopf nor a backend.
app.command(
    "decklog_operator.cli.run:run",
    name="run",
    help="Serve the Tenants of the cluster that KUBECONFIG or the pod's service account names.",
)
app.command("decklog_operator.cli.definitions:crd", name="crd", help="Print the custom resource definition of Tenant.")
app.command(
    "decklog_operator.cli.definitions:manifests",
    name="manifests",
    help="Print everything that the operator needs in a cluster.",
)


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's, and return its exit code."""
    return command_line.run(app, sys.argv[1:] if words is None else words, code_of=_code)


def _code(error: DecklogError) -> int:
    return command_line.FAILED if error.code is Code.MISCONFIGURED else 1


if __name__ == "__main__":
    sys.exit(main())
