"""Mark executed lines: Python imports this module at its start where PYTHONPATH names this folder.

A trace function halves the speed of Python 3.11, for all code. Here each module of ours is compiled with a store before every
statement, into the byte of its line. All processes of a run share these bytes as one mapped file, so a killed process loses none
and nothing is combined later. Compiled modules are kept. `python -m tests.lines` begins a run, and `reporting.py` ends it.
"""

from __future__ import annotations

import ast
import builtins
import json
import marshal
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".lines"
SOURCES = ("service/src", "operator/src", "clients/python/src")
PACKAGES = ("decklog", "decklog_operator", "decklog_client")
HITS = "__hits__"

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_DECLARATIONS = (ast.Global, ast.Nonlocal)


class Hits:
    """The bytes of a run, one for each line of each file."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[int, int, int]] = json.loads((FOLDER / "places.json").read_bytes())
        with (FOLDER / "hits").open("r+b") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0))

    def of(self, path: str) -> memoryview:
        """Return the bytes of a file, from line 0 on."""
        start, end, _ = self._places[path]
        return self._bytes[start:end]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def counts(self, path: str) -> bool:
        """Return whether this file has bytes, and is as long as it was when the run began."""
        return path in self._places and os.stat(path).st_size == self._places[path][2]


class Loader(SourceFileLoader):
    """Loads a module with marks, from the folder of the run if it was compiled since its last change."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the compiled module; `runpy` asks for it too."""
        stat = os.stat(self.path)
        stamp = f"{sys.implementation.cache_tag} {stat.st_mtime_ns} {stat.st_size}\n".encode()
        kept = FOLDER / f"{fullname}.code"
        if kept.exists() and (data := kept.read_bytes()).startswith(stamp):
            kept_code: CodeType = marshal.loads(data[len(stamp) :])  # noqa: S302 - written below
            return kept_code
        code: CodeType = compile(marked(ast.parse(self.get_data(self.path)), self.path), self.path, "exec", dont_inherit=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(stamp + marshal.dumps(code))
        unfinished.replace(kept)
        return code


class Finder:
    """Finds the modules of our packages that the run counts."""

    def __init__(self, hits: Hits) -> None:
        self._hits = hits

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module as Python does, and exchange its loader."""
        if name.partition(".")[0] not in PACKAGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None and self._hits.counts(spec.origin):
            spec.loader = Loader(name, spec.origin)
        return spec


def marked(tree: ast.Module, path: str) -> ast.Module:
    """Return the tree with a mark before each statement, and the bytes of its file as the first name of the module."""
    for node in list(ast.walk(tree)):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                setattr(node, field, list(_marked_block(node, field, block, path)))
    return ast.fix_missing_locations(tree)


def _marked_block(node: ast.AST, field: str, block: list[ast.stmt], path: str) -> Iterator[ast.stmt]:
    """The block with its marks, after what must stand first; that of an exception or of a case marks their line too."""
    first = _prologue(node, block) if field == "body" and isinstance(node, _DOCUMENTED) else 0
    yield from block[:first]
    if isinstance(node, ast.Module):
        yield from ast.parse(f"{HITS} = __hits_of__({path!r})").body
        yield from (_mark(statement.lineno) for statement in block[:first])
    elif isinstance(node, ast.ExceptHandler):
        yield _mark(node.lineno)
    elif isinstance(node, ast.match_case):
        yield _mark(node.pattern.lineno)
    for statement in block[first:]:
        yield from map(_mark, _lines(statement))
        yield statement


def _prologue(node: ast.AST, block: list[ast.stmt]) -> int:
    """Return how many statements must stand first: a docstring, and imports from the future."""
    count = int(ast.get_docstring(node, clean=False) is not None)  # type: ignore[arg-type]
    while count < len(block) and isinstance(found := block[count], ast.ImportFrom) and found.module == "__future__":
        count += 1
    return count


def _lines(statement: ast.stmt) -> list[int]:
    if isinstance(statement, _DECLARATIONS):
        return []
    return [*(node.lineno for node in getattr(statement, "decorator_list", ())), statement.lineno]


def _mark(line: int) -> ast.stmt:
    mark = ast.Assign([ast.Subscript(ast.Name(HITS, ast.Load()), ast.Constant(line), ast.Store())], ast.Constant(1))
    mark.lineno = mark.end_lineno = line
    return mark


def install() -> None:
    """Count from now on, unless no run began or its file belongs to another user."""
    try:
        hits = Hits()
    except OSError:
        return
    builtins.__hits_of__ = hits.of  # type: ignore[attr-defined]
    sys.meta_path.insert(0, Finder(hits))


if __name__ == "sitecustomize":  # Python's start, and not an import for the report
    install()
