"""Liveness, readiness and metrics, for Kubernetes and Prometheus. They need no credential and reveal no secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from decklog import shapes
from decklog.api.openapi import JSON, Answer, Media, Operation, json_answer
from decklog.domain.errors import DecklogError
from decklog.domain.store import Readiness

CHECK_SECONDS_MAX = 2.0
"""Seconds for one backend to answer."""
OPTIONAL = frozenset({"search", "queue"})
"""Backends without which the process still stores and returns records, so it stays in service."""

_log = structlog.get_logger(__name__)


async def _check(name: str, backend: Readiness) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            await backend.check()
    except TimeoutError:
        return "timeout"
    except DecklogError as error:
        _log.info("backend not ready", backend=name, code=error.code.value, detail=error.detail)
        return error.code.value
    except Exception:  # noqa: BLE001 - a probe must answer, whatever a backend's library raises
        _log.warning("backend not ready", backend=name, exc_info=True)
        return "internal"
    return "ok"


async def checked(backends: Mapping[str, Readiness]) -> tuple[int, dict[str, Any]]:
    """Return status and body of the readiness probe. The body names backends and codes; the log has the details."""
    results = await asyncio.gather(*(_check(name, backend) for name, backend in backends.items()))
    checks = dict(zip(backends, results, strict=True))
    bad = {name for name, result in checks.items() if result != "ok"}
    if bad - OPTIONAL:
        return 503, {"status": "unready", "checks": checks}
    return 200, {"status": "degraded" if bad else "ready", "checks": checks}


_HEALTHZ = Operation(
    "healthz", "operate", {200: json_answer("The process is alive.", shapes.Health, {"status": "ok"})}, secured=False
)


@get("/healthz", opt={"operation": _HEALTHZ})
async def healthz() -> dict[str, str]:
    """Liveness probe. Answers without contacting a backend."""
    return {"status": "ok"}


_READYZ = Operation(
    "readyz",
    "operate",
    {
        200: json_answer("Ready or degraded.", shapes.Readiness, {"status": "ready", "checks": {"database": "ok"}}),
        503: json_answer("Not ready.", shapes.Readiness, {"status": "unready", "checks": {"database": "storage-unavailable"}}),
    },
    secured=False,
)


@get("/readyz", opt={"operation": _READYZ})
async def readyz(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Readiness probe. Checks each backend for at most two seconds.

    `degraded`: an optional backend (search, queue) is unavailable. `unready`: a required backend is unavailable. `stopping`:
    the process is shutting down.
    """
    if request.app.state.stopping.is_set():
        return Response(b'{"status":"stopping","checks":{}}', status_code=503, media_type=JSON)
    status, body = await checked(request.app.state.services.readiness)
    return Response(msgspec.json.encode(body), status_code=status, media_type=JSON)


_METRICS = Operation("metrics", "operate", {200: Answer("Metrics.", {"text/plain": Media({"type": "string"})})}, secured=False)


@get("/metrics", opt={"operation": _METRICS})
async def metrics() -> Response[bytes]:
    """Metrics in the text format of Prometheus."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
