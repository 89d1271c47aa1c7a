"""A request as a command line of curl, which a person can read, change and run.

The credential is never in it: the shell puts in the variable DECKLOG_KEY.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_OWN = frozenset({"host", "user-agent", "accept-encoding", "connection", "content-length", "transfer-encoding", "authorization"})
"""Headers that curl sets itself, and the one that holds the credential."""


class Explained(BaseException):
    """A request that was to be shown instead of sent, which is no error. `command` is the command line."""

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self.command = command


def curl(method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> str:
    """Return the command line of a request, one option a line."""
    words = ["curl --silent --show-error --no-buffer" if ("accept", "text/event-stream") in headers else "curl -sS"]
    if method not in ("GET", "POST") or (method == "POST" and not body):
        words[0] += f" -X {method}"
    words[0] += f" {shlex.quote(url)}"
    words.append('-H "Authorization: Bearer $DECKLOG_KEY"')
    words += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers if name not in _OWN]
    if body:
        words.append(f"--data-binary {shlex.quote(body.decode('utf-8', 'replace'))}")
    return " \\\n  ".join(words)
