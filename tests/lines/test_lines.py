"""Marks of executed lines stand for the statements that coverage reports, and change nothing else."""

from __future__ import annotations

import ast
import builtins
from collections import defaultdict
from typing import Any

import pytest
from coverage.parser import PythonParser

from tests.lines.sitecustomize import ROOT, marked

EVERY_KIND = '''
"""A docstring stays first."""
from __future__ import annotations
import functools

_count = 0

class Told:
    """A class with a value."""
    value: int = 1

@functools.cache
def answer(
    question: object,
) -> str:
    """A function that chooses."""
    global _count
    _count += 1
    match question:
        case int() if question > 2:
            return "large"
        case int():
            return "small"
        case _:
            pass
    try:
        with open(str(question)) as file:
            return file.read()
    except ValueError:
        return "odd"
    except FileNotFoundError:
        found = [
            each
            for each in "ab"
        ]
    else:
        found = []
    finally:
        found.reverse()
    for each in found:
        if each == "c":
            continue
        elif each == "b":
            break
    else:
        return "never"
    while False:
        _count += 1
    return "".join(found)
'''


def run(text: str) -> tuple[set[int], dict[str, Any]]:
    """Run a marked module, and return the lines with marks that ran and its names."""
    hits: dict[int, int] = defaultdict(int)
    names: dict[str, Any] = {"__builtins__": {**vars(builtins), "__hits_of__": lambda _: hits}, "__name__": "told"}
    exec(compile(marked(ast.parse(text), "told.py"), "told.py", "exec", dont_inherit=True), names)  # noqa: S102
    answers = [names["answer"](question) for question in (1, 3, "/no/such/file")]
    assert answers == ["small", "large", "ba"]
    return set(hits), names


def statements(text: str) -> PythonParser:
    parser = PythonParser(text=text)
    parser.parse_source()
    return parser


NOT_RUN = ("return file.read()", "except ValueError:", 'return "odd"', "found = []", "continue", 'return "never"')


def test_marks_are_the_executed_statements() -> None:
    ran, names = run(EVERY_KIND)
    parser = statements(EVERY_KIND)
    not_run = {number for number, line in enumerate(EVERY_KIND.splitlines(), 1) if line.strip() in NOT_RUN}
    assert parser.first_lines(ran) & parser.statements == parser.statements - not_run - parser.first_lines(not_run)
    assert names["__doc__"] == "A docstring stays first."
    assert names["answer"].__doc__ == "A function that chooses."
    assert names["Told"].__annotations__ == {"value": "int"}


@pytest.mark.parametrize("name", ["service/src/decklog/domain/search/query.py", "service/src/decklog/services/records/ingest.py"])
def test_every_statement_of_a_module_has_a_mark(name: str) -> None:
    text = (ROOT / name).read_text()
    tree = marked(ast.parse(text), name)
    marks = {ast.unparse(node.targets[0]) for node in ast.walk(tree) if isinstance(node, ast.Assign)}
    parser = statements(text)
    lines = parser.first_lines({int(mark[len("__hits__[") : -1]) for mark in marks if mark.startswith("__hits__[")})
    assert parser.statements <= lines
