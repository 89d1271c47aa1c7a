"""Filtered lists and deep pages over three months of records, with their access records."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import quote, urlencode

from decklog.domain.log import rfc3339
from tests.backends import Variant
from tests.bench import load
from tests.bench.context import VARIANTS, Context, named
from tests.bench.dataset import Log
from tests.bench.figures import Figure, ratio_at_most, value_at_most
from tests.bench.load import Job, Outcome, Template
from tests.bench.processes import HOST, Server
from tests.bench.stand import Stand

NAMES = ("list_p95", "page_depth")
LIMIT = 100
_SECONDS, _WARMUP = 10.0, 2.0
_DEPTH = 1_000
_P95_MAX = 30.0
"""Milliseconds."""
_DEPTH_RATIO_MAX = 1.3
_WALK_LIMIT = 1_000


def filters(log: Log) -> dict[str, list[dict[str, str]]]:
    """Return kinds of filters with their query parameters: rare and frequent values, old and new times."""
    some_days_ago = log.last_received - timedelta(days=40)
    return {
        "none": [{}],
        "actor": [{"actor": "user-3"}, {"actor": "user-4711"}],
        "action prefix": [{"action": "user.*"}, {"action": "api_key.*"}],
        "resource": [{"resource_id": "document-777"}],
        "outcome and severity": [
            {"outcome": "failure", "severity": "ERROR"},
            {"outcome": "denied", "severity": "CRITICAL"},
        ],
        "time": [{"from": rfc3339(some_days_ago), "to": rfc3339(some_days_ago + timedelta(days=1))}],
        "time and actor": [
            {"from": rfc3339(some_days_ago), "to": rfc3339(some_days_ago + timedelta(days=20)), "actor": "user-3"}
        ],
        "since": [{"from": rfc3339(log.last_received - timedelta(hours=2))}],
    }


def _template(log: Log, parameters: dict[str, str]) -> Template:
    query = urlencode({"limit": str(LIMIT), **parameters}, quote_via=quote)
    return load.request("GET", f"/api/v1/logs?{query}", log.customer.auditor)


async def _measured(context: Context, server: Server, templates: list[Template], *, connections: int = 1) -> Outcome:
    outcome = await load.apply(Job(HOST, server.port, templates, connections, _WARMUP, context.seconds(_SECONDS)))
    if set(outcome.statuses) != {200}:
        raise RuntimeError(f"not every answer was a 200: {outcome.statuses}, {outcome.odd_answer}")
    return outcome


def _page(server: Server, log: Log, parameters: dict[str, str]) -> dict[str, object]:
    request = urllib.request.Request(
        f"http://{HOST}:{server.port}/api/v1/logs?{urlencode(parameters)}",
        headers={"Authorization": f"Bearer {log.customer.auditor}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        page: dict[str, object] = json.load(answer)
    return page


async def _cursor_after(server: Server, log: Log, records: int) -> str:
    """Return the cursor after that many records, by following pages."""
    cursor: str | None = None
    while records:
        limit = min(records, _WALK_LIMIT)
        parameters = {"limit": str(limit), **({"cursor": cursor} if cursor else {})}
        page = await asyncio.to_thread(_page, server, log, parameters)
        cursor = str(page["next"])
        records -= limit
    assert cursor is not None
    return cursor


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the p95 of a mix of filters, and the ratio of a deep page to the first."""
    for variant in VARIANTS:
        place, log = await context.three_months(variant)
        async for figure in _variant(context, variant, place, log):
            yield figure


async def _variant(context: Context, variant: Variant, place: Stand, log: Log) -> AsyncIterator[Figure]:
    kinds = [(kind, parameters) for kind, several in filters(log).items() for parameters in several]
    templates = [_template(log, parameters) for _, parameters in kinds]
    async with place.api() as server:
        context.say(f"list_p95: {variant}, {len(templates)} searches in turn over {log.records:,} records")
        alone = await _measured(context, server, templates)
        together = await _measured(context, server, templates, connections=8)
        slowest = max(range(len(kinds)), key=lambda i: alone.medians[i])
        note = f"p50 {alone.p50:.1f} ms; slowest kind {kinds[slowest][0]!r} p50 {alone.medians[slowest]:.1f} ms; p95 with 8 at once {together.p95:.1f} ms"
        yield Figure(named("list_p95", variant), alone.p95, "ms", None, value_at_most(_P95_MAX), note)
        depth = _DEPTH if log.records >= _DEPTH * LIMIT * 2 else log.records // LIMIT // 2
        context.say(f"page_depth: {variant}, page 1 and page {depth}")
        cursor = await _cursor_after(server, log, (depth - 1) * LIMIT)
        paged = await _measured(context, server, [_template(log, {}), _template(log, {"cursor": cursor})])
        note = f"medians of page {depth} over page 1, asked for in turn"
        yield Figure(
            named("page_depth", variant), paged.medians[1], "ms", paged.medians[0], ratio_at_most(_DEPTH_RATIO_MAX), note
        )
