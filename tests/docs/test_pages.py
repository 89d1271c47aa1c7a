"""All Markdown pages: links resolve, and commands, settings and paths exist."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from decklog.domain.errors import Code
from decklog.settings import variables
from decklog.tracing_settings import OPENTELEMETRY
from decklog_operator import settings as operator_settings
from tests.docs.pages import ROOT, anchors, blocks, pages, prose
from tools import chart, command_line, reference

TEXTS = {page: page.read_text() for page in pages()}
WRITTEN = "\n".join(TEXTS.values())
FOREIGN = {"DECKLOG_CONTEXT", "DECKLOG_SPOOL", "DECKLOG_URL", "DECKLOG_KEY", "DECKLOG_KEY_FILE", "DECKLOG_CACHE"}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[page])):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            yield target


def test_links_and_anchors_resolve() -> None:
    assert {str(page): found for page in TEXTS if (found := list(broken_links(page)))} == {}


def test_pages_name_existing_make_targets_only() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", WRITTEN, re.MULTILINE))
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= known
    assert {"run", "test", "lint", "docs", "generate", "bench"} <= named


def test_pages_name_existing_settings_only() -> None:
    named = set(re.findall(r"\bDECKLOG_[A-Z_]*[A-Z]\b(?!_…)", WRITTEN))
    known = {*variables(), *operator_settings.variables(), *OPENTELEMETRY, *FOREIGN}
    assert {
        name for name in named if name not in known and not name.startswith("DECKLOG_TEST_") and f"{name}_…" not in WRITTEN
    } == set()


def test_pages_name_existing_verbs_only() -> None:
    for program in ("decklog", "decklog-operator"):
        known = {" ".join(verbs) for verbs, _ in command_line.helps(program)}
        named = set(re.findall(rf"(?:`|^|\.venv/bin/){program} ([a-z][a-z-]+)", WRITTEN, re.MULTILINE))
        assert named <= {verb.partition(" ")[0] for verb in known}
        assert named


def test_pages_name_existing_paths_only() -> None:
    roots = "service|operator|charts|manifests|tools|tests|docs|domain"
    named = set(re.findall(rf"(?<![\w./])((?:{roots})/[\w./-]+\w)", WRITTEN))
    missing = {name for name in named if not (ROOT / name).exists() and not (ROOT / "service/src/decklog" / name).exists()}
    assert {name for name in missing if "NNNN" not in name} == set()


def test_pages_name_existing_error_codes_only() -> None:
    named = set(re.findall(r"\b(?:4\d\d|50\d) `([a-z-]+)`", WRITTEN))
    assert named <= set(Code)
    assert len(named) > 8


def test_pages_name_existing_metrics_only() -> None:
    named = set(re.findall(r"`(decklog_[a-z_]+_(?:total|seconds|ratio))`", WRITTEN))
    listed = (ROOT / "docs/reference/metrics.md").read_text()
    assert {name for name in named if f"| `{name}` |" not in listed} == set()


def test_pages_name_existing_chart_values_only() -> None:
    known = {".".join(value.path) for value in chart.values()}
    tops = {name.partition(".")[0] for name in known if "." in name}
    named = set(re.findall(rf"`(?!dev\.json)((?:{'|'.join(sorted(tops))})\.[A-Za-z.]+)`", WRITTEN))
    unknown = {name for name in named if name not in known and not any(each.startswith(f"{name}.") for each in known)}
    assert unknown == set()


def test_pages_name_existing_tenant_fields_only() -> None:
    listed = reference.crd("spec") + reference.crd("status")
    named = set(re.findall(r"`((?:spec|status)\.[A-Za-z.]+)`", WRITTEN))
    assert {name for name in named if f"`{name}`" not in listed} == set()


def test_yaml_blocks_parse() -> None:
    found = [block for text in TEXTS.values() for block in blocks(text, "yaml")]
    assert len(found) >= 3
    for block in found:
        assert list(yaml.safe_load_all(block))


def test_shell_blocks_parse() -> None:
    found = [(page, block) for page, text in TEXTS.items() for block in blocks(text)]
    assert len(found) > 10
    for page, block in found:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page}: {done.stderr}"


def test_decision_records_have_the_same_shape_and_are_all_listed() -> None:
    folder = ROOT / "docs/decisions"
    records = sorted(folder.glob("[0-9]*.md"))
    index = (folder / "index.md").read_text()
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text()
        title, date = re.match(rf"# {record.name[:4]}\. (.+)\n\nDate: (\d{{4}}-\d\d-\d\d)\n", text).groups()  # type: ignore[union-attr]
        assert re.findall("^## (.+)$", text, re.MULTILINE) == [
            "Context",
            "Decision",
            "Consequences",
            "What would change our mind",
        ]
        assert f"| {record.name[:4]} | [{title}]({record.name}) | {date} |" in index


def test_site_builds_strictly_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    built = subprocess.run(
        [ROOT / ".venv/bin/mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    loaded = [
        (page.name, tag)
        for page in (tmp_path / "site").rglob("*.html")
        for tag in re.findall(
            r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?https?:[^>]*>|<link[^>]*href=[\"']?https?:[^>]*>", page.read_text()
        )
        if 'rel="canonical"' not in tag
    ]
    assert loaded == []
