"""The address and the credential of a client. A credential is shown nowhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

from decklog_client.errors import ConfigurationError

URL, KEY, KEY_FILE, SPOOL = "DECKLOG_URL", "DECKLOG_KEY", "DECKLOG_KEY_FILE", "DECKLOG_SPOOL"
_KEY = re.compile(r"[!-~]{1,16384}")


class Credential:
    """An API key or a JWT, given as text or as a file that is read for each request, so that it may be rotated."""

    def __init__(self, key: str | None, file: Path | None) -> None:
        if (key is None) == (file is None):
            raise ConfigurationError("Give either a key or the file of a key.")
        self._key, self._file = key, file
        if key is not None:
            _checked(key, "The key")

    def __call__(self) -> str:
        """Return the key. Raises ConfigurationError."""
        if self._file is None:
            return self._key or ""
        try:
            return _checked(self._file.read_text(encoding="ascii").strip(), f"The content of {self._file}")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"The key cannot be read from {self._file}: {type(error).__name__}.") from None

    def __repr__(self) -> str:
        return "Credential(hidden)" if self._file is None else f"Credential(file={str(self._file)!r})"


def _checked(key: str, what: str) -> str:
    if not _KEY.fullmatch(key):
        raise ConfigurationError(f"{what} must be one word of ASCII characters.")
    return key


def address(url: str) -> str:
    """Return the address of the API without a trailing slash. Raises ConfigurationError."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError("The URL must have the form https://decklog.example.com.")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("The URL must not contain credentials. Pass the key separately.")
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def required(environment: Mapping[str, str], name: str) -> str:
    """Return a variable. Raises ConfigurationError where it is missing or empty."""
    value = environment.get(name, "")
    if not value:
        raise ConfigurationError(f"The environment variable {name} is missing.")
    return value


class Place(TypedDict):
    """Where a server is, and the credential for it, as the environment names them."""

    url: str
    key: str | None
    key_file: str | None


def of_environment(environment: Mapping[str, str]) -> Place:
    """Return what DECKLOG_URL, and DECKLOG_KEY or else DECKLOG_KEY_FILE say. Raises ConfigurationError."""
    url, key = required(environment, URL), environment.get(KEY) or None
    if key is None and not environment.get(KEY_FILE):
        raise ConfigurationError(f"The environment variables {KEY} and {KEY_FILE} are missing; one of them is needed.")
    return {"url": url, "key": key, "key_file": environment.get(KEY_FILE) if key is None else None}
