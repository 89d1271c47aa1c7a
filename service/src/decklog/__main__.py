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
    from decklog import commands  # noqa: PLC0415 - each verb loads what it needs, and no more
    from decklog.client import commands as client  # noqa: PLC0415

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
    verbs.add_parser("platform-key", help="make a new platform key, print it once, and revoke the one before")
    client.add_parsers(verbs)
    commands.add_parsers(verbs)
    return parser


def _dev(arguments: argparse.Namespace) -> int:
    from decklog import embedded  # noqa: PLC0415

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
    from decklog import factory, settings  # noqa: PLC0415

    configured = settings.load(os.environ)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if verb == "worker":
        from decklog.workers import runner  # noqa: PLC0415

        async with factory.open_service(configured) as service:
            await runner.run(service, configured, stop)
        return 0
    from decklog.api.app import create_app, create_metrics_app  # noqa: PLC0415
    from decklog.api.server import serve  # noqa: PLC0415

    async with factory.open_owner(configured) as owner, factory.open_service(configured, provisioner=owner) as service:
        api = configured.api
        async with AsyncExitStack() as stack:
            if api.metrics_port:
                await stack.enter_async_context(serve(create_metrics_app(service), api.host, api.metrics_port))
            server = await stack.enter_async_context(serve(create_app(service, configured), api.host, api.port))
            structlog.get_logger("decklog").info("serving", host=api.host, port=server.port)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({stopping, server.finished}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
    return 0


async def _migrate(arguments: argparse.Namespace) -> int:
    from decklog import factory, settings  # noqa: PLC0415

    await factory.migrate(settings.load(os.environ), with_roles=arguments.bootstrap)
    return 0


async def _platform_key() -> int:
    from decklog import factory, settings  # noqa: PLC0415

    async with factory.open_provisioner(settings.load(os.environ)) as provisioner:
        sys.stdout.write(await provisioner.ensure_platform_key(None) + "\n")
    return 0


def _configure_logging() -> None:
    from decklog.logs import configure  # noqa: PLC0415

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
