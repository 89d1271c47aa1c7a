"""Names that occur twice in one JSON object are refused, wherever they stand and however they are written."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.record import prepare_sent
from decklog.domain.unique_names import Repeated, RepeatedNameError, refuse_repeated, repeated
from tests.support.examples import examples

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def refusal(raw: bytes, **options: Any) -> DecklogError:
    with pytest.raises(DecklogError) as error:
        prepare_sent(raw, now=NOW, fingerprint_key=b"k" * 32, **options)
    return error.value


@pytest.mark.parametrize(
    ("raw", "path", "name"),
    [
        (b'{"action":"a","actor":{"id":"x"},"action":"b"}', "action", "action"),
        (b'{"action":"a","actor":{"id":"x","id":"x"}}', "actor.id", "id"),
        (b'{"action":"a","actor":{"id":"x"},"metadata":{"a":[{"b":1,"c":2,"b":1}]}}', "metadata.a[0].b", "b"),
        (b'{"action":"a","actor":{"id":"x"},"metadata":{"a":1,"\\u0061":2}}', "metadata.a", "a"),
        (b'{"action":"a","actor":{"id":"x"},"metadata":{"a":1,"a":"\\u003a"}}', "metadata.a", "a"),
        (b'{"action":"a","actor":{"id":"x"},"metadata":{"a":1,"b":"\\u003A","a":2}}', "metadata.a", "a"),
        (b'{"action":"a","actor":{"id":"x"},"metadata":{"a":"\\u003a","a":2}}', "metadata.a", "a"),
        (b'{"action":"a","actor":{"id":"x"},"metadata":{"a":1, "a" : 2, "b":null}}', "metadata.a", "a"),
        (b'{"action":"a","actor":{"id":"x"},"metadata":{"password":"a:b","password":"c"}}', "metadata.password", "password"),
        (b'{"action":"a","actor":{"id":"x"},"metadata":{"a":{"password":"::"},"b":1,"b":2}}', "metadata.b", "b"),
        (b'{"action":"a","actor":{"id":"x"},"metadata":1,"metadata":2}', "metadata", "metadata"),
        (b'{"action":"a","actor":{"id":"x"},"related":[{"type":"t","type":"t"}]}', "related[0].type", "type"),
        (
            b'{"action":"a","actor":{"id":"x"},"occurred_at":"2026-11-01T00:00:00+0100","metadata":{"a":1,"a":1}}',
            "metadata.a",
            "a",
        ),
        (b'\xef\xbb\xbf{"action":"a","actor":{"id":"x"},"metadata":{"a":1,"a":1}}', "metadata.a", "a"),
    ],
)
def test_record_with_a_name_twice_is_refused_with_path_and_name(raw: bytes, path: str, name: str) -> None:
    for options in ({}, {"default_id": "key:with:colons"}):
        error = refusal(raw, **options)
        assert error.code is Code.INVALID_RECORD
        [fault] = error.extra["errors"]
        assert fault["path"] == path
        assert f"the name {name!r} occurs twice" in error.detail


@pytest.mark.parametrize(
    "raw",
    [
        b'{"action":"a:b","actor":{"id":"x"},"metadata":{"a":"\\u003a:","b":{"a":1},"c":[{"a":1},{"a":1}]}}',
        b'{"action":"a","actor":{"id":"x","name":null},"id":null,"metadata":null}',
        b'{"action":"a","actor":{"id":"x"},"metadata":{"password":"a:b:c"}}',
        b'{"action":"a","actor":{"id":"x"},"occurred_at":"2026-11-01T00:00:00+0100"}',
        b'{"action":"a","actor":{"id":"x"},"metadata":{"a":"\\"a\\":1,\\"a\\":1"}}',
        b'{"action":"a","actor":{"id":"x"},"metadata":{"A":1,"a":2,"\\u212a":1,"k":2}}',
    ],
)
def test_record_whose_names_occur_once_is_stored(raw: bytes) -> None:
    for key in (None, "key:with:colons"):
        assert prepare_sent(raw, now=NOW, fingerprint_key=b"k" * 32, default_id=key)


def test_repeated_lists_each_name_once_and_at_most_twenty() -> None:
    assert repeated(b'{"a":1,"a":2,"a":3,"b":{"c":1,"c":1}}') == [Repeated("", "a"), Repeated("b", "c")]
    many = b"{" + b",".join(b'"k%d":1,"k%d":2' % (n, n) for n in range(100)) + b"}"
    assert len(repeated(many)) == 20


def test_refuse_repeated_names_the_object() -> None:
    raw = b'{"a":{"b":1,"b":2}}'
    with pytest.raises(RepeatedNameError, match="the name 'b' occurs twice in a"):
        refuse_repeated(raw, msgspec.json.decode(raw))
    refuse_repeated(b'{"a":"\\ud800"}', json.loads('{"a":"\\ud800"}'))


names = st.sampled_from(["a", "b", ":", '"', "\\", "\u00e9", "password", "null", ""])
texts = st.text(st.sampled_from('a:"\\{},n\u00e9'), max_size=4)


def escaped(text: str, every: bool) -> str:
    """A JSON string, with every character as an escape or only where it must be."""
    return '"' + "".join(f"\\u{ord(c):04x}" for c in text) + '"' if every else json.dumps(text)


@st.composite
def written(draw: st.DrawFn, depth: int = 3) -> str:
    """JSON text of which objects may have a name twice."""
    kind = draw(st.integers(0, 5 if depth else 2))
    if kind < 3:
        return draw(
            st.sampled_from(["null", "1", "-1.5e3", "true"]) | st.builds(escaped, texts, st.booleans())  # scalars
        )
    blank = draw(st.sampled_from(["", " ", "\n\t"]))
    if kind == 3:
        return "[" + f"{blank},".join(draw(st.lists(written(depth - 1), max_size=3))) + "]"
    members = draw(st.lists(st.tuples(names, st.booleans(), written(depth - 1)), max_size=4))
    return "{" + f",{blank}".join(f"{escaped(name, every)}{blank}:{blank}{value}" for name, every, value in members) + "}"


def naively_repeats(text: str) -> bool:
    found = False

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found = found or len({name for name, _ in pairs}) < len(pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=members)
    return found


@given(written(), st.sampled_from(["metadata", "before", "after"]), st.none() | texts.filter(bool), st.booleans())
@settings(deadline=None, max_examples=examples(400))
def test_record_is_refused_exactly_where_a_naive_reader_finds_a_name_twice(
    value: str, field: str, default_id: str | None, null: bool
) -> None:
    text = f'{{"action":"a:b","actor":{{"id":"x"}},{chr(34)}{field}{chr(34)}:{value}' + (',"message":null}' if null else "}")
    if naively_repeats(text):
        assert "occurs twice" in refusal(text.encode(), default_id=default_id).detail
    else:
        prepare_sent(text.encode(), now=NOW, fingerprint_key=b"k" * 32, default_id=default_id)


@given(written())
@settings(deadline=None, max_examples=examples(200))
def test_refuse_repeated_agrees_with_a_naive_reader(text: str) -> None:
    with pytest.raises(RepeatedNameError) if naively_repeats(text) else nullcontext():
        refuse_repeated(text.encode(), msgspec.json.decode(text))
