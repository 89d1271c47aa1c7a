"""Begin a run with `begin`, and end it with `report`, which writes coverage's file of data for its reports."""

from __future__ import annotations

import json
import sys

from coverage import CoverageData

from tests.lines.sitecustomize import FOLDER, ROOT, SOURCES, Hits


def begin() -> None:
    """Give each line of each file a byte."""
    places, end = {}, 0
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            start, end = end, end + len(path.read_bytes().splitlines()) + 1
            places[str(path)] = (start, end)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "places.json").write_text(json.dumps(places))
    (FOLDER / "hits").write_bytes(bytes(end))


def report() -> None:
    """Write the lines that ran."""
    hits = Hits()
    ran = {path: [line for line, hit in enumerate(hits.of(path)) if hit] for path in hits}
    data = CoverageData()
    data.erase()
    data.add_lines({path: lines for path, lines in ran.items() if lines})
    data.touch_files([path for path, lines in ran.items() if not lines])
    data.write()


if __name__ == "__main__":
    {"begin": begin, "report": report}[sys.argv[1]]()
