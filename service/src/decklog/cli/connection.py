"""The options that name a running Decklog and the credential for it, shared by the verbs that call the API."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from decklog.cli.options import Flag
from decklog.client.client import Client
from decklog.client.contexts import Context, Contexts, default_file
from decklog.client.explaining import Explaining
from decklog.domain.errors import Code, DecklogError

KEY_HELP = """The key is read from --key-file, from the variable DECKLOG_KEY, from the file that DECKLOG_KEY_FILE names, or from --key.
Without an address and a key, the current context of decklog login is used, or the one of --context.
Other users of the machine can see the words of a command line, so prefer the others to --key."""


def context_names(_: Any = None) -> Iterable[str]:
    """Return the names of all contexts, for completion."""
    return sorted(Contexts(default_file(os.environ)).all())


ContextName = Annotated[str | None, Parameter(completer=context_names)]


@Parameter(name="*")
@dataclass(frozen=True)
class Connection:
    """Address and credential, as options, as variables of the environment, or by a context."""

    url: str | None = None
    """Address of the API, as in https://decklog.example.com (DECKLOG_URL)."""
    key: str | None = None
    """API key or JWT (DECKLOG_KEY)."""
    key_file: Path | None = None
    """File that holds the key (DECKLOG_KEY_FILE)."""
    context: ContextName = None
    """Context of decklog login, in place of the current one (DECKLOG_CONTEXT)."""

    def client(self, key_file: Path | None = None) -> Client:
        """Return a client that is not connected yet, with the key of this file where one is named. Raises `misconfigured`."""
        return Client(self.address(), self.credential() if key_file is None else read_key(key_file))

    def address(self) -> str:
        """Return the address of the API. Raises `misconfigured` where none is given."""
        if url := self._own_address():
            return url
        if found := self._chosen():
            return found[1].url
        raise DecklogError(
            Code.MISCONFIGURED, "No address is given: use --url URL, set DECKLOG_URL, or make a context with decklog login."
        )

    def credential(self) -> str:
        """Return the credential. Raises `misconfigured` where none is given."""
        if (own := self._own_key()) is not None:
            return own
        found = self._chosen()
        if found is None or self._own_address():
            raise DecklogError(Code.MISCONFIGURED, _no_key(None if found is None else found[0]))
        context = found[1]
        if context.key_file is not None:
            return read_key(Path(context.key_file))
        if context.key is None:
            raise DecklogError(Code.MISCONFIGURED, f"The context {found[0]!r} has no key. Run decklog login again.")
        return context.key

    def _chosen(self) -> tuple[str, Context] | None:
        """Return the name and the content of the context that is used where address or key is not given."""
        contexts = Contexts(default_file(os.environ))
        name = self.context or os.environ.get("DECKLOG_CONTEXT") or contexts.current
        return None if name is None else (name, contexts.get(name))

    def _own_address(self) -> str | None:
        """Return the address that is not that of a context. A context that is named precedes the variables."""
        if self.context is not None and self.url is not None:
            raise DecklogError(Code.MISCONFIGURED, "Give either --context or --url, not both: a context has an address.")
        return self.url or (None if self.context is not None else os.environ.get("DECKLOG_URL"))

    def _own_key(self) -> str | None:
        """Return the key that is not that of a context."""
        if self.key is not None and self.key_file is not None:
            raise DecklogError(Code.MISCONFIGURED, "Give either --key or --key-file, not both.")
        if self.key is not None:
            return self.key
        if self.key_file is not None:
            return read_key(self.key_file)
        if self.context is not None:
            return None
        if found := os.environ.get("DECKLOG_KEY"):
            return found
        named = os.environ.get("DECKLOG_KEY_FILE")
        return read_key(Path(named)) if named else None


@Parameter(name="*")
@dataclass(frozen=True)
class Asking(Connection):
    """Address and credential of a verb that can show its request instead of sending it."""

    explain: Flag = False
    """Print the request as a command line of curl, and send nothing. The key is $DECKLOG_KEY there."""

    def client(self, key_file: Path | None = None) -> Client:
        """Return a client that is not connected yet; with --explain, one that sends nothing. Raises `misconfigured`."""
        if self.explain:
            return Client(self.address(), None, transport=Explaining())
        return super().client(key_file)


def _no_key(context: str | None) -> str:
    other = "" if context is None else f" The key of the context {context!r} is sent to the address of that context only."
    return f"No key is given: use --key-file FILE, set DECKLOG_KEY, or make a context with decklog login.{other}"


def read_key(file: Path) -> str:
    """Return the key that a file holds. Raises `misconfigured` for a file that cannot be read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        raise DecklogError(Code.MISCONFIGURED, f"The key cannot be read from {file}.") from None
