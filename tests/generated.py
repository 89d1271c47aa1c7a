"""Files in the repository that are made from the code: `python -m tests.generated` writes them, `--check` compares.

`make lint` runs the check, so a definition, a manifest or an API document that is behind the code fails the build.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from decklog.api.app import openapi_document
from decklog.api.errors import STATUSES
from decklog.domain.errors import Code
from decklog.services.tenancy import metrics as provisioning_metrics  # noqa: F401  # registers its own
from decklog.settings import OPENTELEMETRY, variables
from decklog_operator import manifests
from decklog_operator import settings as operator_settings
from decklog_operator.metrics import Census
from tests import generated_chart

ROOT = Path(__file__).parents[1]


def openapi() -> str:
    """What the API serves at /schema/openapi.json, for reviews to see what changes."""
    return json.dumps(openapi_document(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def readme() -> str:
    """The README with its tables of settings, of errors and of the operator's metrics made anew."""
    errors = "| code | status | title |\n| --- | --- | --- |\n"
    errors += "".join(f"| `{code.value}` | {STATUSES[code][0]} | {STATUSES[code][1]} |\n" for code in Code)
    tables = {
        "settings": _settings(variables()),
        "tracing settings": _settings(OPENTELEMETRY),
        "operator settings": _settings(operator_settings.variables()),
        "operator metrics": _metrics(),
        "errors": errors,
    }
    text = (ROOT / "README.md").read_text()
    for name, table in tables.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        text = before + begin + table + end + after
    return text


def _settings(rows: dict[str, tuple[type, str, Any]]) -> str:
    return "| variable | what | default |\n| --- | --- | --- |\n" + "".join(
        f"| `{name}` | {text} | {f'`{default}`' if default != '' else ''} |\n" for name, (_, text, default) in rows.items()
    )


def _metrics() -> str:
    families = {family.name: family for family in (*REGISTRY.collect(), *Census().collect())}
    return "| metric | type | what |\n| --- | --- | --- |\n" + "".join(
        f"| `{name}{'_total' if family.type == 'counter' else ''}` | {family.type} | {family.documentation} |\n"
        for name, family in sorted(families.items())
        if name.startswith(("decklog_operator_", "decklog_provisioning_"))
    )


FILES: dict[str, Callable[[], str]] = {
    "README.md": readme,
    "service/openapi.json": openapi,
    "manifests/crd.yaml": manifests.crd_yaml,
    "manifests/install.yaml": manifests.install_yaml,
    "charts/decklog/templates/crd.yaml": generated_chart.crd_template,
    "charts/decklog/templates/operator-rights.yaml": generated_chart.rights_template,
    "charts/decklog/templates/protection.yaml": generated_chart.protection_template,
    "charts/decklog/values.schema.json": generated_chart.schema,
    "charts/decklog/README.md": generated_chart.readme,
}


def stale(root: Path = ROOT) -> list[str]:
    """The files that are not what the code makes now."""
    return [name for name, made in FILES.items() if not (root / name).exists() or (root / name).read_text() != made()]


def write(root: Path = ROOT) -> list[str]:
    """Make every stale file anew; returns which."""
    behind = stale(root)
    for name in behind:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(FILES[name]())
    return behind


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.generated", description="Make the files that are made from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is behind the code")
    if not parser.parse_args(arguments).check:
        for name in write():
            print(f"wrote {name}")
        return 0
    behind = stale()
    for name in behind:
        print(f"{name} is behind the code: run `make generate`.", file=sys.stderr)
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main())
