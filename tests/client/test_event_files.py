"""Files of audit events are read whatever their form, and what cannot be read has a line."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.client import json_values as reading
from decklog.client.event_files import EventFile, files_of
from decklog.client.json_values import ENVELOPES, Piece, Values
from tests.support import json_values

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
    "array over lines": "[" + ",\n".join(json.dumps(event) for event in EVENTS) + "]",
    "one after the other": "".join(json.dumps(event) for event in EVENTS),
    "indented one after the other": "\n".join(json.dumps(event, indent=2) for event in EVENTS),
    "indented and separated by commas": ",\n".join(json.dumps(event, indent=2) for event in EVENTS),
    "a JSON text sequence": "".join("\x1e" + json.dumps(event) + "\n" for event in EVENTS),
    "array of arrays": json.dumps([EVENTS[:1], EVENTS[1:]]),
    "lookup-events": json.dumps({"NextToken": "x", "Events": EVENTS}, indent=4),
    "records of Azure, and more": json.dumps({"a": {"items": []}, "records": EVENTS, "b": [1]}),
    "log events": json.dumps({"messageType": "DATA_MESSAGE", "logEvents": EVENTS}),
    "two documents, indented": json.dumps({"Records": EVENTS[:1]}, indent=2) + json.dumps({"Records": EVENTS[1:]}, indent=2),
    "a container's log": "".join(f"2026-11-20T10:00:06.123456789Z stdout F {json.dumps(event)}\n" for event in EVENTS),
    "a container's log of split lines": "".join(
        f"2026-11-20T10:00:06Z stdout {'F' if last else 'P'} {part}\n2026-11-20T10:00:06Z stderr P x\n2026-11-20T10:00:06Z stderr F \n"
        for event in EVENTS
        for part, last in ((json.dumps(event)[:7], False), (json.dumps(event)[7:], True))
    ).replace("stderr P x", "stderr P 7"),
    "lists on lines": json.dumps({"items": EVENTS[:1]}) + "\n" + json.dumps({"items": EVENTS[1:]}),
}


def halves(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Compression in two members."""
    return lambda data: compress(data[: len(data) // 2]) + compress(data[len(data) // 2 :])


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip in members": halves(gzip.compress),
    "zstd": zstandard.compress,
    "zstd in frames": halves(zstandard.compress),
    "UTF-16": lambda data: data.decode().removeprefix("\ufeff").encode("utf-16"),
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("form", FORMS)
def test_event_file_yields_the_same_events_in_every_form(form: str, packed: str, tmp_path: Path) -> None:
    if packed == "UTF-16" and "container" in form:
        return  # a runtime writes UTF-8
    found = values(read(written(tmp_path / "x", PACKED[packed](FORMS[form].encode()))))
    assert [event for event in found if event != 7] == EVENTS


@given(st.lists(st.dictionaries(st.text(max_size=3), json_values.values | st.just([{}]), max_size=3), max_size=4), st.data())
@settings(deadline=None)
def test_values_are_the_same_however_they_are_written_and_in_whatever_parts_they_arrive(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    events = [event for event in events if not ENVELOPES & event.keys()]
    indent = data.draw(st.sampled_from([None, 0, 1, 4]))
    separator = data.draw(st.sampled_from(["\n", "", " ", "\r\n", "\n\n", ",\n", "\x1e"]))
    form = data.draw(st.sampled_from(["run", "array", "Records", "items"]))
    ascii_only = data.draw(st.booleans())
    if form == "run":
        text = separator.join(json.dumps(event, indent=indent, ensure_ascii=ascii_only) for event in events)
    else:
        text = json.dumps(
            events if form == "array" else {"kind": "x", form: events, "n": 1}, indent=indent, ensure_ascii=ascii_only
        )
    source = io.BytesIO(text.encode())
    size = data.draw(st.integers(1, 40))
    pieces = list(Values(lambda _: source.read(size)))
    assert values(pieces) == events
    assert [piece.line for piece in pieces] == sorted(piece.line for piece in pieces)


def test_values_hold_no_array_whole() -> None:
    """Five times the events need the same memory."""

    def peak(count: int) -> int:
        text = itertools.chain([b'{"Records":['], itertools.repeat(b'{"a":"' + b"x" * 1_000 + b'"},\n', count), [b"]}"])
        tracemalloc.start()
        assert sum(1 for _ in Values(lambda _: next(text, b""))) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(20_000) < 1.5 * peak(4_000) < 16 * 1024 * 1024


def test_broken_item_of_a_document_costs_no_other_item(tmp_path: Path) -> None:
    text = json.dumps({"Records": EVENTS}, indent=2).replace('"n": 2', '"n": two')
    pieces = read(written(tmp_path / "x", text))
    assert [(piece.line, (piece.raw or b"")[:1]) for piece in pieces] == [(3, b"{"), (7, b"{"), (15, b"{")]
    assert (json.loads(pieces[0].raw or b""), json.loads(pieces[2].raw or b"")) == (EVENTS[0], EVENTS[2])


def test_document_that_is_cut_off_is_named_after_its_events(tmp_path: Path) -> None:
    text = json.dumps({"Records": EVENTS})
    pieces = read(written(tmp_path / "x", text[: text.rindex(",") + 1]))
    assert values(pieces) == EVENTS[:2]
    assert "within an array" in pieces[-1].problem


def test_container_log_that_ends_within_a_line_is_named(tmp_path: Path) -> None:
    log = '2026-11-20T10:00:06Z stdout F {"n":1}\nnot a line of a container\n2026-11-20T10:00:06.1+01:00 stdout P {"n":\n'
    pieces = read(written(tmp_path / "x", log))
    assert [(piece.line, piece.raw) for piece in pieces] == [(1, b'{"n":1}'), (2, b"not a line of a container"), (3, None)]


def docker(log: str, stream: str = "stdout") -> str:
    """A line as Docker writes it."""
    return json.dumps({"log": log, "stream": stream, "time": "2026-11-20T10:00:06.123456789Z"}, separators=(",", ":")) + "\n"


def test_lines_that_docker_split_are_joined_for_each_stream(tmp_path: Path) -> None:
    long = json.dumps({"n": 1, "text": 'a "quoted" \u00e9 \n' * 40})
    log = [
        docker('{"n":0}\n'),
        docker(long[:100]),
        docker('{"n":', "stderr"),
        docker(long[100:200]),
        docker("2}\n", "stderr"),
        docker(long[200:] + "\n"),
        docker('{"n":3}'),  # whole, without its line break
        docker("no JSON"),
        docker('{"n":4'),
    ]
    pieces = read(written(tmp_path / "x", "".join(log)))
    texts = [json.loads(piece.raw)["log"] for piece in pieces if piece.raw is not None]
    assert texts == ['{"n":0}\n', '{"n":2}\n', long + "\n", '{"n":3}', "no JSON"]
    assert [piece.line for piece in pieces] == [1, 3, 2, 7, 8, 9]
    assert (pieces[-1].raw, "split" in pieces[-1].problem) == (None, True)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compressed_file_that_is_cut_off_is_named(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    pieces = read(written(tmp_path / "x", compress(FORMS["lines"].encode())[:-3]))
    assert "middle" in pieces[-1].problem


def test_files_of_a_folder_are_all_below_it_by_name_without_hidden_ones(tmp_path: Path) -> None:
    names = [
        "AWSLogs/1/CloudTrail/eu-west-1/2026/11/20/b.json.gz",
        "AWSLogs/1/CloudTrail/eu-west-1/2026/11/19/a.json.gz",
        "x.log",
    ]
    for name in [*names, ".DS_Store", ".git/config"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    other = tmp_path / names[0]
    assert files_of([other, tmp_path, Path("-"), Path("missing")]) == [
        other, *(tmp_path / names[number] for number in (2, 1, 0)), Path("-"), Path("missing")
    ]  # fmt: skip


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
    monkeypatch.setattr(reading, "VALUE_CHARS_MAX", 50)
    monkeypatch.setattr(reading, "CHUNK_BYTES", 20)
    for large in ("x" * 500, '{"a":"' + "x" * 500 + '"}', "x" * 30 + "[" * 500):
        pieces = read(written(tmp_path / "x", '{"a":1}\n' + large + '\n{"a":2}\n'))
        assert [(piece.line, piece.raw) for piece in pieces[:3]] == [(1, b'{"a":1}'), (2, None), (3, b'{"a":2}')]
        assert "50 characters" in pieces[1].problem


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
