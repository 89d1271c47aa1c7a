"""Files of audit events are read whatever their form, and what cannot be read has a line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from decklog.client import event_files
from decklog.client.event_files import EventFile, Piece

EVENTS: list[dict[str, Any]] = [{"n": 1, "text": "a\nb"}, {"n": 2, "list": [{"n": 3}]}, {"n": 4}]


def read(path: Path) -> list[Piece]:
    with EventFile(path) as source:
        return list(source)


def values(pieces: list[Piece]) -> list[Any]:
    return [json.loads(piece.raw) for piece in pieces if piece.raw is not None]


def written(path: Path, content: str | bytes, *, compressed: bool = False) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data, mtime=0) if compressed else data)
    return path


FORMS = {
    "lines": "\n".join(json.dumps(event) for event in EVENTS),
    "lines with an end": "".join(json.dumps(event) + "\n" for event in EVENTS),
    "lines of windows": "".join(json.dumps(event) + "\r\n" for event in EVENTS),
    "lines with blanks": "\n" + "\n\n".join(json.dumps(event) for event in EVENTS) + "\n \n",
    "lines after a byte order mark": "\ufeff" + "\n".join(json.dumps(event) for event in EVENTS),
    "records": json.dumps({"Records": EVENTS}),
    "records for people": json.dumps({"Records": EVENTS}, indent=2),
    "event list": json.dumps({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": EVENTS}),
    "event list for people": json.dumps({"kind": "EventList", "items": EVENTS}, indent=4),
    "array": json.dumps(EVENTS),
    "array for people": json.dumps(EVENTS, indent=1),
    "lists on lines": json.dumps({"items": EVENTS[:1]}) + "\n" + json.dumps({"items": EVENTS[1:]}),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_event_file_yields_the_same_events_in_every_form(form: str, compressed: bool, tmp_path: Path) -> None:
    assert values(read(written(tmp_path / "x", FORMS[form], compressed=compressed))) == EVENTS


def test_event_file_counts_lines_from_one_and_counts_blank_lines(tmp_path: Path) -> None:
    pieces = read(written(tmp_path / "x", '{"a":1}\n\n  {"a":2}\nnot json\n'))
    assert [(piece.line, piece.item, piece.raw) for piece in pieces] == [
        (1, None, b'{"a":1}'),
        (3, None, b'{"a":2}'),
        (4, None, b"not json"),
    ]


def test_event_file_counts_items_of_a_document_on_one_line(tmp_path: Path) -> None:
    pieces = read(written(tmp_path / "x", '{"a":1}\n{"Records":[{"b":1},{"b":2}]}\n'))
    assert [piece.place for piece in pieces] == ["1", "2 (item 1)", "2 (item 2)"]


def test_event_file_names_the_first_line_of_each_item_of_a_long_document(tmp_path: Path) -> None:
    text = json.dumps({"Records": EVENTS}, indent=2)
    pieces = read(written(tmp_path / "x", text))
    lines = text.splitlines()
    assert [lines[piece.line - 1].strip() for piece in pieces] == ["{"] * 3
    assert [piece.line for piece in pieces] == [3, 7, 15]


def test_event_file_is_empty_for_an_empty_file(tmp_path: Path) -> None:
    for content in ("", "\n", "[]", '{"Records": []}'):
        assert read(written(tmp_path / "x", content)) == []
        assert read(written(tmp_path / "y", content, compressed=True)) == []


def test_event_file_reads_lines_after_a_broken_first_line(tmp_path: Path) -> None:
    pieces = read(written(tmp_path / "x", '{"a": [\n{"a":2}\n{"a":3}\n'))
    assert [(piece.line, piece.raw) for piece in pieces] == [(1, b'{"a": ['), (2, b'{"a":2}'), (3, b'{"a":3}')]


def test_event_file_reads_documents_with_a_lone_surrogate(tmp_path: Path) -> None:
    pieces = read(written(tmp_path / "x", rb'{"Records":[{"a":"\ud800"},{"a":2}]}'))
    assert values(pieces) == [{"a": "\ud800"}, {"a": 2}]


def test_event_file_reports_truncated_compression_after_the_readable_events(tmp_path: Path) -> None:
    lines = b"".join(b'{"n":%d}\n' % number for number in range(50_000))
    (tmp_path / "x").write_bytes(gzip.compress(lines, mtime=0)[:-20])
    pieces = read(tmp_path / "x")
    assert len(pieces) > 10_000
    assert pieces[-1].raw is None
    assert "middle" in pieces[-1].problem


def test_event_file_reports_corrupt_compression(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b'{"n":1}\n' * 1_000, mtime=0))
    data[15:25] = b"\xff" * 10
    (tmp_path / "x").write_bytes(bytes(data))
    assert "broken" in read(tmp_path / "x")[-1].problem


def test_event_file_skips_an_oversized_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "DOCUMENT_BYTES_MAX", 50)
    pieces = read(written(tmp_path / "x", '{"a":1}\n' + "x" * 500 + '\n{"a":2}\n'))
    assert [(piece.line, piece.raw) for piece in pieces] == [(1, b'{"a":1}'), (2, None), (3, b'{"a":2}')]
    assert "50 bytes" in pieces[1].problem


def test_event_file_position_reaches_the_size(tmp_path: Path) -> None:
    path = written(tmp_path / "x", FORMS["lines"] * 1, compressed=True)
    with EventFile(path) as source:
        assert (source.position, source.size) == (0, path.stat().st_size)
        list(source)
        assert source.position == source.size


def test_event_file_raises_for_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(OSError, match="Errno"):
            EventFile(path)
