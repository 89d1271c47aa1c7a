"""Reference servers: `python -m tests.bench.reference empty|bare PORT`.

`empty` is a Litestar application with an empty handler, served by Uvicorn alone: the ceiling of any Litestar service, whatever this one does
about connections. `bare` answers without parsing, the ceiling of the load generator.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import cast

import uvicorn
import uvloop
from litestar import Litestar, post

_HOST = "127.0.0.1"
_ANSWER = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}"


@post("/api/v1/logs")
async def empty() -> None:
    """Do nothing."""


class _Bare(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(_ANSWER)


async def _serve_empty(port: int) -> None:
    config = uvicorn.Config(
        Litestar([empty], openapi_config=None),
        host=_HOST,
        port=port,
        loop="none",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    config.load()
    gc.collect()
    gc.freeze()  # as the API does
    await uvicorn.Server(config).serve()


async def _serve_bare(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Bare, _HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    kind, number = sys.argv[1:]
    uvloop.run({"empty": _serve_empty, "bare": _serve_bare}[kind](int(number)))
