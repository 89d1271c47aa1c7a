"""The contracts of `[tool.importlinter]` hold what their titles say.

Most cases add imports to the graph of the real sources, or remove some. Two run the program on a changed copy of the sources.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import chain, pairwise, permutations
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter import Contract
from importlinter.api import read_configuration
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract
from importlinter.contracts.protected import ProtectedContract
from importlinter.domain.helpers import MissingImport

ROOT = Path(__file__).parents[1]
CONFIGURATION = read_configuration(str(ROOT / "pyproject.toml"))
CONTRACTS = {options["name"]: options for options in CONFIGURATION["contracts_options"]}
TYPES: dict[str, type[Contract]] = {"forbidden": ForbiddenContract, "layers": LayersContract, "protected": ProtectedContract}
OPERATOR = "The operator uses the ground of the domain, tenancy, key vaults and the control plane, nothing else"
LIBRARIES = "Each library has its homes"

EVERYWHERE = {"msgspec", "structlog", "tzdata"}
"""Libraries without a home of their own: data types, log lines, and the data of the standard library's time zones."""

Import = tuple[str, str]
Options = dict[str, Any]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """The imports of the sources. Tests change a copy."""
    return grimp.build_graph("decklog", "decklog_operator", "decklog_client", include_external_packages=True, cache_dir=None)


def with_imports(graph: grimp.ImportGraph, imports: Iterable[Import]) -> grimp.ImportGraph:
    changed = deepcopy(graph)
    for importer, imported in imports:
        if imported not in changed.modules:
            changed.add_module(imported, is_squashed=True)
        changed.add_import(importer=importer, imported=imported)
    return changed


def contract(options: Options) -> Contract:
    return TYPES[options["type"]](options["name"], CONFIGURATION["session_options"], options)


def kept(graph: grimp.ImportGraph, options: Options) -> bool:
    """Whether the lint passes; a stale exception fails it as a broken contract does."""
    try:
        return contract(options).check(deepcopy(graph), verbose=False).kept
    except MissingImport:
        return False


def reported(graph: grimp.ImportGraph, options: Options) -> set[Import]:
    """The imports that a contract of the type "forbidden" names."""
    metadata = contract(options).check(deepcopy(graph), verbose=False).metadata
    routes = [route for found in metadata["invalid_chains"] for route in found["chains"]]
    return {(link["importer"], link["imported"]) for route in routes for link in route}


def exceptions() -> list[tuple[str, str]]:
    return [(name, exception) for name, options in CONTRACTS.items() for exception in options.get("ignore_imports", [])]


def matches(pattern: str, module: str) -> bool:
    """`*` stands for one part of a module's name, `**` for one or more."""
    parts = {"**": r"\w+(\.\w+)*", "*": r"\w+"}
    return re.fullmatch(r"\.".join(parts.get(part, re.escape(part)) for part in pattern.split(".")), module) is not None


def excepted(options: Options, found: Import) -> bool:
    pairs = [exception.split(" -> ") for exception in options["ignore_imports"]]
    return any(matches(importer, found[0]) and matches(imported, found[1]) for importer, imported in pairs)


def modules(graph: grimp.ImportGraph, package: str) -> list[str]:
    return sorted({package, *graph.find_descendants(package)})


def test_contracts_are_kept_by_the_sources(graph: grimp.ImportGraph) -> None:
    assert [name for name, options in CONTRACTS.items() if not kept(graph, options)] == []


@pytest.mark.parametrize(("name", "exception"), exceptions())
def test_contract_breaks_without_one_of_its_exceptions(name: str, exception: str, graph: grimp.ImportGraph) -> None:
    options = CONTRACTS[name]
    rest = [each for each in options["ignore_imports"] if each != exception]
    assert not kept(graph, {**options, "ignore_imports": rest})


@pytest.mark.parametrize(("name", "exception"), exceptions())
def test_contract_fails_on_an_exception_that_matches_no_import(name: str, exception: str, graph: grimp.ImportGraph) -> None:
    importer, imported = exception.split(" -> ")
    changed = deepcopy(graph)
    for found in changed.find_matching_direct_imports(f"{importer} -> {imported}"):
        changed.remove_import(importer=found["importer"], imported=found["imported"])
    assert not kept(changed, CONTRACTS[name])


def upward_imports(layers: list[str]) -> Iterator[tuple[str, str]]:
    """From each layer to the one above it, and between siblings that may not know each other."""
    rows = [[each.strip() for each in re.split("[|:]", row) if "(" not in each] for row in layers]
    for above, below in pairwise(rows):
        yield from ((low, high) for low in below for high in above)
    for row, names in zip(layers, rows, strict=True):
        yield from permutations(names, 2) if "|" in row else ()


