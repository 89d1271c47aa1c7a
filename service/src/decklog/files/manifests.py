"""Tenants from YAML files, as `kubectl apply -f` takes them: for `decklog provision`, `decklog dev` and `decklog plan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.manifest import KIND, ROTATE, check_request, parse_manifest
from decklog.domain.tenancy.spec import TenantSpec


class Wanted(msgspec.Struct, frozen=True):
    """What a file asks for: a spec, and new API keys once for each new value of `rotate`."""

    spec: TenantSpec
    rotate: str = ""


def read_manifests(paths: Sequence[Path]) -> dict[str, Wanted]:
    """Return the tenants of these files, and of the YAML files in these folders, sorted by name. Other kinds are skipped.

    Raises `misconfigured` where a file cannot be read, and `invalid-tenant`, naming the file.
    """
    found: dict[str, Wanted] = {}
    for path in paths:
        for file in sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]:
            for name, wanted in _read(file):
                if name in found:
                    raise DecklogError(
                        Code.INVALID_TENANT, f"{file.name}: another file or document defines the Tenant {name!r}, too."
                    )
                found[name] = wanted
    return dict(sorted(found.items()))


def _read(file: Path) -> Iterator[tuple[str, Wanted]]:
    try:
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if document and not (isinstance(document, dict) and document.get("kind") not in (KIND, None)):
                name, spec = parse_manifest(document)
                yield name, Wanted(spec, _rotate(document["metadata"]))
    except DecklogError as error:
        raise DecklogError(error.code, f"{file.name}: {error.detail}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DecklogError(Code.INVALID_TENANT, f"{file.name} is not YAML: {error}") from None
    except OSError as error:
        raise DecklogError(Code.MISCONFIGURED, f"{file} cannot be read ({error.strerror}).") from None


def _rotate(metadata: dict[str, Any]) -> str:
    value = (metadata.get("annotations") or {}).get(ROTATE, "")
    if not isinstance(value, str):
        raise DecklogError(Code.INVALID_TENANT, f"The annotation {ROTATE} must be a text: put it in quotes.")
    return check_request(value)
