"""Manifests as `decklog plan`, `decklog provision` and `decklog dev` read them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.files.manifests import read_manifests

TENANT = "apiVersion: decklog.dev/v1\nkind: Tenant\nmetadata: {name: %s}\nspec: {retention: {days: 30}}\n"
HELD = """apiVersion: decklog.dev/v1
kind: Tenant
metadata: {name: held}
spec:
  retention: {days: 365}
  legalHold: true
  deletionPolicy: Retain
  # pasted from another file
  retention: {days: 1}
  legalHold: false
"""


def written(folder: Path, text: str, name: str = "tenant.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def refusal(file: Path) -> str:
    with pytest.raises(DecklogError) as error:
        read_manifests([file])
    assert error.value.code is Code.INVALID_TENANT
    return error.value.detail


def test_manifest_with_a_key_twice_is_refused_with_file_line_and_key(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, HELD, "held.yaml")) == (
        "held.yaml: Line 9: the key 'retention' occurs twice in spec, first in line 5. "
        "Line 10: the key 'legalHold' occurs twice in spec, first in line 6."
    )


def test_plan_refuses_a_manifest_with_a_key_twice(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "decklog", "plan", "--offline", "-f", str(written(tmp_path, HELD, "held.yaml"))]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert "held.yaml: Line 9: the key 'retention'" in run.stderr


@pytest.mark.parametrize(
    "text",
    [
        "metadata: {name: a, name: b}\n" + TENANT.partition("metadata")[0],
        TENANT % "a" + '"spec": {}\n',
        TENANT % "a" + "status:\n  conditions:\n  - {type: x, type: y}\n",
        TENANT % "a" + "---\n" + TENANT.replace("days: 30", "days: 30, days: 1") % "b",
        '{"apiVersion": "decklog.dev/v1", "kind": "Tenant", "metadata": {"name": "a"},\n "spec": {"retention": {"days": 1, "days": 2}}}',
    ],
)
def test_key_twice_is_refused_wherever_it_stands(tmp_path: Path, text: str) -> None:
    assert "occurs twice" in refusal(written(tmp_path, text))


def test_merge_keys_and_aliases_are_not_repetitions(tmp_path: Path) -> None:
    text = "x: &x {days: 1, searchDays: 1}\napiVersion: decklog.dev/v1\nkind: Tenant\nmetadata: {name: a}\nspec: {retention: {<<: *x, days: 30}}\n"
    assert read_manifests([written(tmp_path, text)])["a"].spec.retention.days == 30


def test_key_twice_in_another_kind_is_skipped_with_it(tmp_path: Path) -> None:
    text = "kind: ConfigMap\ndata: {a: x, a: y}\n---\n" + TENANT % "acme"
    assert list(read_manifests([written(tmp_path, text)])) == ["acme"]


@pytest.mark.parametrize("kind", ["List", "TenantList"])
def test_list_of_kubectl_is_read(tmp_path: Path, kind: str) -> None:
    items = "".join("- " + (TENANT % name).replace("\n", "\n  ").rstrip(" ") for name in ("b", "a"))
    text = f"apiVersion: v1\nkind: {kind}\nitems:\n{items}- {{kind: ConfigMap}}\n"
    assert list(read_manifests([written(tmp_path, text)])) == ["a", "b"]


def test_byte_order_mark_in_front_of_a_manifest_is_skipped(tmp_path: Path) -> None:
    assert list(read_manifests([written(tmp_path, "\ufeff" + TENANT % "acme")])) == ["acme"]


def test_plan_reads_standard_input() -> None:
    assert list(read_manifests([Path("-")], stdin=io.BytesIO((TENANT % "acme").encode()))) == ["acme"]
    words = [sys.executable, "-m", "decklog", "plan", "--offline", "-f", "-"]
    run = subprocess.run(words, input=TENANT % "acme", capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert "acme: " in run.stdout


@pytest.mark.parametrize(("name", "shown"), [("no", "false"), ("on", "true"), ("5", "5"), ("[a]", "no text")])
def test_name_that_yaml_reads_as_another_value_says_so(tmp_path: Path, name: str, shown: str) -> None:
    assert refusal(written(tmp_path, TENANT % name)).startswith(f"tenant.yaml: metadata.name is {shown}, and must be a text.")


def test_name_that_is_missing_is_told_as_missing(tmp_path: Path) -> None:
    assert "has no metadata.name" in refusal(written(tmp_path, TENANT.replace("name: %s", "")))
