"""The API without access records, as a baseline. The product has no such switch."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import uvloop

from decklog import settings
from decklog.api.app import create_app
from decklog.api.server import serve
from decklog.assembly.api import open_api


async def _nothing(*_: Any, **__: Any) -> None:
    return


async def _serve() -> None:
    configured = settings.load(os.environ)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_api(configured) as services:
        services.reading._access_log.write = _nothing  # type: ignore[method-assign]
        async with serve(create_app(services, configured), configured.api.host, configured.api.port):
            await stop.wait()


if __name__ == "__main__":
    uvloop.run(_serve())
