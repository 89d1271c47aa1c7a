"""The manifests of the repository equal the output of the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.backends import KubernetesServer
from tests.support.operators import ROOT


@pytest.mark.parametrize(("command", "file"), [("crd", "crd.yaml"), ("manifests", "install.yaml")])
def test_command_prints_the_manifests_of_the_repository(command: str, file: str) -> None:
    printed = subprocess.run([sys.executable, "-m", "decklog_operator", command], capture_output=True, text=True, check=True)
    assert printed.stdout == (ROOT / "manifests" / file).read_text()


def test_run_exits_with_2_and_one_line_on_an_invalid_setting() -> None:
    environment = {"PATH": "/usr/bin:/bin", "DECKLOG_OPERATOR_RESYNC": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "decklog_operator", "run"], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert run.stderr == "decklog-operator: There is no setting DECKLOG_OPERATOR_RESYNC. See docs/reference/settings.md.\n"


def test_api_server_accepts_every_object_of_the_installation(kubernetes_server: KubernetesServer, least_rights: Path) -> None:
    objects = list(yaml.safe_load_all((ROOT / "manifests/install.yaml").read_text()))
    deployment = next(each for each in objects if each["kind"] == "Deployment")
    words = ["apply", "--dry-run=server", "--server-side", "--validate=strict", "-f", "-"]
    assert "deployment.apps/decklog-operator" in kubernetes_server.kubectl(*words, stdin=yaml.safe_dump(deployment))
    pod = deployment["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
