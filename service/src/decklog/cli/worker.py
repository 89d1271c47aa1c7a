"""`decklog worker`."""

from __future__ import annotations

import os

import uvloop
from cyclopts import App

from decklog import settings, tracing_settings
from decklog.assembly.backends import open_traces
from decklog.assembly.worker import run_worker
from decklog.cli.manual import manual
from decklog.cli.signals import stop_on_signal

app = App(
    name="worker",
    help_epilogue=manual(
        """Reads its settings from DECKLOG_ variables. DECKLOG_DATABASE_DSN is enough; search, queue and archive are used where they are
configured.""",
        "DECKLOG_WORKER_METRICS_PORT=9321 decklog worker",
    ),
)


@app.default
def worker() -> int:
    """Follow the logs until SIGINT or SIGTERM: index records, create partitions, archive deleted tenants."""
    return uvloop.run(_work())


async def _work() -> int:
    configured = settings.load(os.environ)
    with stop_on_signal() as stop:
        async with open_traces(tracing_settings.tracing(os.environ), "decklog-worker") as traces:
            await run_worker(configured, stop, traces=traces)
    return 0
