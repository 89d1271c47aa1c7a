"""The `decklog-operator` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError, Parameter

from decklog.domain.errors import Code, DecklogError

app = App(
    name="decklog-operator",
    help="Gives Tenants their database, index, queue and keys.",
    help_epilogue="Exit codes: 0 (stopped by a signal), 1 (an error), 2 (wrong use or settings).",
    help_format="plaintext",
    version=lambda: version("decklog-operator"),
    default_parameter=Parameter(negative=()),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    verbose=False,
)
# By name, so that printing definitions loads neither Kopf nor a backend.
app.command(
    "decklog_operator.cli.run:run",
    name="run",
    help="Serve the Tenants of the cluster that KUBECONFIG or the pod's service account names.",
)
app.command("decklog_operator.cli.definitions:crd", name="crd", help="Print the custom resource definition of Tenant.")
app.command(
    "decklog_operator.cli.definitions:manifests", name="manifests", help="Print everything that the operator needs in a cluster."
)


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line (by default, this process's) and return its exit code. An expected error is one line on stderr."""
    words = sys.argv[1:] if words is None else words
    try:
        if not words:
            app.help_print([])
            return 2
        app(list(words))
    except CycloptsError as error:
        return _failed(str(error), 2)
    except DecklogError as error:
        return _failed(error.detail, 2 if error.code is Code.MISCONFIGURED else 1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        return _failed(f"{place}{error.strerror or error}.", 2)
    except KeyboardInterrupt:
        pass
    return 0


def _failed(why: str, code: int) -> int:
    sys.stderr.write(f"decklog-operator: {why}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
