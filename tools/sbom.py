"""Write CycloneDX documents: of everything in the lock, and of the libraries that each image installs from it.

They name Python distributions with their hashes. The operating system of an image comes from its base: `docker build --sbom=true`
lists that.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LOCK = "requirements.lock"
_IMAGES = {"decklog": "service/Dockerfile", "decklog-operator": "operator/Dockerfile"}
_PROGRAMS = Path(sys.executable).parent


def installs(dockerfile: str) -> list[str]:
    """Return the words of a Dockerfile that say what is installed: its `--requirement` and `--extra` options, in their order."""
    [line] = re.findall(r"uv pip install [^&]+", dockerfile)
    return [word for pair in re.findall(r"(--requirement|--extra) (\S+)", line) for word in pair]


def resolved(image: str) -> str:
    """Return the part of the lock that an image installs, with hashes."""
    words = installs((ROOT / _IMAGES[image]).read_text(encoding="utf-8"))
    sources = [words[at + 1] for at, word in enumerate(words) if word == "--requirement"]
    extras = [word for at, option in enumerate(words) if option == "--extra" for word in ("--extra", words[at + 1])]
    ran = subprocess.run(  # noqa: S603 - words of our own Dockerfile
        [
            *(ROOT / ".uv/bin/uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"),
            *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-sources", "--constraint", _LOCK),
            *("--no-emit-package", "decklog", "--excludes", "-"),
            *extras,
            *sources,
        ],
        cwd=ROOT,
        input="decklog\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        sys.exit(f"sbom: the libraries of {image} cannot be resolved from {_LOCK}: {ran.stderr.strip()[-500:]}")
    return ran.stdout


def document(requirements: str, project: str) -> str:
    """Return the CycloneDX document of requirements, as JSON. Equal requirements give equal bytes."""
    ran = subprocess.run(  # noqa: S603 - a program of our own lock
        [
            *(_PROGRAMS / "cyclonedx-py", "requirements", "-", "--pyproject", ROOT / project / "pyproject.toml"),
            *("--output-reproducible", "--output-format", "JSON", "--no-validate"),
        ],
        input=requirements,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        sys.exit(f"sbom: cyclonedx-py failed: {ran.stderr.strip()[-500:]}")
    return ran.stdout


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the documents to a folder and print their names."""
    parser = argparse.ArgumentParser(prog="python -m tools.sbom", description="Write CycloneDX documents of the libraries.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    made = {"lock": ((ROOT / _LOCK).read_text(encoding="utf-8"), ".")}
    made |= {image: (resolved(image), Path(dockerfile).parent.name) for image, dockerfile in _IMAGES.items()}
    for name, (requirements, project) in made.items():
        file = folder / f"{name}.cdx.json"
        file.write_text(document(requirements, project), encoding="utf-8")
        print(file)


if __name__ == "__main__":
    main()
