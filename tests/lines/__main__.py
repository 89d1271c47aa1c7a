"""Begin a run: give each line of each file a byte. Python looks for them at its start, so this is a program of its own."""

from __future__ import annotations

import json

from tests.lines.sitecustomize import FOLDER, ROOT, SOURCES


def begin() -> None:
    """Write the places of the bytes, and the bytes."""
    places, end = {}, 0
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_bytes()
            start, end = end, end + len(text.splitlines()) + 1
            places[str(path)] = (start, end, len(text))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "places.json").write_text(json.dumps(places))
    (FOLDER / "hits").write_bytes(bytes(end))


if __name__ == "__main__":
    begin()
