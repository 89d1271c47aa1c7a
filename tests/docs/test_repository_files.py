"""Files for contributors: hooks, workflow, issue forms and the tables of CONTRIBUTING.md."""

from __future__ import annotations

import re

import yaml

from tests.docs.pages import ROOT


def test_hooks_are_local_and_use_installed_tools() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for hook in hooks:
        program, word = hook["entry"].split()[:2]
        assert hook["language"] == "system"
        assert word in targets if program == "make" else (ROOT / program).exists()


def test_workflow_runs_the_same_script_as_every_other_ci() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_issue_forms_have_unique_ids() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yaml"):
        form = yaml.safe_load(path.read_text())
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids)
        assert {"name", "description"} <= form.keys()


def test_contributing_lists_the_minutes_of_every_test_folder() -> None:
    listed = re.findall(r"^\| `(tests/\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    folders = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/test_*.py")}
    assert set(listed) == folders
