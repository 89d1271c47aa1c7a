"""`decklog dev`: the whole of Decklog in one process, over a PostgreSQL of its own in one folder.

It runs the same provisioning, API and worker as production, with the real, least roles. Search and queues are left out, as in
every installation that does not configure them. The archive is a folder beside the database.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import stamina
import uvloop
from cyclopts import App

from decklog.api.app import create_app
from decklog.api.connections import limits_of, within_files
from decklog.api.routes.session_codes import link_url
from decklog.api.server import listen, serve
from decklog.api.services import ApiServices
from decklog.assembly.api import open_api
from decklog.assembly.backends import open_traces
from decklog.assembly.control_plane import open_provisioner
from decklog.assembly.maintenance import embedded_database, migrate
from decklog.assembly.worker import run_worker
from decklog.cli.dev_folder import DevFolder
from decklog.cli.manual import manual
from decklog.cli.options import Flag, Port
from decklog.cli.signals import stop_on_signal
from decklog.demo import telling
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import RequestContext
from decklog.files.keys import KeyFile
from decklog.settings import Api
from decklog.tracing_settings import tracing
from decklog.upkeep import INTERVAL, Upkeep

_PORT = 8321
_STALE_SECONDS_MAX = 30.0
"""Seconds to wait for a registry that this process could not read for a moment."""

app = App(
    name="dev",
    help_epilogue=manual(
        """Runs the API, a worker and provisioning over a PostgreSQL in the data folder, and creates the tenants of the manifests. Ctrl-C
