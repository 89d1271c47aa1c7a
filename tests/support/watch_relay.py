"""An HTTP relay to a Kubernetes API that distinguishes watches from other requests, so that a test can break only watches."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import aiohttp
import yaml
from aiohttp import web

Mode = Literal["pass", "kill", "freeze"]
_HOP = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


class WatchRelay:
    """A relay whose `mode` may change at any time: `kill` ends watches after their headers, `freeze` keeps them open and silent."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        self._upstream: str = config["clusters"][0]["cluster"]["server"]
        self.mode: Mode = "pass"
        self.url = ""
        self._config = config
        self._session: aiohttp.ClientSession | None = None

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig of the same user through this relay, and return its path."""
        cluster = {"name": self._config["clusters"][0]["name"], "cluster": {"server": self.url}}
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump({**self._config, "clusters": [cluster]}))
        return path

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") == "true"
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        body = await request.read()
        assert self._session is not None
        async with self._session.request(
            request.method, self._upstream + request.raw_path, headers=headers, data=body or None
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            if watch:
                await self._gate(request)
            async for chunk in answer.content.iter_any():
                if watch:
                    await self._gate(request)
                await response.write(chunk)
            if watch:
                await self._gate(request)  # the end is frozen, too
            return response

    async def _gate(self, request: web.Request) -> None:
        while self.mode != "pass":
            if self.mode == "kill":
                assert request.transport is not None
                request.transport.abort()
                raise ConnectionResetError
            await asyncio.sleep(0.05)

    async def _serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        connector = aiohttp.TCPConnector(ssl=_unverified(), limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as self._session:
            app = web.Application(client_max_size=16 * 1024 * 1024)
            app.router.add_route("*", "/{path:.*}", self._relay)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            await stop.wait()
            await runner.cleanup()

    @contextmanager
    def running(self) -> Iterator[WatchRelay]:
        loop, ready = asyncio.new_event_loop(), threading.Event()
        stop = asyncio.Event()
        thread = threading.Thread(target=lambda: loop.run_until_complete(self._serve(ready, stop)), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            loop.close()


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
