"""Ruby and PHP: those of the machine, else those of its distribution, unpacked into the cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.backends.cache import Building, Recipe, UnavailableError, provision
from tests.backends.packages import command, from_debian

PACKAGES = (
    "libargon2-1", "libedit2", "libffi8", "libgmp10", "libruby3.1", "libsodium23", "libxml2", "libyaml-0-2", "php8.2-cli",
    "php8.2-common", "ruby3.1", "rubygems-integration",
)  # fmt: skip
"""Of Debian 12. Another distribution has other versions, and is asked for its own programs only."""


def _unpack(building: Building) -> None:
    from_debian(building, PACKAGES, building.folder)


def program(name: str) -> tuple[str, Mapping[str, str]]:
    """Return the path of `ruby` or `php`, and the variables it needs. Raises UnavailableError where there is none."""
    try:
        return command(name), {}
    except UnavailableError:
        if sys.platform != "linux" or 'VERSION_ID="12"' not in Path("/etc/os-release").read_text():
            raise
    root = provision(Recipe("senders-languages", PACKAGES, _unpack)) / "usr"
    [libraries] = (root / "lib").glob("*-linux-gnu")
    ruby = root / "lib/ruby"
    paths = [ruby / "3.1.0", *libraries.glob("ruby/3.1.0"), ruby / "vendor_ruby"]
    found = root / "bin" / {"ruby": "ruby3.1", "php": "php8.2"}[name]
    return str(found), {"LD_LIBRARY_PATH": str(libraries), "RUBYLIB": os.pathsep.join(map(str, paths))}
