"""What the programs `decklog` and `decklog-operator` have in common: how they parse, report errors and exit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError, Parameter

from decklog.domain.errors import DecklogError

FAILED = 2
"""Exit code for wrong use, wrong settings, and errors of the operating system. Verbs return 0 or 1 themselves."""
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells count."""
UNREAD = 141
"""Exit code where the reader of a pipe has gone, as in `decklog … | head`: 128 and the number of SIGPIPE."""


def program(name: str, about: str, *, epilogue: str, version: str | Callable[[], str]) -> App:
    """Return a program without verbs. `about` and `epilogue` stand above and below the verbs in `--help`."""
    return App(
        name=name,
        help=about,
        help_epilogue=epilogue,
        help_format="plaintext",
        version=version,
        default_parameter=Parameter(negative=()),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        verbose=False,
    )


def run(app: App, words: Sequence[str], *, code_of: Callable[[DecklogError], int] = lambda _: FAILED) -> int:
    """Run one command line, and return its exit code. An expected error becomes one line on standard error.

    Args:
        app: A `program`.
        words: The command line without the program's name. Without a verb, the help is printed.
        code_of: Returns the exit code for an error that a verb raised.
    """
    try:
        code = app(list(words))
        sys.stdout.flush()
    except CycloptsError as error:
        return _failed(app, str(error), FAILED)
    except DecklogError as error:
        return _failed(app, error.detail, code_of(error))
    except BrokenPipeError:
        return _unread()
    except OSError as error:
        return _failed(app, _explained(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    if not words:
        return FAILED
    return code if isinstance(code, int) else 0


def _failed(app: App, why: str, code: int) -> int:
    """Print one line, or several where the error points into a query; nothing in it is obeyed by a terminal."""
    shown = "".join(each if each.isprintable() or each == "\n" else f"\\x{ord(each):02x}" for each in why)
    sys.stderr.write(f"{app.name[0]}: {shown}\n")
    return code


def _unread() -> int:
    """Leave standard output to nobody, so that the end of the process does not fail on what is still to be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return UNREAD


def _explained(error: OSError) -> str:
    """Return the cause in the operating system's words, after the file or address that it is about."""
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{error.strerror or error}."
