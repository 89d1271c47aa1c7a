"""`decklog api`."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

import structlog
import uvloop
from cyclopts import App

from decklog import settings, tracing_settings
from decklog.api.app import create_app, create_metrics_app
from decklog.api.certificates import certificates_of
from decklog.api.connections import limits_of, within_files
from decklog.api.server import LINGER_SECONDS, serve
from decklog.assembly.api import open_api
from decklog.assembly.backends import open_traces
from decklog.assembly.control_plane import open_owner
from decklog.cli.manual import manual
from decklog.cli.signals import stop_on_signal

app = App(
    name="api",
    help_epilogue=manual(
        """Reads its settings from DECKLOG_ variables. Needs DECKLOG_DATABASE_DSN and DECKLOG_IDENTITY_FINGERPRINT_KEY.""",
        "DECKLOG_API_HOST=0.0.0.0 decklog api",
    ),
)


@app.default
def api() -> int:
    """Serve the API until SIGINT or SIGTERM."""
    return uvloop.run(_serve())


async def _serve() -> int:
    configured, tracing = settings.load(os.environ), tracing_settings.tracing(os.environ)
    listening, certificates = configured.api, certificates_of(configured.api)
    limits = within_files(limits_of(listening))
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stop_on_signal())
        owner = await stack.enter_async_context(open_owner(configured))
        traces = await stack.enter_async_context(open_traces(tracing, "decklog-api"))
        services = await stack.enter_async_context(open_api(configured, provisioner=owner, traces=traces))
        application = create_app(services, configured, traces)
        if listening.metrics_port:
            probes_app = create_metrics_app(services, application.state.stopping)
            probes = serve(probes_app, listening.host, listening.metrics_port, limits=limits)
            await stack.enter_async_context(probes)
        serving = serve(
            application,
            listening.host,
            listening.port,
            trusted_proxies=listening.trusted_proxies,
            linger=LINGER_SECONDS,
            limits=limits,
            certificates=certificates,
        )
        server = await stack.enter_async_context(serving)
        structlog.get_logger("decklog").info("serving", host=listening.host, port=server.port, tls=certificates is not None)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, server.finished}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
    return 0
