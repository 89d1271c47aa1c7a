"""`decklog dev`: the whole of Decklog in one process, over a PostgreSQL of its own in one folder.

The same provisioning, the same API and the same worker as in production, with the real, least roles; only search and
queues are left out, which is what Decklog does wherever they are not configured. The archive is a folder beside the database.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from decklog.api.app import create_app
from decklog.api.server import serve
from decklog.assembly import backends, control_plane, maintenance
from decklog.assembly.api import open_api
from decklog.assembly.worker import run_worker
from decklog.files.keys import KeyFile, held
from decklog.settings import Api, Archive, Database, Identity, Settings, Tenants, tracing
from decklog.upkeep import INTERVAL, Upkeep

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


@contextmanager
def _folder(folder: Path, *, fresh: bool) -> Iterator[None]:
    """The folder, made or emptied, and this process's alone until the block ends. Raises `misconfigured`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(folder / "lock", f"Another decklog dev uses {folder}. Stop it, or give another --data-dir."):
        if fresh:
            for entry in folder.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != "lock":
                    entry.unlink()
        yield


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
        archive=Archive(folder=str(options.data_dir.absolute() / "archive") if backends.can_archive() else ""),
        identity=Identity(fingerprint_key=own["fingerprint_key"]),
        tenants=Tenants(owner="decklog"),
        log_format="text",
    )


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
        stack.enter_context(_folder(data, fresh=options.fresh))
        if options.ready_file is not None:
            options.ready_file.unlink(missing_ok=True)
        own = _load_secrets(data / "secrets.json")
        address = await stack.enter_async_context(maintenance.embedded_database(data / "postgres", password=own["admin"]))
        settings = _settings(options, address, own)
        await maintenance.migrate(settings, with_roles=True, post=True)
        vault = KeyFile(data / "dev.json")
        provisioner = await stack.enter_async_context(control_plane.open_provisioner(settings))
        manifests = [options.manifests] if options.manifests is not None else []
        upkeep = Upkeep(provisioner, vault, manifests, keeps_all=True, platform_key=True)
        troubles = await upkeep.look()
        traces = await stack.enter_async_context(backends.open_traces(tracing(os.environ), "decklog"))
        opening = open_api(settings, provisioner=provisioner, vault=vault, traces=traces)
        services = await stack.enter_async_context(opening)
        worker = asyncio.create_task(run_worker(settings, stop, traces=traces), name="worker")
        keeping = asyncio.create_task(upkeep.keep(stop, INTERVAL, pause=INTERVAL), name="upkeep")
        server = await stack.enter_async_context(serve(create_app(services, settings, traces), options.host, options.port))
        url = f"http://{options.host}:{server.port}"
        vault.set_url(url)
        _greet(url, data, upkeep.names, vault, troubles)
        if options.ready_file is not None:
            options.ready_file.write_text(url + "\n")
        ending = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({ending, worker, keeping, server.finished}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.wait({worker, keeping}, timeout=10)
        ending.cancel()
        failed = [task for task in done if task is not ending]
        if failed:
            failed[0].result()
        _say("Stopping.")
    return 0


def _greet(url: str, data: Path, names: list[str], vault: KeyFile, troubles: Mapping[str, str]) -> None:
    _say(f"\nDecklog is ready at {url}   (API document: {url}/schema)")
    _say(f"Keys of the platform and of {len(names)} tenants: {data / 'dev.json'}")
    for name, trouble in troubles.items():
        _say(f"Not ready: {name}: {trouble}")
    for name in names[:1]:
        if key := vault.keys_of(name).get("writer"):
            body = msgspec.json.encode({"action": "document.create", "actor": {"id": "alice"}}).decode()
            _say(f"\nSend a record as {name}:\n")
            _say(f"curl -s {url}/api/v1/logs -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'\n")
    _say("Ctrl-C stops it; the data stays.")
