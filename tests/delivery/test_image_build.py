"""Docker builds the images, and they run unprivileged on a read-only root. Skipped without an engine or a base image.

DECKLOG_TEST_IMAGE_ARGS has additional arguments for `docker build`, such as `--build-arg BASE=…` for a local base.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

import pytest

from tests.support.images import ROOT, stages

LONGEST = 1_500.0
"""Longest build in seconds, including the download of all dependencies."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * LONGEST)]


def docker(*words: str, longest: float = 120.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=longest)


@pytest.fixture(scope="module")
def given() -> list[str]:
    """Arguments for `docker build`; skips when no image can be built."""
    if os.environ.get("DECKLOG_TEST_DOCKER") == "0" or not shutil.which("docker") or docker("info").returncode:
        pytest.skip("no Docker engine answers")
    words = shlex.split(os.environ.get("DECKLOG_TEST_IMAGE_ARGS", ""))
    bases = [word.removeprefix("BASE=") for word in words if word.startswith("BASE=")]
    base = bases[0] if bases else stages(ROOT / "service/Dockerfile")[-1].base
    if docker("image", "inspect", base).returncode and docker("pull", base, longest=LONGEST).returncode:
        pytest.skip(f"the base {base} is not there and cannot be pulled")
    return words


@pytest.mark.parametrize(
    ("folder", "module", "verb", "missed"),
    [
        ("service", "decklog.otel.traces", "worker", "DECKLOG_DATABASE_DSN is not set"),
        ("operator", "decklog_operator", "run", "No Kubernetes API is configured"),
    ],
)
def test_image_builds_and_runs_unprivileged_on_a_read_only_root(
    given: list[str], folder: str, module: str, verb: str, missed: str
) -> None:
    name = f"decklog-test-{folder}"
    built = docker("build", *given, "-f", f"{folder}/Dockerfile", "-t", name, ".", longest=LONGEST)
    assert built.returncode == 0, built.stdout[-3_000:] + built.stderr[-3_000:]
    confined = ["run", "--rm", "--read-only", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    told = docker(*confined, name, "--help")
    assert told.returncode == 0, told.stderr
    assert verb in told.stdout
    # Late imports work as well, and the user cannot write to the programs.
    probe = f"import os, decklog.assembly.api, decklog.assembly.worker, decklog.assembly.control_plane, decklog.opensearch.client, decklog.sqs.queue, {module}; print(os.getuid(), os.access('/opt/decklog', os.W_OK))"
    shown = docker(*confined, "--entrypoint", "/opt/decklog/bin/python", name, "-c", probe)
    assert shown.stdout == "65532 False\n", shown.stderr
    refused = docker(*confined, name, verb)
    assert refused.returncode == 2
    assert missed in refused.stderr
