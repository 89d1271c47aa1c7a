"""Compare the locks with a list of known vulnerabilities that is given as files, so the check needs no network.

The list is a zip or a folder of advisories in the OSV format (https://ossf.github.io/osv-schema/), one JSON file each, as OSV
publishes them for PyPI and npm.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

Json = dict[str, Any]


class Package(NamedTuple):
    """A locked version of a package, in an ecosystem of OSV: `PyPI` or `npm`."""

    ecosystem: str
    name: str
    version: str


def locked(text: str) -> dict[str, Version]:
    """Return the distributions of a lock with their versions."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, flags=re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


def packages_of(lock: Path) -> set[Package]:
    """Return the packages of a lock of pip, or of npm where its name ends with `.json`."""
    text = lock.read_text(encoding="utf-8")
    if lock.suffix != ".json":
        return {Package("PyPI", name, str(version)) for name, version in locked(text).items()}
    listed: Json = json.loads(text)["packages"]
    return {Package("npm", name.rpartition("node_modules/")[2], each["version"]) for name, each in listed.items() if name}


def advisories(place: Path) -> Iterator[Json]:
    """Yield the advisories of a zip or a folder that are not withdrawn."""
    if place.is_dir():
        texts = (file.read_bytes() for file in sorted(place.rglob("*.json")))
    else:
        archive = zipfile.ZipFile(place)
        texts = (archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".json"))
    for text in texts:
        advisory: Json = json.loads(text)
        if "withdrawn" not in advisory:
            yield advisory


def affects(affected: Json, version: str) -> bool:
    """Return whether one `affected` entry names this version, by its list or by a range.

    A version that cannot be compared as one of Python counts as affected: a person then decides.
    """
    if version in affected.get("versions", ()):
        return True
    ranges = [each for each in affected.get("ranges", ()) if each.get("type") in ("ECOSYSTEM", "SEMVER")]
    return any(_within(each["events"], version) for each in ranges)


def _within(events: Sequence[Json], version: str) -> bool:
    inside = False
    try:
        locked_version = Version(version)
        for event in events:
            if "introduced" in event:
                inside = inside or event["introduced"] == "0" or locked_version >= Version(event["introduced"])
            elif "fixed" in event:
                inside = inside and locked_version < Version(event["fixed"])
            elif "last_affected" in event:
                inside = inside and locked_version <= Version(event["last_affected"])
    except InvalidVersion:
        return True
    return inside


def findings(packages: Iterable[Package], listed: Iterator[Json]) -> tuple[int, list[str]]:
    """Return how many advisories were read, and a line for each that affects a locked version."""
    by_name: dict[tuple[str, str], list[str]] = {}
    for package in packages:
        by_name.setdefault((package.ecosystem, package.name), []).append(package.version)
    read, lines = 0, set()
    for advisory in listed:
        read += 1
        for affected in advisory.get("affected", ()):
            named = affected.get("package", {})
            ecosystem, name = named.get("ecosystem", ""), named.get("name", "")
            name = canonicalize_name(name) if ecosystem == "PyPI" else name
            for version in by_name.get((ecosystem, name), ()):
                if affects(affected, version):
                    lines.add(f"{name} {version}: {advisory['id']} {advisory.get('summary', '')}".rstrip())
    return read, sorted(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is affected. Exit codes: 0 nothing, 1 something, 2 a list that cannot be read or is empty."""
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description="Compare locks with OSV advisories.")
    parser.add_argument("advisories", type=Path, help="a zip or a folder of advisories in the OSV format")
    parser.add_argument("locks", type=Path, nargs="+", help="locks of pip, and of npm with names that end with .json")
    chosen = parser.parse_args(arguments)
    packages = set().union(*(packages_of(lock) for lock in chosen.locks))
    try:
        read, lines = findings(packages, advisories(chosen.advisories))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        print(f"audit: {chosen.advisories} cannot be read: {error}", file=sys.stderr)
        sys.exit(2)
    if not read:
        print(f"audit: {chosen.advisories} has no advisories, so nothing was compared.", file=sys.stderr)
        sys.exit(2)
    print("\n".join([*lines, f"{len(packages)} packages, {read} advisories, {len(lines)} found"]))
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
