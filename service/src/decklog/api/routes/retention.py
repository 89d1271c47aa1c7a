"""Retention of a log: the ranges of its records, and until when they are readable."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get

from decklog import shapes
from decklog.api.openapi import JSON, Operation, json_answer
from decklog.api.reads import LOG, RECORDED_ERRORS
from decklog.api.request import ask
from decklog.domain.records.ageing import DroppedRange
from decklog.domain.records.retained import RetainedRange

_OPERATION = Operation(
    "get_retention",
    "read",
    {
        200: json_answer(
            "The ranges of the log, oldest first.",
            shapes.LogRetention,
            {
                "tenant": "acme",
                "log": "events",
                "days": 30,
                "search_days": None,
                "ranges": [
                    {
                        "from": None,
                        "to": "2026-01-01T00:00:00Z",
                        "first_seq": 0,
                        "end_seq": 1200,
                        "records": 1200,
                        "bytes": None,
                        "hidden_after": "2026-01-31T00:00:00Z",
                        "state": "hidden",
                    },
                    {
                        "from": "2026-01-31T00:00:00Z",
                        "to": "2026-02-01T00:00:00Z",
                        "first_seq": 1200,
                        "end_seq": 2042,
                        "records": 842,
                        "bytes": 524288,
                        "hidden_after": "2026-03-03T00:00:00Z",
                        "state": "open",
                    },
                ],
                "dropped": [
                    {
                        "from": "2025-12-01T00:00:00Z",
                        "to": "2025-12-02T00:00:00Z",
                        "first_seq": 0,
                        "end_seq": 400,
                        "records": 400,
                        "dropped_at": "2026-01-03T00:10:00Z",
                    }
                ],
            },
        )
    },
    RECORDED_ERRORS,
    parameters=[LOG],
)


def _shown(found: RetainedRange) -> dict[str, Any]:
    return {
        "from": found.since,
        "to": found.until,
        "first_seq": found.first_seq,
        "end_seq": found.end_seq,
        "records": found.end_seq - found.first_seq,
        "bytes": found.bytes,
        "hidden_after": found.hidden_after,
        "state": found.state,
    }


def _gone(found: DroppedRange) -> dict[str, Any]:
    return {
        "from": found.since,
        "to": found.until,
        "first_seq": found.first_seq,
        "end_seq": found.end_seq,
        "records": found.end_seq - found.first_seq,
        "dropped_at": found.dropped_at,
    }


@get("/retention", opt={"operation": _OPERATION})
async def get_retention(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Show when the records of a log stop being readable.

    Roles: auditor, admin; the platform for `log=access` of its own. A range is a partition of storage: a span of receipt time, with the
    sequence numbers in it. It is `open` while further records may come into it, `closed` afterwards, and `hidden` once `retention.days`
    have passed since its end. The ranges cover all numbers of the log; those before the first readable one are one hidden range. A worker
    drops a partition a day after it may go; `dropped` lists those that went.
    """
    asked = await ask(request)
    found = await asked.services.retention.of_log(asked.principal, asked.context, asked.parameters)
    tenant = found.tenant
    answer = {
        "tenant": tenant.name,
        "log": found.log.text,
        "days": tenant.retention_days,
        "search_days": tenant.limits.search_days or None,
        "ranges": [_shown(each) for each in found.ranges],
        "dropped": [_gone(each) for each in found.dropped],
    }
    return Response(msgspec.json.encode(answer), media_type=JSON)
