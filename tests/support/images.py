"""Read Dockerfiles and their build context as Docker does, as far as this repository uses it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    """One `FROM` with its instructions. Arguments are words, or one text for the shell."""

    base: str
    name: str
    instructions: list[tuple[str, list[str]]] = field(default_factory=list)

    def of(self, instruction: str) -> list[list[str]]:
        return [words for name, words in self.instructions if name == instruction]

    def copied(self) -> list[list[str]]:
        """Return the words of each COPY from the context."""
        return [words for words in self.of("COPY") if not words[0].startswith("--from=")]


def stages(dockerfile: Path) -> list[Stage]:
    """Return the stages of a Dockerfile. `ARG`s before the first `FROM` are substituted where they are used."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, rest = line.split(None, 1)
        if name == "FROM":
            words = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], rest).split()
            found.append(Stage(words[0], words[2] if len(words) == 3 else ""))
        elif not found:
            key, _, value = rest.partition("=")
            arguments[key] = value
        else:
            form = json.loads(rest) if rest.startswith("[") else [rest] if name == "RUN" else shlex.split(rest)
            found[-1].instructions.append((name, form))
    return found


def built(dockerfile: Path) -> Stage:
    """Return the stage whose result becomes the image."""
    [stage] = [stage for stage in stages(dockerfile) if stage.name == "build"]
    return stage


def context() -> set[str]:
    """Return the files that `.dockerignore` admits to a build, as paths from the root.

    The last matching line decides. A line matches a path when it matches the path or a folder above it.
    """
    rules = []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            kept = line.startswith("!")
            rules.append((kept, re.compile(_pattern(line.removeprefix("!").strip("/")) + r"(?:/.*)?")))
    found = set()
    for top in (
        "LICENSE",
        "README.md",
        "requirements.lock",
        "requirements-uv.lock",
        "board",
        "service",
        "operator",
        "tests",
        "manifests",
        "charts",
        "tools",
        ".git",
    ):
        for path in [ROOT / top] if (ROOT / top).is_file() else _files(ROOT / top):
            name = str(path.relative_to(ROOT))
            verdicts = [kept for kept, rule in rules if rule.fullmatch(name)]
            if not verdicts or verdicts[-1]:
                found.add(name)
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, without the thousands of npm packages, which a test knows to be ignored."""
    for where, folders, names in os.walk(folder):
        if "node_modules" in folders:
            folders.remove("node_modules")
        yield from (Path(where, name) for name in names)


def copy(words: list[str], root: Path, folder: str = "/") -> None:
    """Perform a COPY from the context into the file system at `root`; `folder` is the WORKDIR. Fail when nothing is copied."""
    inside = context()
    *sources, place = words
    target = root / Path(folder, place).relative_to("/")
    for source in sources:
        names = [name for name in inside if name == source or name.startswith(f"{source}/")]
        assert names, f"{source} is not in the context"
        for name in names:
            relative = name.removeprefix(f"{source}/") if (ROOT / source).is_dir() else Path(source).name
            to = target / relative if place.endswith("/") or (ROOT / source).is_dir() else target
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to)


def source_in_checkout(dockerfile: Path, path: str) -> Path:
    """Return the file or folder of the checkout that the stage `build` copies to this absolute path of the image.

    Raises LookupError when no COPY line does.
    """
    for *sources, place in built(dockerfile).copied():
        for source in sources:
            target = Path(place, Path(source).name) if (ROOT / source).is_file() and place.endswith("/") else Path(place)
            if Path(path).is_relative_to(target):
                return ROOT / source / Path(path).relative_to(target)
    raise LookupError(f"{dockerfile.name} copies nothing to {path}")


def _pattern(line: str) -> str:
    parts = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", line)
    words = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return "".join(words.get(part, part if part.startswith("[") else re.escape(part)) for part in parts)
