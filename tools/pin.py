"""Fill .env with the digests that the registries give for the tags of our images, so that a tag that moves changes nothing here.

The tags stay where they are used; .env holds digests only. Docker asks the registries, with its own credentials.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_COMPOSE = ("docker-compose.yml", "tests/backends/compose.yaml")
_NAMED = re.compile(r"(?:image|BASE): (\S+?:[\w.-]+)\$\{(\w+)_DIGEST:-\}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def images(root: Path = ROOT) -> dict[str, str]:
    """Return the images with a tag that the compose files name, by the variable of their digest without `_DIGEST`."""
    return {variable: image for file in _COMPOSE for image, variable in _NAMED.findall((root / file).read_text(encoding="utf-8"))}


def pinned(text: str, digests: dict[str, str]) -> str:
    """Return the text of .env with these digests. Raises KeyError for a variable without one."""
    return re.sub(r"^(\w+)_DIGEST=.*$", lambda match: f"{match[1]}_DIGEST=@{digests[match[1]]}", text, flags=re.MULTILINE)


def _digest(image: str) -> str:
    """Ask the image's registry for the digest of its tag. Raises SystemExit with what Docker said."""
    ran = subprocess.run(
        ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    found = ran.stdout.strip()
    if ran.returncode or not _DIGEST.fullmatch(found):
        sys.exit(f"pin: the registry gave no digest for {image}, and .env is as it was: {(ran.stderr or found).strip()[:500]}")
    return found


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> None:
    """Look up every digest, then write .env; `--check` compares only, and fails where a tag has moved."""
    parser = argparse.ArgumentParser(prog="python -m tools.pin", description="Fill .env with the digests of the images.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where .env differs from the registries")
    checking = parser.parse_args(arguments).check
    digests: dict[str, str] = {}
    for variable, image in images(root).items():
        digests[variable] = _digest(image)
        print(f"{image}@{digests[variable]}")
    file = root / ".env"
    before = file.read_text(encoding="utf-8")
    after = pinned(before, digests)
    if checking:
        sys.exit("pin: .env differs from the registries. Read what changed, then run `make pin`." if before != after else 0)
    file.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
