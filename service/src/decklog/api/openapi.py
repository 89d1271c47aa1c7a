"""The OpenAPI 3.1 document, put together from the routes themselves: what is not routed is not documented, and the reverse.

Summaries and descriptions are the handlers' docstrings, schemas come from the structures that decode and check.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.routes import BaseRoute, HTTPRoute

from decklog import __version__
from decklog.api import shapes
from decklog.api.errors import Problem
from decklog.domain.records.record import RecordInput
from decklog.domain.tenancy.manifest import TenantManifest

_SHAPES = (
    RecordInput,
    shapes.Record,
    shapes.Receipt,
    shapes.BulkAnswer,
    shapes.PageAnswer,
    shapes.StatsAnswer,
    shapes.TenantsAnswer,
    shapes.TenantAnswer,
    TenantManifest,
    shapes.WhoAmI,
    shapes.Health,
    shapes.ReadinessAnswer,
    Problem,
)

_DESCRIPTION = """\
A multi-tenant audit log. Applications append records; auditors list, count, follow and export them.

A credential (an API key `dlk_…`, or a JWT of a trusted issuer) speaks for exactly one tenant, or for the platform;
nothing in a request can name another. Errors are RFC 9457 problem details with a stable `code`. Every reading is
recorded in the tenant's `access` log before anything is given.
"""

_TAGS = [
    {"name": "append", "description": "Records in. Roles writer and admin."},
    {"name": "read", "description": "Records out. Roles auditor and admin."},
    {"name": "platform", "description": "Tenants and credentials."},
    {"name": "operate", "description": "For Kubernetes and Prometheus."},
]


def _operation(handler: HTTPRouteHandler) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(inspect.getdoc(handler.fn) or "").partition("\n")
    described: dict[str, Any] = {"summary": summary.rstrip(".")}
    if description.strip():
        described["description"] = description.strip()
    return {**described, **handler.opt["operation"]}


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The document of these routes; those without a description are left out."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            if "operation" in handler.opt:
                (method,) = handler.http_methods
                paths.setdefault(route.path_format, {})[method.lower()] = _operation(handler)
    _, schemas = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Decklog",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": _TAGS,
        "paths": {path: dict(sorted(methods.items())) for path, methods in sorted(paths.items())},
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key `dlk_<id>_<secret>`, or a JWT (EdDSA, ES256, RS256) of a trusted issuer.",
                }
            },
        },
    }
