"""The board's own unit tests, and the sources that are generated for it. `make lint` checks types and style."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from decklog.domain.search.fields import FIELDS
from tests.support.board import AXE, ROOT, missing
from tools.board import fields_module

BOARD = ROOT / "board"


@pytest.fixture
def npm() -> list[str]:
    """The words that run npm with the Node of the lock."""
    program = Path(sys.executable).parent / "npm"
    if not AXE.exists() or not program.exists():
        missing("the packages of the board are not installed: `make test` installs them")
    return [str(program)]


def test_unit_tests_of_the_board_pass(npm: list[str]) -> None:
    environment = {**os.environ, "PATH": f"{Path(npm[0]).parent}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    ran = subprocess.run(
        [*npm, "test", "--silent"], cwd=BOARD, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4_000:]
    assert re.search(r"Tests\s+[1-9]\d* passed", ran.stdout), ran.stdout


def test_catalogue_of_the_board_has_every_field_of_the_service() -> None:
    """`test_generated_files_are_fresh` compares the file; here it has a row for each field, with its choices."""
    text = fields_module()
    assert re.findall(r'\{ parameter: "(\w+)"', text) == [field.parameter for field in FIELDS]
    for field in FIELDS:
        [row] = [line for line in text.splitlines() if f'{{ parameter: "{field.parameter}",' in line]
        assert all(f'"{choice}"' in row for choice in field.choices)