stops it; the data stays.""",
        "decklog dev --demo",
        "decklog dev --port 0 --data-dir /tmp/decklog --fresh",
        "decklog tenants --data-dir .decklog",
        exits="0, 2 (it could not start)",
    ),
)


@dataclass(frozen=True)
class Options:
    """The options of `decklog dev`; `manifests` is None where no tenant is to be created."""

    host: str
    port: int
    data_dir: Path
    manifests: Path | None
    ready_file: Path | None
    fresh: bool
    demo: bool


@app.default
def dev(
    *,
    host: str = "127.0.0.1",
    port: Port = _PORT,
    data_dir: Path = Path(".decklog"),
    manifests: Path = Path("manifests/examples"),
    ready_file: Path | None = None,
    fresh: Flag = False,
    demo: Flag = False,
) -> int:
    """Run everything in one process, with its own PostgreSQL.

    Args:
        host: Address that the API listens on.
        port: Port of the API; 0 picks a free one.
        data_dir: Folder of all data.
        manifests: Folder of Tenant manifests.
        ready_file: File that is created, with the API's address in it, once everything is ready.
        fresh: Empty the data folder first.
        demo: Create the tenant demo with a generated story, and send it a record every few seconds.
    """
    found = manifests if manifests.is_dir() else None
    if found is None:
        sys.stderr.write(f"decklog: There is no folder {manifests}; starting without tenants.\n")
    return uvloop.run(_run(Options(host, port, data_dir, found, ready_file, fresh, demo)))


async def _run(options: Options) -> int:
    """Serve until a signal. Raises `misconfigured`, `invalid-tenant` and OSError."""
    folder = DevFolder(options.data_dir)
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stop_on_signal())
        # The port is taken first: where another process has it, nothing is created.
        listener = stack.enter_context(listen(options.host, options.port))
        stack.enter_context(folder.locked(fresh=options.fresh))
        if options.ready_file is not None:
            options.ready_file.unlink(missing_ok=True)
        opening = embedded_database(folder.database, password=folder.admin_password())
        address = await stack.enter_async_context(opening)
        stack.enter_context(folder.published(address))
        await _serve(options, folder, address, listener, stop)
    return 0


async def _serve(options: Options, folder: DevFolder, address: str, listener: socket.socket, stop: asyncio.Event) -> None:
    """Create the tenants and serve over the database at `address` until `stop` is set."""
    settings = folder.settings(address, Api(host=options.host, port=options.port))
    await migrate(settings, with_roles=True, post=True)
    vault = KeyFile(folder.keys)
    manifests = [options.manifests] if options.manifests is not None else []
    demo = options.demo and _demo_begins(folder, vault)
    if demo:
        manifests.append(telling.MANIFEST)
    async with AsyncExitStack() as stack:
        provisioner = await stack.enter_async_context(open_provisioner(settings))
        upkeep = Upkeep(provisioner, vault, manifests, keeps_all=True, platform_key=True)
        troubles = await upkeep.look()
        traces = await stack.enter_async_context(open_traces(tracing(os.environ), "decklog"))
        opening = open_api(settings, provisioner=provisioner, vault=vault, traces=traces)
        services = await stack.enter_async_context(opening)
        application = create_app(services, settings, traces)
        limits = within_files(limits_of(settings.api))
        serving = serve(application, options.host, options.port, listener=listener, limits=limits)
        server = await stack.enter_async_context(serving)
        parts = {
            asyncio.create_task(run_worker(folder.worker_settings(settings), stop, traces=traces), name="worker"),
            asyncio.create_task(upkeep.keep(stop, INTERVAL, pause=INTERVAL), name="upkeep"),
        }
        url = f"http://{options.host}:{server.port}"
        vault.set_url(url)
        if demo:
            telling_story = telling.tell(url, lambda: vault.keys_of(telling.TENANT).get("writer", ""), folder.demo, stop)
            parts.add(asyncio.create_task(telling_story, name="demo"))
        link = await _board_link(services, url, vault, first=telling.TENANT if demo else None)
        _say(greeting(url, options.data_dir, upkeep.names, vault, troubles=troubles, link=link))
        if options.ready_file is not None:
            options.ready_file.write_text(url + "\n")
        await _until_stopped(stop, parts, server.finished)
        _say("Stopping.")


def _demo_begins(folder: DevFolder, vault: KeyFile) -> bool:
    """Return whether the demo may run here, and say so where it may not."""
    begins = telling.begin(folder.demo, taken=bool(vault.keys_of(telling.TENANT)))
    if not begins:
        sys.stderr.write(f"decklog: {folder.path} has a tenant {telling.TENANT} of its own; starting without the demo.\n")
    return begins


async def _until_stopped(stop: asyncio.Event, parts: set[asyncio.Task[None]], server: asyncio.Task[None]) -> None:
    """Wait for `stop` or for the end of a part, then for the end of all of them. Raises what a part raised."""
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({stopping, server, *parts}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await asyncio.wait(parts, timeout=10)
    for task in done - {stopping}:
        task.result()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def _board_link(services: ApiServices, url: str, vault: KeyFile, *, first: str | None) -> str:
    """Return a one-time link to the board for the admins of all tenants and for the platform; the address alone where there is no key.

    The board begins with the tenant `first`. A registry that is stale for a moment, as on a machine under load, is waited for.
    """
    link = f"{url}/board/"
    async for attempt in stamina.retry_context(on=_is_stale, attempts=None, timeout=_STALE_SECONDS_MAX, wait_max=1.0):
        with attempt:
            principals = [await services.identity.authenticate(key) for key in vault.board_keys(first=first)]
            if principals:
                code, _ = await services.sign_in.link(principals, RequestContext("decklog dev"))
                link = link_url(url, code)
    return link


def _is_stale(error: Exception) -> bool:
    return isinstance(error, DecklogError) and error.code is Code.REGISTRY_STALE


def greeting(url: str, data_dir: Path, names: list[str], vault: KeyFile, *, troubles: Mapping[str, str], link: str) -> str:
    """Return what is printed once everything is ready: the one-time `link` to the board first.

    `troubles` are the tenants that are not ready, with the reason.
    """
    folder = shlex.quote(str(data_dir))
    lines = [
        "",
        f"Board (this link works once, for 10 minutes): {link}",
        f"Another link: decklog board --data-dir {folder}",
        "",
        f"Decklog is ready at {url}   (API document: {url}/schema)",
        f"Keys of the platform and of {len(names)} tenants: {data_dir / 'dev.json'}",
        f"Tenants: decklog tenants --data-dir {folder}",
        f"Plan:    decklog plan --data-dir {folder} -f tenant.yaml",
        *(f"Not ready: {name}: {trouble}" for name, trouble in troubles.items()),
    ]
    for name in names[:1]:
        if key := vault.keys_of(name).get("writer"):
            body = msgspec.json.encode({"action": "document.create", "actor": {"id": "alice"}}).decode()
            curl = f"curl -s {url}/api/v1/logs -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'"
            lines += ["", f"Send a record as {name}:", "", curl, ""]
    return "\n".join([*lines, "Ctrl-C stops it; the data stays."])
