"""Compare the lock with a list of known vulnerabilities that is given as files, so the check needs no network.

The list is a zip or a folder of advisories in the OSV format (https://ossf.github.io/osv-schema/), one JSON file each, as OSV
publishes them for PyPI.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

Json = dict[str, Any]


def locked(text: str) -> dict[str, Version]:
    """Return the distributions of a lock with their versions."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, flags=re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


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


def affects(affected: Json, version: Version) -> bool:
    """Return whether one `affected` entry names this version, by its list or by a range.

    A version that cannot be read as one of Python counts as affected: a person then decides.
    """
    if str(version) in affected.get("versions", ()):
        return True
    ranges = [each for each in affected.get("ranges", ()) if each.get("type") in ("ECOSYSTEM", "SEMVER")]
    return any(_within(each["events"], version) for each in ranges)


def _within(events: Sequence[Json], version: Version) -> bool:
    inside = False
    try:
        for event in events:
            if "introduced" in event:
                inside = inside or event["introduced"] == "0" or version >= Version(event["introduced"])
            elif "fixed" in event:
                inside = inside and version < Version(event["fixed"])
            elif "last_affected" in event:
                inside = inside and version <= Version(event["last_affected"])
    except InvalidVersion:
        return True
    return inside


def findings(packages: dict[str, Version], listed: Iterator[Json]) -> tuple[int, list[str]]:
    """Return how many advisories were read, and a line for each that affects a locked version."""
    read, lines = 0, []
    for advisory in listed:
        read += 1
        for affected in advisory.get("affected", ()):
            package = affected.get("package", {})
            name = canonicalize_name(package.get("name", ""))
            if package.get("ecosystem") == "PyPI" and name in packages and affects(affected, packages[name]):
                lines.append(f"{name} {packages[name]}: {advisory['id']} {advisory.get('summary', '')}".rstrip())
                break
    return read, sorted(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is affected. Exit codes: 0 nothing, 1 something, 2 a list that cannot be read or is empty."""
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description="Compare a lock with OSV advisories.")
    parser.add_argument("lock", type=Path)
    parser.add_argument("advisories", type=Path, help="a zip or a folder of advisories in the OSV format")
    chosen = parser.parse_args(arguments)
    packages = locked(chosen.lock.read_text(encoding="utf-8"))
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
