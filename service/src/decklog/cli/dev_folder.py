"""The data folder of `decklog dev`: its lock, its secrets, and the settings of the installation in it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec

from decklog.assembly.backends import can_archive
from decklog.demo import telling
from decklog.domain.errors import Code, DecklogError
from decklog.files.keys import KeyFile, held
from decklog.settings import Api, Archive, Board, Database, Identity, Settings, Tenants

_SECRETS = ("admin", "owner", "service", "worker", "fingerprint_key")


class DevFolder:
    """The folder at `path`, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self._given = path
        self.path = path.absolute()
        self.database = self.path / "postgres"
        self.keys = self.path / "dev.json"
        self.demo = self.path / "demo.json"
        self._secrets = self.path / "secrets.json"
        self._address = self.path / "postgres.address"

    @contextmanager
    def locked(self, *, fresh: bool) -> Iterator[None]:
        """Create the folder, or empty it if `fresh`, and lock it within the block. Raises `misconfigured` and OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with held(self.path / "lock", f"Another decklog dev uses {self.path}. Stop it, or give another --data-dir."):
            if fresh:
                for entry in self.path.iterdir():
                    if entry.is_dir():
                        shutil.rmtree(entry)
                    elif entry.name != "lock":
                        entry.unlink()
            yield

    def admin_password(self) -> str:
        """Return the password of the database's superuser, which is made with the other secrets on first use."""
        return self._own()["admin"]

    @contextmanager
    def published(self, address: str) -> Iterator[None]:
        """Record the database's `host:port` within the block, for `running_settings` in other processes."""
        self._address.write_text(address)
        try:
            yield
        finally:
            self._address.unlink(missing_ok=True)

    def running_settings(self) -> Settings:
        """Return the settings of the `decklog dev` that runs in this folder. Raises `misconfigured` where none does."""
        try:
            return self.settings(self._address.read_text(), Api())
        except FileNotFoundError:
            raise DecklogError(Code.MISCONFIGURED, f"No decklog dev is running in {self._given}.") from None

    def running_keys(self) -> tuple[str, list[str]]:
        """Return the address of the `decklog dev` that runs in this folder, with the keys of all admins and of the platform.

        Raises `misconfigured` where none runs, or where it has no key yet.
        """
        self.running_settings()
        keys = KeyFile(self.keys)
        found = keys.board_keys(first=telling.TENANT if self.demo.exists() else None)
        if not keys.url or not found:
            raise DecklogError(Code.MISCONFIGURED, f"The decklog dev in {self._given} has no keys yet. Wait until it is ready.")
        return keys.url, found

    def settings(self, address: str, api: Api) -> Settings:
        """Return the settings of an installation over the database at `address`, which is `host:port`."""
        own = self._own()
        return Settings(
            database=Database(
                dsn=_dsn("decklog_service", own["service"], address),
                owner_dsn=_dsn("decklog_owner", own["owner"], address),
                admin_dsn=_dsn("postgres", own["admin"], address),
                service_password=own["service"],
                worker_password=own["worker"],
                owner_password=own["owner"],
            ),
            api=api,
            archive=Archive(folder=str(self.path / "archive") if can_archive() else ""),
            identity=Identity(fingerprint_key=own["fingerprint_key"]),
            board=Board(frame_ancestors="http://localhost:*"),  # the page of a product that embeds it, while it is made
            tenants=Tenants(owner="decklog"),
            log_format="text",
        )

    def worker_settings(self, settings: Settings) -> Settings:
        """Return the settings of the worker: those of the installation, with the database's role of workers."""
        address = self._address.read_text()
        dsn = _dsn("decklog_worker", self._own()["worker"], address)
        return msgspec.structs.replace(settings, database=msgspec.structs.replace(settings.database, dsn=dsn))

    def _own(self) -> dict[str, str]:
        """Return the passwords and keys of this folder, which are made once; an older folder gets those that it lacks."""
        found: dict[str, str] = json.loads(self._secrets.read_text()) if self._secrets.exists() else {}
        lacking = {name: secrets.token_urlsafe(32) for name in _SECRETS if name not in found}
        if lacking:
            found |= lacking
            making = self._secrets.with_suffix(".making")
            with open(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(found, file)
            making.replace(self._secrets)
        return found


def _dsn(user: str, password: str, address: str) -> str:
    return f"postgresql://{user}:{quote(password, safe='')}@{address}/decklog"
