"""Generated files and reference pages: fresh, and complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from decklog.api.errors import STATUSES
from decklog.domain.errors import Code
from decklog.settings import variables
from decklog.tracing_settings import OPENTELEMETRY
from decklog_operator import settings as operator_settings
from tools import chart, generate, reference
from tools.markdown import table

ROOT = Path(__file__).parents[2]


def rows(page: str, name: str) -> str:
    return (ROOT / "docs/reference" / page).read_text().partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]


def test_generated_files_are_fresh() -> None:
    """In a process of its own, as `make lint` does it: other tests set up the command line and its logging."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_generator_names_and_rewrites_stale_files(tmp_path: Path) -> None:
    assert generate.write(tmp_path) == list(generate.FILES)
    (tmp_path / "manifests/crd.yaml").write_text("old")
    assert list(generate.changed(tmp_path)) == ["manifests/crd.yaml"]
    assert generate.write(tmp_path) == ["manifests/crd.yaml"]
    assert list(generate.changed(tmp_path)) == []


def test_generator_rejects_a_page_without_the_marks_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("<!-- errors -->\n")
    with pytest.raises(ValueError, match="'errors'"):
        reference.filled(tmp_path / "page.md", {"errors": reference.errors})


def test_error_page_lists_every_code_with_its_status() -> None:
    found = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", rows("errors.md", "errors"), re.MULTILINE))
    assert found == {code.value: str(STATUSES[code][0]) for code in Code}


@pytest.mark.parametrize(
    ("name", "settings"),
    [("settings", variables()), ("operator settings", operator_settings.variables()), ("tracing settings", OPENTELEMETRY)],
)
def test_settings_page_lists_every_setting_with_its_default(name: str, settings: dict[str, tuple[type, str, object]]) -> None:
    found = re.findall(r"^\| `([A-Z_]+)` \| (.*) \| `?(.*?)`? \|$", rows("settings.md", name), re.MULTILINE)
    assert [(name, value) for name, _, value in found] == [(name, str(default)) for name, (_, _, default) in settings.items()]


def test_metrics_page_lists_every_metric_that_dashboard_and_alerts_use() -> None:
    texts = [(ROOT / "charts/decklog/files" / name).read_text() for name in ("alerts.yaml", "dashboard.json")]
    used = set(re.findall(r"\bdecklog_[a-z_]+", "".join(texts)))
    listed = set(
        re.findall(r"^\| `(decklog_[a-z_]+)` \| \w+ \| \S", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE)
    )
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in used} <= listed
    assert len(listed) > 40


def test_generator_rejects_a_metric_of_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "PROCESSES", {"api": ("decklog_http_",)})
    with pytest.raises(ValueError, match="decklog_operator_leader"):
        reference.metrics("api")


def test_tenant_page_lists_every_field() -> None:
    listed = set(re.findall(r"^\| `([\w.\[\]]+)` \|", (ROOT / "docs/reference/tenant.md").read_text(), re.MULTILINE))
    assert {"spec.retention.days", "spec.quotas.streams", "spec.credentials.rotation.overlapHours", "status.conditions"} <= listed


def test_chart_page_lists_every_value() -> None:
    listed = re.findall(r"^\| `([\w.]+)` \|", rows("chart-values.md", "values"), re.MULTILINE)
    assert listed == [".".join(value.path) for value in chart.values()]


@pytest.mark.parametrize(
    ("program", "verbs"),
    [
        (
            "decklog",
            {"dev", "api", "worker", "migrate", "provision", "platform-key", "plan", "tenants", "doctor", "archive verify"},
        ),
        ("decklog-operator", {"run", "crd", "manifests"}),
    ],
)
def test_command_line_page_has_a_chapter_for_every_verb(program: str, verbs: set[str]) -> None:
    assert verbs <= set(re.findall(rf"^### `{program} ([a-z -]+)`$", rows("command-line.md", program), re.MULTILINE))


def test_error_page_says_what_to_do_about_every_code() -> None:
    advice = (ROOT / "docs/reference/errors.md").read_text().partition("## What to do\n")[2]
    assert re.findall(r"^\| `([a-z-]+)` \| \w", advice, re.MULTILINE) == list(Code)


def test_tables_escape_pipes_and_tags_outside_of_code() -> None:
    assert table(("a", "b"), [("x|y <z>", "`<z>` <z>")]) == "| a | b |\n| --- | --- |\n| x\\|y &lt;z> | `<z>` &lt;z> |\n"
