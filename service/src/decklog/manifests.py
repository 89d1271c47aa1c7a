"""Tenants from YAML files, as `kubectl apply -f` takes them: for `decklog dev` and `decklog plan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenant import KIND, TenantSpec, parse_manifest


def read_manifests(paths: Sequence[Path]) -> dict[str, TenantSpec]:
    """Tenants of these files, and of the YAML files in these folders, by name and sorted; other kinds are left out.

    Raises `misconfigured` where there is no such file, and `invalid-tenant`, naming the file.
    """
    found: dict[str, TenantSpec] = {}
    for path in paths:
        for file in sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]:
            for name, spec in _read(file):
                if name in found:
                    raise DecklogError(Code.INVALID_TENANT, f"{file.name}: there is another Tenant {name!r} in these files.")
                found[name] = spec
    return dict(sorted(found.items()))


def _read(file: Path) -> Iterator[tuple[str, TenantSpec]]:
    try:
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if document and not (isinstance(document, dict) and document.get("kind") not in (KIND, None)):
                yield parse_manifest(document)
    except DecklogError as error:
        raise DecklogError(error.code, f"{file.name}: {error.detail}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DecklogError(Code.INVALID_TENANT, f"{file.name} is not YAML: {error}") from None
    except OSError as error:
        raise DecklogError(Code.MISCONFIGURED, f"{file} cannot be read ({error.strerror}).") from None
