"""The options that name a running Decklog and the credential for it, shared by the verbs that call the API."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from decklog.client.client import Client
from decklog.domain.errors import Code, DecklogError

KEY_HELP = """The key is read from --key-file, from the variable DECKLOG_KEY, from the file that DECKLOG_KEY_FILE names, or from --key.
Other users of the machine can see the words of a command line, so prefer the first three."""


@Parameter(name="*")
@dataclass(frozen=True)
class Connection:
    """Address and credential, as options or as variables of the environment."""

    url: str | None = None
    """Address of the API, as in https://decklog.example.com (DECKLOG_URL)."""
    key: str | None = None
    """API key or JWT (DECKLOG_KEY)."""
    key_file: Path | None = None
    """File that holds the key (DECKLOG_KEY_FILE)."""

    def client(self, key_file: Path | None = None) -> Client:
        """Return a client that is not connected yet, with the key of this file where one is named. Raises `misconfigured`."""
        return Client(self.address(), self.credential() if key_file is None else _read(key_file))

    def address(self) -> str:
        """Return the address of the API. Raises `misconfigured` where none is given."""
        url = self.url or os.environ.get("DECKLOG_URL")
        if not url:
            raise DecklogError(Code.MISCONFIGURED, "No address is given: use --url URL, or set DECKLOG_URL.")
        return url

    def credential(self) -> str:
        """Return the credential. Raises `misconfigured` where none is given."""
        if self.key is not None and self.key_file is not None:
            raise DecklogError(Code.MISCONFIGURED, "Give either --key or --key-file, not both.")
        if self.key is not None:
            return self.key
        if self.key_file is not None:
            return _read(self.key_file)
        if found := os.environ.get("DECKLOG_KEY"):
            return found
        if named := os.environ.get("DECKLOG_KEY_FILE"):
            return _read(Path(named))
        raise DecklogError(Code.MISCONFIGURED, "No key is given: use --key-file FILE, or set DECKLOG_KEY.")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        raise DecklogError(Code.MISCONFIGURED, f"The key cannot be read from {file}.") from None
