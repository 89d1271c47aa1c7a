"""The shape of the code: bounds on modules and functions, and documentation of public names."""

from __future__ import annotations

import ast
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE_LINES_MAX = 450
FUNCTION_LINES_MAX = 60
FUNCTION_LINES_MEDIAN_MAX = 8
FUNCTION_LINES_P90_MAX = 20
NOQA_MAX = 40

type_of_function = (ast.FunctionDef, ast.AsyncFunctionDef)


def sources() -> list[Path]:
    listed = subprocess.check_output(
        ["git", "ls-files", "service/src", "operator/src", "clients/python/src", "tools"], cwd=ROOT, text=True
    )
    return [ROOT / name for name in listed.splitlines() if name.endswith(".py") and (ROOT / name).is_file()]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file, as its place and its number of lines without docstring."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, type_of_function) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                docstring = node.body[0]
                lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", lines


@pytest.fixture(scope="module")
def lengths() -> dict[str, int]:
    return {place: lines for path in sources() for place, lines in functions(path)}


def test_no_module_exceeds_its_bound() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MODULE_LINES_MAX
    }
    assert long == {}


def test_no_function_exceeds_its_bound(lengths: dict[str, int]) -> None:
    assert {place: lines for place, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}


def test_most_functions_are_short(lengths: dict[str, int]) -> None:
    values = sorted(lengths.values())
    assert statistics.median(values) <= FUNCTION_LINES_MEDIAN_MAX
    assert values[int(len(values) * 0.9)] <= FUNCTION_LINES_P90_MAX


def test_exemptions_from_the_linter_stay_few() -> None:
    """Every `noqa` in the sources; tests have exemptions of their own in pyproject.toml."""
    exemptions = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "# noqa" in line
    ]
    assert len(exemptions) <= NOQA_MAX, exemptions
