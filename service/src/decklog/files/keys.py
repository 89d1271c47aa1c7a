"""API keys of tenants in one JSON file of mode 0600: the key vault of installations without Kubernetes."""

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
from decklog.domain.identity.session import IDENTITIES_MAX
from decklog.domain.tenancy.manifest import Manifest
from decklog.services.tenancy.vaults import Handout


@contextmanager
def held(path: Path, complaint: str) -> Iterator[None]:
    """Lock this file until the block, or the process, ends. Raises `misconfigured` with the complaint where it is locked."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DecklogError(Code.MISCONFIGURED, complaint) from None
        yield


class KeyFile:
    """A key vault in a file, with the address of the API and the keys for users and scripts."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises `misconfigured` where it exists and cannot be read, because all keys would be replaced."""
        self._path = path
        self._content: dict[str, Any] = {"url": "", "platform": {}, "tenants": {}}
        if path.exists():
            try:
                self._content |= json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, TypeError):
                raise DecklogError(
                    Code.MISCONFIGURED,
                    f"{path} is not a readable file of keys. Move it away, and all keys are made anew.",
                ) from None

    async def read(self, manifest: Manifest) -> Handout | None:
        """Return the tenant's keys; None where the file has none."""
        keys = self.keys_of(manifest.name)
        return Handout({Role(role): key for role, key in keys.items()}) if keys else None

    async def write(self, manifest: Manifest, handout: Handout) -> None:
        """Store exactly these keys of the tenant. The notes beside them are not stored."""
        self._content["tenants"][manifest.name] = {role.value: key for role, key in handout.keys.items()}
        self._save()

    @property
    def platform(self) -> str | None:
        """The platform's key; None where the file has none."""
        key: str | None = self._content["platform"].get("key")
        return key

    @property
    def url(self) -> str:
        """The address of the API; empty where the file has none."""
        address: str = self._content["url"]
        return address

    def board_keys(self, *, first: str | None = None) -> list[str]:
        """Return the keys for a sign-in to the board: those of the tenants' admins, then the platform's; as many as a session holds.

        The tenant `first` comes before the others.
        """
        tenants: dict[str, dict[str, str]] = self._content["tenants"]
        names = sorted(tenants, key=lambda name: name != first)
        admins = [tenants[name][Role.ADMIN] for name in names if Role.ADMIN in tenants[name]]
        if self.platform is None:
            return admins[:IDENTITIES_MAX]
        return [*admins[: IDENTITIES_MAX - 1], self.platform]

    def set_platform(self, key: str) -> None:
        """Store the platform's key."""
        if key != self.platform:
            self._content["platform"] = {"key": key}
            self._save()

    def set_url(self, url: str) -> None:
        """Store the address of the API."""
        if url != self._content["url"]:
            self._content["url"] = url
            self._save()

    def keys_of(self, name: str) -> dict[str, str]:
        """Return the keys of a tenant by role; empty where the file has none."""
        keys: dict[str, str] = self._content["tenants"].get(name, {})
        return keys

    def _save(self) -> None:
        """Replace the file atomically, and sync it: a reader never sees half a file, and keys survive a crash."""
        partial = self._path.with_suffix(".partial")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(self._content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
