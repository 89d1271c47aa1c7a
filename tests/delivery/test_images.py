"""The images: what goes into them is there and no more, and what they start runs from it as somebody who may not write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.images import ROOT, context, copy, stages

IMAGES = {"service": ("decklog", "service/Dockerfile"), "operator": ("decklog_operator", "operator/Dockerfile")}


def copied(dockerfile: str, target: Path) -> Path:
    """The tree that the COPY lines of the first stage make of the context."""
    for words in stages(ROOT / dockerfile)[0].of("COPY"):
        copy(words, target)
    return target


def test_the_context_has_sources_and_locks_alone() -> None:
    inside = context()
    assert {"LICENSE", "requirements.lock", "service/pyproject.toml", "operator/pyproject.toml"} <= inside
    rest = {name for name in inside if not re.match(r"(service|operator)/src/", name)}
    assert rest == {"LICENSE", "requirements.lock", "service/pyproject.toml", "operator/pyproject.toml"}
    assert not [name for name in inside if "__pycache__" in name or ".egg-info" in name or name.endswith(".pyc")]


@pytest.mark.parametrize("image", IMAGES)
def test_what_the_image_starts_runs_from_what_is_copied(image: str, tmp_path: Path) -> None:
    module, dockerfile = IMAGES[image]
    tree = copied(dockerfile, tmp_path)
    last = stages(ROOT / dockerfile)[-1]
    [entry] = last.of("ENTRYPOINT")
    assert entry == ["/opt/decklog/bin/python", "-m", module]
    settings = dict(word.split("=", 1) for words in last.of("ENV") for word in words)
    [default] = last.of("CMD")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree) + settings["PYTHONPATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    # Without site's .pth files the editable sources of this folder are not found: only what was copied is.
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    environment["PYTHONPATH"] += os.pathsep + libraries
    told = subprocess.run(
        [sys.executable, "-S", "-m", *entry[2:], "--help"], env=environment, cwd=tree, capture_output=True, text=True, check=True
    )
    assert default[0] in told.stdout
    shown = subprocess.run(
        [sys.executable, "-S", "-c", f"import {module}; print({module}.__file__)"],
        env=environment, cwd=tree, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.startswith(str(tree))
    for data in ("sql/cell.sql", "sql/relations.sql"):
        assert (tree / "opt/decklog/src/decklog/timescale" / data).is_file()


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_runs_as_a_number_that_is_not_root_and_starts_no_shell(image: str) -> None:
    last = stages(ROOT / IMAGES[image][1])[-1]
    assert last.of("USER") == [["65532:65532"]]
    assert last.of("RUN") == []
    copies = last.of("COPY")
    assert copies == [["--from=build", "/opt/decklog", "/opt/decklog"]]
    labels = dict(word.split("=", 1) for words in last.of("LABEL") for word in words)
    assert {"title", "description", "licenses", "version", "revision"} <= {
        name.removeprefix("org.opencontainers.image.") for name in labels
    }


@pytest.mark.parametrize("image", IMAGES)
def test_each_dependency_comes_from_the_lock_with_its_hash_and_each_base_is_an_argument(image: str) -> None:
    build, last = stages(ROOT / IMAGES[image][1])
    assert build.base == last.base == "python:3.11-slim-bookworm"
    installs = [text for [text] in build.of("RUN") if "uv pip install" in text]
    assert len(installs) == 1
    assert "--require-hashes --constraint requirements.lock" in installs[0]
    [version] = [words[0] for words in build.of("ARG") if words[0].startswith("UV_VERSION=")]
    assert re.fullmatch(r"UV_VERSION=\d+\.\d+\.\d+", version)
    extras = set(re.findall(r"--extra (\w+)", installs[0]))
    known = tomllib.loads((ROOT / "service/pyproject.toml").read_text())["project"]["optional-dependencies"]
    # Workers archive and requests are traced; the operator does neither.
    assert extras == known.keys() - {"all", "embedded", *(["archive", "tracing"] if image == "operator" else [])}


def test_the_chart_names_the_images_that_are_built() -> None:
    values = (ROOT / "charts/decklog/values.yaml").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for repository, folder in (("decklog", "service"), ("decklog-operator", "operator")):
        assert f"repository: {repository}\n" in values
        assert f"-f {folder}/Dockerfile -t {repository}:$(VERSION) ." in makefile
