"""Write the files of the repository that are generated from the code; `--check` compares and writes nothing.

`make generate` and `make lint` call it, so a definition, a manifest or a page that is behind the code fails the build.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from decklog.api.app import openapi_document
from decklog_operator import manifests
from tools import board, chart, collection, reference

ROOT = Path(__file__).parents[1]


def openapi() -> str:
    """Return the document that the API serves at /schema/openapi.json, so that reviews show its changes."""
    return json.dumps(openapi_document(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


FILES: dict[str, Callable[[], str]] = {
    "service/openapi.json": openapi,
    "board/src/generated/fields.ts": board.fields_module,
    "board/src/generated/access-actions.json": board.access_actions,
    "clients/collections/decklog.postman_collection.json": collection.postman,
    "clients/collections/decklog.http": collection.http_file,
    "manifests/crd.yaml": manifests.crd_yaml,
    "manifests/install.yaml": manifests.install_yaml,
    "charts/decklog/templates/crd.yaml": chart.crd_template,
    "charts/decklog/templates/operator-rights.yaml": chart.rights_template,
    "charts/decklog/templates/protection.yaml": chart.protection_template,
    "charts/decklog/values.schema.json": chart.schema,
    **reference.pages(ROOT),
}


def changed(root: Path = ROOT) -> dict[str, str]:
    """Return the files that differ from what the code generates, with their new text."""
    made = {name: generate() for name, generate in FILES.items()}
    return {name: text for name, text in made.items() if not (root / name).exists() or (root / name).read_text() != text}


def write(root: Path = ROOT) -> list[str]:
    """Write every stale file and return their names."""
    behind = changed(root)
    for name, text in behind.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return list(behind)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 1 where `--check` finds a stale file."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.generate", description="Write the files that are generated from the code."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs from the code")
    if not parser.parse_args(arguments).check:
        for name in write():
            print(f"wrote {name}")
        return 0
    behind = changed()
    for name in behind:
        print(f"{name} is stale: run `make generate`.", file=sys.stderr)
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main())
