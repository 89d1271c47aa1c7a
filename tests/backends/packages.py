"""Download the inputs of recipes from package registries, with the configured clients of the machine.

This module must not name the address of a registry: apt, pip, uv, mvn and go are configured with theirs. On Debian or Ubuntu,
root installs a missing client from the system's packages; otherwise the error names the missing program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.backends.cache import Building, UnavailableError, cache_folder, locked

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MAVEN_DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


def command(name: str) -> str:
    """Return the path of a command. Raises `UnavailableError` if it is not installed."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/go/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"])
    if found := shutil.which(name, path=places):
        return found
    raise UnavailableError(f"`{name}` is not installed")


def obtainable(name: str) -> None:
    """Raise `UnavailableError` unless `name` is installed or `command_or_package` can install it."""
    try:
        command(name)
    except UnavailableError:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise


def command_or_package(building: Building, name: str, package: str | None = None, also: Sequence[str] = ()) -> str:
    """Return the path of a command. Root installs it with apt-get if it is missing; `package` defaults to `name`.

    `also` are packages that are installed with it.
    """
    try:
        return command(name)
    except UnavailableError:
        obtainable(name)
    with _alone("apt"):
        _install(building, package or name, *also)
    return command(name)


def _install(building: Building, *packages: str) -> None:
    environ = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *packages]
    try:
        building.run(install, environ=environ)
    except UnavailableError:  # a fresh machine has no package lists yet
        building.run(["apt-get", "update", "-q"], environ=environ)
        building.run(install, environ=environ)


def from_debian(building: Building, packages: Sequence[str], into: Path) -> None:
    """Unpack packages of this machine's distribution into a folder, without dependencies.

    Nothing is installed, so no daemon starts.
    """
    downloaded = building.folder / ".packages"
    downloaded.mkdir()
    download = [command("apt-get"), "download", "-q", *packages]
    with _alone("apt"):
        try:
            building.run(download, cwd=downloaded)
        except UnavailableError:  # a fresh machine has no package lists yet
            building.run(["apt-get", "update", "-q"])
            building.run(download, cwd=downloaded)
    for package in sorted(downloaded.glob("*.deb")):
        building.run([command("dpkg-deb"), "--extract", package, into])
    shutil.rmtree(downloaded)


def from_debian_suite(building: Building, suite: str, package: str, into: Path) -> None:
    """Unpack one package of another Debian suite into a folder. Private lists leave the machine's sources unchanged."""
    own = building.folder / ".suite"
    for each in ("parts", "lists/partial", "cache/archives/partial"):
        (own / each).mkdir(parents=True)
    source = f"Types: deb\nURIs: {debian_mirror()}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"
    (own / "parts/suite.sources").write_text(source)
    options = {
        "Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": own / "parts", "Dir::State::lists": own / "lists",
        "Dir::Cache": own / "cache", "APT::Sandbox::User": "root", "Acquire::Languages": "none",
    }  # fmt: skip
    apt = [command("apt-get"), "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    building.run([*apt, "update"])
    building.run([*apt, "download", package], cwd=own)
    [archive] = own.glob("*.deb")
    building.run([command("dpkg-deb"), "--extract", archive, into])
    shutil.rmtree(own)


def from_pypi(building: Building, requirement: str, into: Path) -> None:
    """Unpack one distribution of PyPI into a folder with uv or pip, without dependencies.

    `requirement` is a line of a requirements file. If it has hashes, the installer rejects files with other hashes.
    """
    line = building.folder / ".requirement"
    line.write_text(requirement)
    wanted: list[str | Path] = ["--quiet", "--no-deps", "--target", into, "--requirement", line]
    if uv := shutil.which("uv"):
        building.run([uv, "pip", "install", "--python", sys.executable, *wanted])
        return
    tools = building.folder / ".venv"  # the project's environment need not have an installer
    building.run([sys.executable, "-m", "venv", tools])
    building.run([tools / "bin" / "pip", "install", *wanted])
    shutil.rmtree(tools)


def from_maven(building: Building, artifact: str, into: Path) -> None:
    """Copy one artifact (group:name:version:type) of the Maven repository into a folder."""
    mvn = command_or_package(building, "mvn", "maven")
    goal = f"{MAVEN_DEPENDENCY_PLUGIN}:copy"
    with _alone("mvn"):
        building.run([mvn, "-q", "-B", "-ntp", goal, f"-Dartifact={artifact}", f"-DoutputDirectory={into}"])


def from_maven_project(building: Building, pom: Path, into: Path) -> None:
    """Copy all jars that a Maven project depends on into a folder."""
    mvn = command_or_package(building, "mvn", "maven")
    goal = f"{MAVEN_DEPENDENCY_PLUGIN}:copy-dependencies"
    with _alone("mvn"):
        building.run([mvn, "-q", "-B", "-ntp", "-f", pom, goal, f"-DoutputDirectory={into}"])


def _alone(client: str) -> AbstractContextManager[int]:
    """Prevent other recipes from using this client at the same time, because two processes would corrupt its files."""
    return locked(cache_folder() / f"{client}.lock", f"another recipe that uses {client}")


def debian_mirror() -> str:
    """Return $DECKLOG_DEBIAN_MIRROR, else the Debian mirror of this host's apt. Raises `UnavailableError` if there is none."""
    if given := os.environ.get("DECKLOG_DEBIAN_MIRROR"):
        return given
    listing = subprocess.run(
        [command("apt-get"), "indextargets", "--format", "$(SITE)"], check=False, capture_output=True, text=True
    )
    for site in listing.stdout.splitlines():
        if site.rstrip("/").endswith("/debian"):
            return site
    raise UnavailableError("apt has no Debian mirror configured; set DECKLOG_DEBIAN_MIRROR to one")


def unzip(archive: Path, into: Path) -> None:
    """Unpack a zip file with its permissions, which `zipfile` alone would drop."""
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            path = Path(file.extract(member, into))
            if mode := (member.external_attr >> 16) & 0o777:
                path.chmod(mode | 0o644 if path.is_file() else mode | 0o755)
