"""Tenants from YAML files, as `kubectl apply -f` takes them: for `decklog provision`, `decklog dev` and `decklog plan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import yaml

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.manifest import KIND, ROTATE, check_request, parse_manifest
from decklog.domain.tenancy.spec import TenantSpec
from decklog.domain.unique_names import NAME_CHARS_MAX, REPEATED_MAX

LISTS = ("List", f"{KIND}List")
"""Kinds of documents that hold others in `items`."""


class Wanted(msgspec.Struct, frozen=True):
    """What a file asks for: a spec, and new API keys once for each new value of `rotate`."""

    spec: TenantSpec
    rotate: str = ""


def read_manifests(paths: Sequence[Path], *, stdin: BinaryIO | None = None) -> dict[str, Wanted]:
    """Return the tenants of these files, and of the YAML files in these folders, sorted by name. Other kinds are skipped.

    A file may hold several documents, and lists as `kubectl get -o yaml` prints them. The path `-` is `stdin` where that is given.
    Raises `misconfigured` where a file cannot be read, and `invalid-tenant`, naming the file; for a key that occurs twice in one
    mapping its line, too.
    """
    found: dict[str, Wanted] = {}
    for path in paths:
        for file in sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]:
            source = stdin if file == Path("-") else None
            for name, wanted in _read(file, source):
                if name in found:
                    raise DecklogError(
                        Code.INVALID_TENANT, f"{file.name}: another file or document defines the Tenant {name!r}, too."
                    )
                found[name] = wanted
    return dict(sorted(found.items()))


def _read(file: Path, source: BinaryIO | None) -> Iterator[tuple[str, Wanted]]:
    try:
        data = file.read_bytes() if source is None else source.read()
        for document in _documents(data.decode("utf-8-sig")):
            name, spec = parse_manifest(document)
            yield name, Wanted(spec, _rotate(document["metadata"]))
    except DecklogError as error:
        raise DecklogError(error.code, f"{file.name}: {error.detail}", extra=error.extra) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DecklogError(Code.INVALID_TENANT, f"{file.name} is not YAML: {error}") from None
    except OSError as error:
        raise DecklogError(Code.MISCONFIGURED, f"{file} cannot be read ({error.strerror}).") from None


def _documents(text: str) -> Iterator[Any]:
    """Yield the Tenants of YAML text, those in lists too, and documents without a kind. Refuses repeated keys in any of them."""
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node() and (node := loader.get_node()) is not None:
            repeated = list(islice(_repeated_keys(node, "", set()), REPEATED_MAX))  # before the loader merges mappings
            document = loader.construct_document(node)
            tenants = list(_tenants(document))
            if tenants and repeated:
                raise DecklogError(Code.INVALID_TENANT, " ".join(repeated))
            yield from tenants
    finally:
        loader.dispose()


def _tenants(document: Any) -> Iterator[Any]:
    if not document:
        return
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind in LISTS and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _tenants(item)
    elif kind in (KIND, None):
        yield document


def _repeated_keys(node: yaml.Node, path: str, seen: set[int]) -> Iterator[str]:
    """Yield a sentence for each key that occurs twice in one mapping. An alias is followed once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated_keys(item, f"{path}[{index}]", seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                where = f" in {path}" if path else ""
                yield f"Line {line}: the key {name[:NAME_CHARS_MAX]!r} occurs twice{where}, first in line {lines[name]}."
            lines.setdefault(name, line)
            yield from _repeated_keys(value, f"{path}.{name}" if path else name, seen)


def _rotate(metadata: dict[str, Any]) -> str:
    value = (metadata.get("annotations") or {}).get(ROTATE, "")
    if not isinstance(value, str):
        raise DecklogError(Code.INVALID_TENANT, f"The annotation {ROTATE} must be a text: put it in quotes.")
    return check_request(value)
