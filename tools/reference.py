"""Generate the tables of docs/reference from the code: settings, errors, metrics, CRD fields, chart values, command line, HTTP API.

The prose of a page is written by hand. A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, and only that part is replaced.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import Metric

import decklog
import decklog_operator
from decklog.api.app import openapi_document
from decklog.api.errors import STATUSES
from decklog.domain.errors import Code
from decklog.settings import variables
from decklog.tracing_settings import OPENTELEMETRY
from decklog_operator import settings as operator_settings
from decklog_operator.crd import custom_resource_definition
from decklog_operator.metrics import Census
from tools import chart, command_line
from tools.markdown import table

Json = dict[str, Any]

PROCESSES: dict[str, tuple[str, ...]] = {
    "api": (
        "decklog_http_",
        "decklog_append_",
        "decklog_ask_",
        "decklog_dropped_",
        "decklog_wake_ups_",
        "decklog_held_",
        "decklog_preparing_",
        "decklog_issuer_",
        "decklog_keys_",
        "decklog_records_",
        "decklog_refused_",
        "decklog_rejected_",
        "decklog_sessions_",
        "decklog_turns_",
        "decklog_viewer_",
        "decklog_backend_",
    ),
    "worker": (
        "decklog_consumer_",
        "decklog_worker_",
        "decklog_keeper_",
        "decklog_search_",
        "decklog_archive_",
        "decklog_records_",
        "decklog_backend_",
    ),
    "registry": ("decklog_registry_",),
    "traces": ("decklog_trace_",),
    "operator": ("decklog_operator_",),
    "provisioning": ("decklog_provisioning_",),
}
"""Prefixes of the metrics of each process; `registry` and `traces` are in API and worker, `provisioning` in every process that makes tenants."""


def filled(path: Path, tables: dict[str, Callable[[], str]]) -> str:
    """Return the text of a page with its tables replaced.

    Raises:
        ValueError: the page does not have the two marks of a table.
    """
    text = path.read_text(encoding="utf-8")
    for name, generate in tables.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not end:
            raise ValueError(f"{path.name}: the marks of the table {name!r} are missing.")
        text = before + begin + "\n" + generate().strip("\n") + "\n\n" + end + after
    return text


def settings(rows: dict[str, tuple[type, str, Any]]) -> str:
    """Return the table of a set of environment variables."""
    return table(
        ("variable", "description", "default"),
        ((f"`{name}`", text, f"`{default}`" if default != "" else "") for name, (_, text, default) in rows.items()),
    )


def errors() -> str:
    """Return the table of error codes, in the order of the code."""
    return table(("code", "status", "title"), ((f"`{code.value}`", str(STATUSES[code][0]), STATUSES[code][1]) for code in Code))


@cache
def _families() -> dict[str, Metric]:
    """Return every metric of every process, by the name that Prometheus shows."""
    for package in (decklog, decklog_operator):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not re.search(r"\.(__main__|piccolo_conf|m\d{4}_\w+)$", module.name):
                importlib.import_module(module.name)
    found = (*REGISTRY.collect(), *Census().collect())
    return {
        f"{each.name}_total" if each.type == "counter" else each.name: each for each in found if each.name.startswith("decklog_")
    }


def metrics(process: str) -> str:
    """Return the table of the metrics of one entry of PROCESSES.

    Raises:
        ValueError: a metric belongs to no process.
    """
    families = _families()
    known = tuple(prefix for prefixes in PROCESSES.values() for prefix in prefixes)
    if stray := [name for name in families if not name.startswith(known)]:
        raise ValueError(f"tools/reference.py: PROCESSES has no process for {', '.join(sorted(stray))}.")
    return table(
        ("metric", "type", "description"),
        (
            (f"`{name}`", family.type, family.documentation)
            for name, family in sorted(families.items())
            if name.startswith(PROCESSES[process])
        ),
    )


def crd(part: str) -> str:
    """Return the table of the fields of `spec` or `status` of a Tenant."""
    [version] = custom_resource_definition()["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"][part]
    return table(("field", "type", "default", "description"), _fields(schema, part))


def _fields(schema: Json, path: str) -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        inner = field.get("items", {}) if field["type"] == "array" else field
        default = f"`{json.dumps(field['default'])}`" if "default" in field and not inner.get("properties") else ""
        text = field.get("description", "")
        if name in required and path.startswith("spec"):
            text = f"Required. {text}"
        yield f"`{path}.{name}`", _type(field), default, text
        yield from _fields(inner, f"{path}.{name}" + ("[]" if field["type"] == "array" else ""))


def _type(field: Json) -> str:
    if "enum" in field:
        return " or ".join(f"`{each}`" for each in field["enum"])
    low, high = (field.get(bound, field.get(length)) for bound, length in (("minimum", "minLength"), ("maximum", "maxLength")))
    if "minimum" in field or "maximum" in field:
        return f"{field['type']}, {low} to {high}"
    return f"{field['type']}, at most {high} characters" if high is not None else str(field["type"])


def operations() -> str:
    """Return every operation of the HTTP API with its parameters and answers, from the OpenAPI document."""
    document = openapi_document()
    return "\n".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in sorted(methods.items())
    )


def _operation(method: str, path: str, operation: Json) -> str:
    text = f"### `{method.upper()} {path}`\n\n{operation['summary'].rstrip('.')}.\n"
    if described := operation.get("description"):
        text += f"\n{described.strip()}\n"
    if parameters := operation.get("parameters"):
        text += "\n" + table(
            ("parameter", "in", "description"),
            ((f"`{each['name']}`", each["in"], each.get("description", "")) for each in parameters),
        )
    answers = ((status, answer["description"]) for status, answer in sorted(operation["responses"].items()))
    return text + "\n" + table(("status", "answer"), answers)


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/reference/settings.md": {
        "settings": partial(settings, variables()),
        "operator settings": partial(settings, operator_settings.variables()),
        "tracing settings": partial(settings, OPENTELEMETRY),
    },
    "docs/reference/errors.md": {"errors": errors},
    "docs/reference/metrics.md": {f"{process} metrics": partial(metrics, process) for process in PROCESSES},
    "docs/reference/tenant.md": {"spec": partial(crd, "spec"), "status": partial(crd, "status")},
    "docs/reference/chart-values.md": {"values": chart.values_table},
    "docs/reference/command-line.md": {"decklog": command_line.decklog, "decklog-operator": command_line.operator},
    "docs/reference/http-api.md": {"operations": operations},
}


def pages(root: Path) -> dict[str, Callable[[], str]]:
    """Return the generated files of docs/reference, by path from the root of the repository."""
    return {name: partial(filled, root / name, tables) for name, tables in PAGES.items()}
