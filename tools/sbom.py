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


def _run(program: str, words: Sequence[str | Path], given: str) -> str:
    """Run a program over a text and return its output. Ends this process with the program's own words where it fails."""
    ran = subprocess.run([program, *words], cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"sbom: {Path(program).name} failed: {ran.stderr.strip()[-500:]}")
    return ran.stdout


def resolved(image: str) -> str:
    """Return the part of the lock that an image installs, with hashes: its Dockerfile says which projects with which extras."""
    [install] = re.findall(r"uv pip install [^&]*--constraint [^&]+", (ROOT / _IMAGES[image]).read_text(encoding="utf-8"))
    extras = [f"--extra={extra}" for extra in re.findall(r"--extra (\S+)", install)]
    words: list[str | Path] = [
        *("pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header"),
        *("--no-annotate", "--no-emit-index-url", "--no-sources", "--constraint", _LOCK, "--no-emit-package", "decklog"),
        *("--excludes", "-", *extras, *re.findall(r"--requirement (\S+)", install)),
    ]
    return _run(str(ROOT / ".uv/bin/uv"), words, "decklog\n")


def document(requirements: str, project: str) -> str:
    """Return the CycloneDX document of requirements, as JSON. Equal requirements give equal bytes."""
    words: list[str | Path] = ["requirements", "-", "--pyproject", ROOT / project / "pyproject.toml", "--output-reproducible"]
    return _run(str(_PROGRAMS / "cyclonedx-py"), [*words, "--output-format", "JSON", "--no-validate"], requirements)


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
