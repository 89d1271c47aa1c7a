"""The keys of tenants in one JSON file that its owner alone can read: where they are kept when there is no Kubernetes."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.tenancy.manifest import Manifest
from decklog.services.tenancy.vaults import Handout


@contextmanager
def held(path: Path, complaint: str) -> Iterator[None]:
    """Nobody else holds this file until the block ends, or this process does, however it dies. Raises `misconfigured`."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DecklogError(Code.MISCONFIGURED, complaint) from None
        yield


class KeyFile:
    """A key vault in a file of mode 0600, in which people and scripts find the address of the API and the keys."""

    def __init__(self, path: Path) -> None:
        """Raises `misconfigured` where the file is there and cannot be read: new keys for everybody would be no answer."""
        self._path = path
        self._content: dict[str, Any] = {"url": "", "platform": {}, "tenants": {}}
        if path.exists():
            try:
                self._content |= json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, TypeError):
                raise DecklogError(
                    Code.MISCONFIGURED,
                    f"{path} is not a file of keys that can be read. Move it away, and all keys are made anew.",
                ) from None

    async def read(self, manifest: Manifest) -> Handout | None:
        keys = self.keys_of(manifest.name)
        return Handout({Role(role): key for role, key in keys.items()}) if keys else None

    async def write(self, manifest: Manifest, handout: Handout) -> None:
        self._content["tenants"][manifest.name] = {role.value: key for role, key in handout.keys.items()}
        self._save()

    @property
    def platform(self) -> str | None:
        key: str | None = self._content["platform"].get("key")
        return key

    def set_platform(self, key: str) -> None:
        if key != self.platform:
            self._content["platform"] = {"key": key}
            self._save()

    def set_url(self, url: str) -> None:
        if url != self._content["url"]:
            self._content["url"] = url
            self._save()

    def keys_of(self, name: str) -> dict[str, str]:
        keys: dict[str, str] = self._content["tenants"].get(name, {})
        return keys

    def _save(self) -> None:
        """Whole or not at all: a reader never sees half a file, and what was told is there after a crash."""
        partial = self._path.with_suffix(".partial")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(self._content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
