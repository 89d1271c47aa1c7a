"""Is it alive, is it ready, and how is it doing: for Kubernetes and Prometheus, without credentials and without secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from decklog.api.operations import HEALTHZ, METRICS, READYZ
from decklog.domain.errors import DecklogError
from decklog.domain.store import Readiness

CHECK_SECONDS_MAX = 2.0
OPTIONAL = frozenset({"search", "queue"})
"""Backends without which this process still takes in and gives out records, so it stays in service."""

_log = structlog.get_logger(__name__)


async def _check(name: str, backend: Readiness) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            await backend.check()
    except TimeoutError:
        return "timeout"
    except DecklogError as error:
        _log.info("not ready", backend=name, code=error.code.value, detail=error.detail)
        return error.code.value
    except Exception:  # noqa: BLE001 - a probe must answer whatever a backend's library raises
        _log.warning("not ready", backend=name, exc_info=True)
        return "internal"
    return "ok"


async def checked(backends: Mapping[str, Readiness]) -> tuple[int, dict[str, Any]]:
    """Status and body of a readiness probe. Says which backend and which code; the detail is in the log."""
    results = await asyncio.gather(*(_check(name, backend) for name, backend in backends.items()))
    checks = dict(zip(backends, results, strict=True))
    bad = {name for name, result in checks.items() if result != "ok"}
    if bad - OPTIONAL:
        return 503, {"status": "unready", "checks": checks}
    return 200, {"status": "degraded" if bad else "ready", "checks": checks}


@get("/healthz", opt=HEALTHZ)
async def healthz() -> dict[str, str]:
    """Liveness: this process answers."""
    return {"status": "ok"}


@get("/readyz", opt=READYZ)
async def readyz(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Readiness: each backend answers within two seconds, and the process was not told to stop.

    `degraded` means that a backend is away that this process can do without for a while.
    """
    if request.app.state.stopping.is_set():
        return Response(b'{"status":"stopping","checks":{}}', status_code=503, media_type="application/json")
    status, body = await checked(request.app.state.services.readiness)
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")


@get("/metrics", opt=METRICS)
async def metrics() -> Response[bytes]:
    """Metrics in Prometheus' text format."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
