"""`decklog dev`: the whole of Decklog in one process, over a PostgreSQL of its own in one folder.

The same provisioning, the same API and the same worker as in production, with the real, least roles; only search and
queues are left out, which is what Decklog does wherever they are not configured.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from decklog import factory
from decklog.api.app import create_app
from decklog.api.server import serve
from decklog.domain.access import Role
from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenant import PLATFORM_TENANT, Manifest, State, TenantSpec
from decklog.manifests import read_manifests
from decklog.services.provisioning import Handout, Provisioner
from decklog.settings import Api, Database, Identity, Settings, Tenants
from decklog.workers import runner

_SECRETS = ("admin", "owner", "service", "fingerprint_key")


@dataclass(frozen=True)
class Options:
    """What the command line of `decklog dev` says."""

    host: str
    port: int
    data_dir: Path
    manifests: Path | None
    ready_file: Path | None
    fresh: bool


class DevKeys:
    """A key vault in `dev.json` (mode 0600): where people and scripts find the address and the keys."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: dict[str, Any] = {"url": "", "platform": {}, "tenants": {}}
        with suppress(FileNotFoundError, ValueError):
            self._content |= json.loads(path.read_text())

    async def read(self, manifest: Manifest) -> Handout | None:
        keys = self._content["tenants"].get(manifest.name)
        return None if keys is None else Handout({Role(role): key for role, key in keys.items()})

    async def write(self, manifest: Manifest, handout: Handout) -> None:
        self._content["tenants"][manifest.name] = {role.value: key for role, key in handout.keys.items()}
        self._save()

    @property
    def platform(self) -> str | None:
        key: str | None = self._content["platform"].get("key")
        return key

    def set_platform(self, key: str) -> None:
        self._content["platform"] = {"key": key}
        self._save()

    def set_url(self, url: str) -> None:
        self._content["url"] = url
        self._save()

    def keys_of(self, name: str) -> dict[str, str]:
        keys: dict[str, str] = self._content["tenants"].get(name, {})
        return keys

    def _save(self) -> None:
        """Whole or not at all: a reader never sees half a file."""
        partial = self._path.with_suffix(".partial")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self._content, file, indent=2)
            file.write("\n")
        partial.replace(self._path)


def _take_folder(folder: Path, *, fresh: bool) -> int:
    """Make the folder, or empty it, and lock it for this process; gives the lock. Raises `misconfigured`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DecklogError(
            Code.MISCONFIGURED, f"Another decklog dev uses {folder}. Stop it, or give another --data-dir."
        ) from None
    if fresh:
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
    return lock


def _load_secrets(path: Path) -> dict[str, str]:
    """Passwords and keys of this folder, made once."""
    if path.exists():
        found: dict[str, str] = json.loads(path.read_text())
        return found
    made = {name: secrets.token_urlsafe(32) for name in _SECRETS}
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(made, file)
    return made


def _settings(options: Options, address: str, own: dict[str, str]) -> Settings:
    def dsn(user: str, secret: str) -> str:
        return f"postgresql://{user}:{quote(own[secret], safe='')}@{address}/decklog"

    return Settings(
        database=Database(
            dsn=dsn("decklog_service", "service"),
            owner_dsn=dsn("decklog_owner", "owner"),
            admin_dsn=dsn("postgres", "admin"),
            service_password=own["service"],
            owner_password=own["owner"],
        ),
        api=Api(host=options.host, port=options.port),
        identity=Identity(fingerprint_key=own["fingerprint_key"]),
        tenants=Tenants(owner="decklog"),
        log_format="text",
    )


async def _provision(provisioner: Provisioner, specs: dict[str, TenantSpec], vault: DevKeys) -> list[str]:
    """Bring the platform and the tenants about; gives the names of those that are not ready, with the reason.

    What was made over the API is looked after as what stands in files, which has the last word where both name a tenant.
    """
    await provisioner.ensure_platform_tenant()
    vault.set_platform(await provisioner.ensure_platform_key(vault.platform))
    for listing in await provisioner.tenants():
        if listing.spec is not None and listing.state is not State.DELETED and listing.name != PLATFORM_TENANT:
            specs.setdefault(listing.name, listing.spec)
    troubles: list[str] = []
    for name, spec in specs.items():
        status = await provisioner.reconcile(await provisioner.manifest(name, spec), vault)
        if not status.ready:
            troubles.append(f"{name}: {status.condition('Ready').message}")
    return troubles


@asynccontextmanager
async def _signals(stop: asyncio.Event) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    yield
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def run(options: Options) -> int:
    """Serve until a signal comes. Gives the exit code; raises `misconfigured` and `invalid-tenant`."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_signals(stop))
        data = options.data_dir.absolute()
        lock = _take_folder(data, fresh=options.fresh)
        stack.callback(os.close, lock)
        if options.ready_file is not None:
            options.ready_file.unlink(missing_ok=True)
        own = _load_secrets(data / "secrets.json")
        address = await stack.enter_async_context(factory.embedded_database(data / "postgres", password=own["admin"]))
        settings = _settings(options, address, own)
        await factory.migrate(settings, with_roles=True)
        vault = DevKeys(data / "dev.json")
        specs = read_manifests([options.manifests]) if options.manifests is not None else {}
        provisioner = await stack.enter_async_context(factory.open_provisioner(settings))
        troubles = await _provision(provisioner, specs, vault)
        service = await stack.enter_async_context(factory.open_service(settings, provisioner=provisioner, vault=vault))
        worker = asyncio.create_task(runner.run(service, settings, stop), name="worker")
        server = await stack.enter_async_context(serve(create_app(service, settings), options.host, options.port))
        url = f"http://{options.host}:{server.port}"
        vault.set_url(url)
        _greet(url, data, list(specs), vault, troubles)
        if options.ready_file is not None:
            options.ready_file.write_text(url + "\n")
        ending = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({ending, worker, server.finished}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.wait({worker}, timeout=10)
        ending.cancel()
        failed = [task for task in done if task is not ending]
        if failed:
            failed[0].result()
        _say("Stopping.")
    return 0


def _greet(url: str, data: Path, names: list[str], vault: DevKeys, troubles: list[str]) -> None:
    _say(f"\nDecklog is ready at {url}   (API document: {url}/schema)")
    _say(f"Keys of the platform and of {len(names)} tenants: {data / 'dev.json'}")
    for trouble in troubles:
        _say(f"Not ready: {trouble}")
    for name in names[:1]:
        if key := vault.keys_of(name).get("writer"):
            body = msgspec.json.encode({"action": "document.create", "actor": {"id": "alice"}}).decode()
            _say(f"\nSend a record as {name}:\n")
            _say(f"curl -s {url}/api/v1/logs -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'\n")
    _say("Ctrl-C stops it; the data stays.")