@pytest.mark.parametrize("name", [name for name, options in CONTRACTS.items() if options["type"] == "layers"])
def test_layers_break_on_each_import_to_a_layer_above(name: str, graph: grimp.ImportGraph) -> None:
    options = CONTRACTS[name]
    (container,) = options["containers"]
    assert options["exhaustive"]
    found = [(f"{container}.{low}", f"{container}.{high}") for low, high in upward_imports(options["layers"])]
    assert len(found) >= len(options["layers"]) - 1
    assert [each for each in found if kept(with_imports(graph, [each]), options)] == []


@pytest.mark.parametrize("name", [name for name, options in CONTRACTS.items() if options["type"] == "layers"])
def test_layers_break_on_a_module_without_a_layer(name: str, graph: grimp.ImportGraph) -> None:
    changed = deepcopy(graph)
    changed.add_module(f"{CONTRACTS[name]['containers'][0]}.unheard_of")
    assert not kept(changed, CONTRACTS[name])


def test_adapters_are_imported_by_the_assembly_alone(graph: grimp.ImportGraph) -> None:
    options = CONTRACTS["Only the assembly knows the adapters"]
    adapters = options["protected_modules"]
    importers = {*graph.find_children("decklog"), *graph.find_children("decklog_operator")} - {*adapters, "decklog.assembly"}
    found = [(importer, adapter) for importer in sorted(importers) for adapter in adapters]
    assert [each for each in found if kept(with_imports(graph, [each]), options)] == []


def test_operator_imports_no_module_that_its_contract_does_not_name(graph: grimp.ImportGraph) -> None:
    options = CONTRACTS[OPERATOR]
    forbidden = {
        found for module in modules(graph, "decklog") if not excepted(options, found := ("decklog_operator.run", module))
    }
    assert {("decklog_operator.run", "decklog.cli"), ("decklog_operator.run", "decklog.services.records.ingest")} <= forbidden
    assert reported(with_imports(graph, forbidden), options) == forbidden


def test_service_imports_neither_the_operator_nor_kubernetes(graph: grimp.ImportGraph) -> None:
    options = CONTRACTS["The service does not know Kubernetes"]
    forbidden = {("decklog.api.app", "decklog_operator.names"), ("decklog.cli.dev", "kopf"), ("decklog.upkeep", "kubernetes")}
    assert reported(with_imports(graph, forbidden), options) == forbidden


def test_domain_imports_no_log_lines(graph: grimp.ImportGraph) -> None:
    forbidden = {(module, "structlog") for module in modules(graph, "decklog.domain")}
    assert reported(with_imports(graph, forbidden), CONTRACTS["The domain writes no log lines"]) == forbidden


def test_libraries_are_imported_from_their_homes_alone(graph: grimp.ImportGraph) -> None:
    options = CONTRACTS[LIBRARIES]
    importers = [*modules(graph, "decklog"), *modules(graph, "decklog_operator"), *modules(graph, "decklog_client")]
    forbidden = {
        found
        for importer in importers
        for library in options["forbidden_modules"]
        if not excepted(options, found := (importer, library))
    }
    assert reported(with_imports(graph, forbidden), options) == forbidden


def test_every_declared_library_has_a_home_or_is_used_everywhere() -> None:
    packages: dict[str, set[str]] = {}
    for package, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            packages.setdefault(normalized(distribution), set()).add(package)
    known = {*CONTRACTS[LIBRARIES]["forbidden_modules"], *EVERYWHERE}
    assert [name for name in sorted(declared_distributions()) if not known & packages[name]] == []


def declared_distributions() -> set[str]:
    names: set[str] = set()
    for home in ("service", "operator", "clients/python"):
        project = tomllib.loads((ROOT / home / "pyproject.toml").read_text())["project"]
        for requirement in [*project["dependencies"], *chain.from_iterable(project.get("optional-dependencies", {}).values())]:
            names.add(normalized(re.split(r"[\[<>=; ]", requirement)[0]))
    return names - {"decklog"}


def normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize("imported", ["decklog.services.records.ingest", "decklog.cli"])
def test_lint_imports_fails_on_a_forbidden_import_of_the_operator(imported: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    sources = [tmp_path / home / "src" for home in ("service", "operator", "clients/python")]
    for copy in sources:
        shutil.copytree(ROOT / copy.relative_to(tmp_path), copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert lint(tmp_path, sources).returncode == 0
    with (tmp_path / "operator/src/decklog_operator/visits.py").open("a") as module:
        module.write(f"\nimport {imported}\n")
    after = lint(tmp_path, sources)
    assert after.returncode == 1
    assert f"decklog_operator.visits -> {imported}" in " ".join(after.stdout.split())


def lint(root: Path, sources: list[Path]) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources)), "COLUMNS": "200"}
    return subprocess.run([program, "--no-cache"], check=False, cwd=root, env=environment, capture_output=True, text=True)
