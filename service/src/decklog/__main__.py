"""The command line: one program, one verb a process."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from decklog import __version__
from decklog.domain.errors import DecklogError


def _parser() -> argparse.ArgumentParser:
    from decklog.cli import client  # noqa: PLC0415
    from decklog.cli import recover as recovery  # noqa: PLC0415 - each verb loads what it needs, and no more
    from decklog.cli import tenants as commands  # noqa: PLC0415 - each verb loads what it needs, and no more

    parser = argparse.ArgumentParser(prog="decklog", description="A multi-tenant audit log.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    dev = verbs.add_parser("dev", help="everything in one process, with a PostgreSQL of its own")
    dev.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    dev.add_argument("--port", type=int, default=8321, help="port of the API; 0 picks a free one (%(default)s)")
    dev.add_argument("--data-dir", type=Path, default=Path(".decklog"), help="folder of all data (%(default)s)")
    dev.add_argument(
        "--manifests", type=Path, default=Path("manifests/examples"), help="folder of Tenant manifests (%(default)s)"
    )
    dev.add_argument("--ready-file", type=Path, help="file that is made, with the address in it, once all is ready")
    dev.add_argument("--fresh", action="store_true", help="begin with an empty data folder")
    verbs.add_parser("api", help="serve the API")
    verbs.add_parser("worker", help="follow the logs: index, sweep, make partitions")
    migrate = verbs.add_parser("migrate", help="bring the database to this version; may run again")
    migrate.add_argument("--bootstrap", action="store_true", help="make the roles first, with DECKLOG_DATABASE_ADMIN_DSN")
    migrate.add_argument(
        "--post", action="store_true", help="then take away what only older versions use, once none of them is connected"
    )
    migrate.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="for the database to answer, and older versions to go (%(default)s)",
    )
    verbs.add_parser("platform-key", help="make a new platform key, print it once, and revoke the one before")
    _add_provision(verbs)
    client.add_parsers(verbs)
    commands.add_parsers(verbs)
    recovery.add_parsers(verbs)
    return parser


def _add_provision(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    provision = verbs.add_parser(
        "provision",
        help="make tenants from files and keep them right, where there is no Kubernetes",
        description="""Make the tenants of these files, put right what is changed behind their backs, and change their keys when
        those are due: what the operator does, from files, which are read anew before each look. Tenants that were made over
        the API are looked after, too. A tenant whose file goes stays.""",
        epilog="""Needs DECKLOG_TENANTS_OWNER=decklog, DECKLOG_DATABASE_OWNER_DSN, and DECKLOG_SEARCH_ and DECKLOG_QUEUE_ as the API
        has them. Exits with 0, with 1 where --once left a tenant not ready, or with 2 where it could not begin.""",
    )
    provision.add_argument(
        "--manifests",
        action="append",
        type=Path,
        required=True,
        metavar="PATH",
        help="YAML file, or folder of them; may be repeated",
    )
    provision.add_argument(
        "--keys", type=Path, required=True, metavar="FILE", help="file in which the keys are kept; only you can read it"
    )
    provision.add_argument("--url", default="", help="address of the API, which is put beside the keys")
    provision.add_argument("--platform-key", action="store_true", help="keep a key of the platform there, and revoke all others")
    provision.add_argument("--once", action="store_true", help="end after one look")
    provision.add_argument(
        "--interval", type=_seconds, default=60.0, metavar="SECONDS", help="between two looks, 1 to 3600 (%(default)s)"
    )
    provision.add_argument("--health-host", default="127.0.0.1", help="address for /healthz, /readyz and /metrics (%(default)s)")
    provision.add_argument("--health-port", type=int, default=0, help="their port; 0 for none (%(default)s)")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 3_600:
        raise argparse.ArgumentTypeError("it must be from 1 to 3600")
    return seconds


def _dev(arguments: argparse.Namespace) -> int:
    from decklog.cli import dev as embedded  # noqa: PLC0415

    manifests: Path | None = arguments.manifests
    if manifests is not None and not manifests.is_dir():
        sys.stderr.write(f"decklog: there is no folder {manifests}; starting without tenants.\n")
        manifests = None
    return _run_fast(
        embedded.run(
            embedded.Options(arguments.host, arguments.port, arguments.data_dir, manifests, arguments.ready_file, arguments.fresh)
        )
    )


async def _serve(verb: str) -> int:
    from decklog import settings  # noqa: PLC0415
    from decklog.assembly import backends, control_plane  # noqa: PLC0415

    configured, tracing = settings.load(os.environ), settings.tracing(os.environ)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if verb == "worker":
        from decklog.assembly.worker import run_worker  # noqa: PLC0415

        async with backends.open_traces(tracing, "decklog-worker") as traces:
            await run_worker(configured, stop, traces=traces)
        return 0
    from decklog.api.app import create_app, create_metrics_app  # noqa: PLC0415
    from decklog.api.server import LINGER_SECONDS, serve  # noqa: PLC0415
    from decklog.assembly.api import open_api  # noqa: PLC0415

    async with (
        control_plane.open_owner(configured) as owner,
        backends.open_traces(tracing, "decklog-api") as traces,
        open_api(configured, provisioner=owner, traces=traces) as service,
    ):
        api = configured.api
        async with AsyncExitStack() as stack:
            if api.metrics_port:
                await stack.enter_async_context(serve(create_metrics_app(service), api.host, api.metrics_port))
            app = create_app(service, configured, traces)
            server = await stack.enter_async_context(
                serve(app, api.host, api.port, trusted_proxies=api.trusted_proxies, linger=LINGER_SECONDS)
            )
            structlog.get_logger("decklog").info("serving", host=api.host, port=server.port)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({stopping, server.finished}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
    return 0


async def _provision(arguments: argparse.Namespace) -> int:
    from decklog import settings  # noqa: PLC0415
    from decklog import upkeep as provision  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    options = provision.Options(
        tuple(arguments.manifests),
        arguments.keys,
        arguments.url,
        arguments.platform_key,
        arguments.once,
        arguments.interval,
        arguments.health_host,
        arguments.health_port,
    )
    return await provision.run(options, settings.load(os.environ), stop)


async def _migrate(arguments: argparse.Namespace) -> int:
    from decklog import settings  # noqa: PLC0415
    from decklog.assembly import maintenance  # noqa: PLC0415

    await maintenance.migrate(settings.load(os.environ), with_roles=arguments.bootstrap, wait=arguments.wait, post=arguments.post)
    return 0


async def _platform_key() -> int:
    from decklog import settings  # noqa: PLC0415
    from decklog.assembly import control_plane  # noqa: PLC0415

    async with control_plane.open_provisioner(settings.load(os.environ)) as provisioner:
        sys.stdout.write(await provisioner.ensure_platform_key(None) + "\n")
    return 0


def _configure_logging() -> None:
    from decklog.log_lines import configure  # noqa: PLC0415

    configure(os.environ.get("DECKLOG_LOG_FORMAT", "json" if not sys.stderr.isatty() else "text"))


def main() -> None:
    """Entry point of the `decklog` program; exits with 0, 1 (something was refused) or 2 (wrong use or settings)."""
    arguments = _parser().parse_args()
    _configure_logging()
    try:
        match arguments.verb:
            case "dev":
                code = _dev(arguments)
            case "api" | "worker":
                code = _run_fast(_serve(arguments.verb))
            case "provision":
                code = _run_fast(_provision(arguments))
            case "migrate":
                code = asyncio.run(_migrate(arguments))
            case "platform-key":
                code = asyncio.run(_platform_key())
            case _:
                code = asyncio.run(arguments.run(arguments))
    except DecklogError as error:
        sys.stderr.write(f"decklog: {error.detail}\n")
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _run_fast(verb: Coroutine[Any, Any, int]) -> int:
    import uvloop  # noqa: PLC0415

    return uvloop.run(verb)


if __name__ == "__main__":
    main()
