"""The Markdown pages of the repository."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pages() -> list[Path]:
    """Every Markdown file that is tracked or new."""
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, text=True
    ).splitlines()
    return [ROOT / name for name in sorted(set(listed)) if (ROOT / name).is_file()]


def script(page: str, tour: str) -> str:
    """The shell block behind the mark of a tour."""
    text = (ROOT / page).read_text().partition(f"<!-- tour: {tour} -->\n```sh\n")[2].partition("```")[0]
    assert text, f"{page} has no tour {tour}"
    return text


def blocks(text: str, language: str = "sh") -> Iterator[str]:
    yield from re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^[ ]*```.*?^[ ]*```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page's titles, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}
