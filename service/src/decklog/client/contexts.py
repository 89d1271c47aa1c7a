"""Contexts of the command line: an address and a credential under a name, in one file that only its owner can read.

The key of a context is sent to the address of that context and to no other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from decklog.domain.errors import Code, DecklogError

NAME_CHARS_MAX = 100
"""Characters of a context's name."""
_PRIVATE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One context: the address of an API, and a key or the file that holds it."""

    url: str
    key: str | None = None
    key_file: str | None = None

    def __repr__(self) -> str:
        return f"Context({self.url!r})"


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    current: str | None = None
    contexts: dict[str, Context] = {}


def default_file(environment: Mapping[str, str]) -> Path:
    """Return the file of contexts, by the XDG base directory specification."""
    folder = environment.get("XDG_CONFIG_HOME", "")
    return (Path(folder) if folder.startswith("/") else Path.home() / ".config") / "decklog" / "contexts.json"


class Contexts:
    """The contexts of a file, which need not exist yet. Every method raises `misconfigured` for a file that is damaged or not private."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def all(self) -> dict[str, Context]:
        """Return the contexts by name."""
        return self._load().contexts

    @property
    def current(self) -> str | None:
        """The name of the current context."""
        return self._load().current

    def get(self, name: str) -> Context:
        """Return the context of this name. Raises `misconfigured` where there is none."""
        found = self.all()
        if name not in found:
            known = ", ".join(sorted(found)) or "none yet"
            raise DecklogError(Code.MISCONFIGURED, f"There is no context {name!r}. Known: {known}. decklog login makes one.")
        return found[name]

    def put(self, name: str, context: Context) -> None:
        """Store a context and make it the current one."""
        if not name.isprintable() or not 0 < len(name) <= NAME_CHARS_MAX:
            raise DecklogError(Code.MISCONFIGURED, f"The name of a context has 1 to {NAME_CHARS_MAX} printable characters.")
        document = self._load()
        document.contexts[name] = context
        document.current = name
        self._save(document)

    def use(self, name: str) -> None:
        """Make a context the current one. Raises `misconfigured` where there is none of this name."""
        self.get(name)
        document = self._load()
        document.current = name
        self._save(document)

    def forget(self, name: str) -> None:
        """Remove a context with its key. Raises `misconfigured` where there is none of this name."""
        self.get(name)
        document = self._load()
        del document.contexts[name]
        if document.current == name:
            document.current = None
        self._save(document)

    def _load(self) -> _Document:
        try:
            with self.file.open("rb") as opened:
                if os.fstat(opened.fileno()).st_mode & _OTHERS:
                    raise DecklogError(
                        Code.MISCONFIGURED, f"Other users can read the keys in {self.file}. Run: chmod 600 {self.file}"
                    )
                return msgspec.json.decode(opened.read(), type=_Document)
        except FileNotFoundError:
            return _Document()
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise DecklogError(
                Code.MISCONFIGURED, f"{self.file} is not a file of contexts. Remove it, and run decklog login."
            ) from None

    def _save(self, document: _Document) -> None:
        """Replace the file as one step."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self.file.with_suffix(f".{os.getpid()}")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE), "wb") as making:
            making.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
        beside.replace(self.file)
