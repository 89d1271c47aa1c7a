"""Trimming: what is too large or too deep goes, with its path and hash, and nothing else changes."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.privacy.masking import mask
from decklog.domain.records.canonical import canonical, digest
from decklog.domain.records.record import Prepared, decode, prepare
from decklog.domain.records.refusal import DEPTH_MAX
from decklog.domain.records.trimming import REMOVED_MAX, Trimmed, trim, with_removed
from tests.support.records import FINGERPRINT_KEY, body

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LIMIT = 2_048


def at(value: Any, path: str) -> Any:
    """The value at a JSON pointer."""
    for token in path.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def without(value: Any, paths: list[str]) -> Any:
    """A copy of a record without the values at these paths."""
    value = copy.deepcopy(value)
    for path in paths:
        above, _, token = path.rpartition("/")
        parent, name = at(value, above), token.replace("~1", "/").replace("~0", "~")
        if isinstance(parent, list):
            parent[int(name)] = None
        else:
            del parent[name]
    return value


def levels(value: Any) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max(map(levels, items), default=0)


def trimmed(limit: int = LIMIT, **fields: Any) -> Trimmed:
    found = trim(body(**fields), limit)
    assert found is not None
    return found


def stored(found: Trimmed, **options: Any) -> Prepared:
    return with_removed(
        prepare(decode(found.sent), now=NOW, fingerprint_key=FINGERPRINT_KEY, **options), found.removed, FINGERPRINT_KEY
    )


def nested(depth: int) -> Any:
    value: Any = "the end"
    for _ in range(depth):
        value = {"a": value}
    return value


def test_smallest_value_whose_removal_is_enough_goes() -> None:
    metadata = {"verb": "create", "request": {"spec": {"filler": "x" * 5_000, "name": "n"}, "kind": "CRD"}, "note": "y" * 800}
    found = trimmed(metadata=metadata)
    assert [each.path for each in found.removed] == ["/metadata/request/spec/filler"]
    assert json.loads(found.sent)["metadata"] == {**metadata, "request": {"spec": {"name": "n"}, "kind": "CRD"}}
    [removed] = found.removed
    assert (removed.bytes, removed.sha256) == (5_002, digest(canonical("x" * 5_000)).hex())


def test_several_members_go_where_none_alone_is_enough() -> None:
    found = trimmed(metadata={"keep": 1, **{f"part{n}": "x" * 1_000 for n in range(4)}})
    assert {each.path for each in found.removed} == {f"/metadata/part{n}" for n in range(4)}
    assert json.loads(found.sent)["metadata"] == {"keep": 1}


def test_value_goes_whole_where_many_of_its_members_would_have_to_go() -> None:
    found = trimmed(metadata={"keep": 1, "list": [{"n": n} for n in range(2_000)]})
    assert [each.path for each in found.removed] == ["/metadata/list"]
    assert json.loads(found.sent)["metadata"] == {"keep": 1}


def test_item_of_an_array_becomes_null_so_that_paths_stay() -> None:
    found = trimmed(after=["a", "x" * 3_000, "b"])
    assert [each.path for each in found.removed] == ["/after/1"]
    assert json.loads(found.sent)["after"] == ["a", None, "b"]


def test_value_beyond_the_depth_goes_and_the_levels_above_it_stay() -> None:
    found = trimmed(metadata={"name": "n", "deep": nested(40)}, before=nested(DEPTH_MAX))
    assert [each.path for each in found.removed] == ["/metadata/deep" + "/a" * (DEPTH_MAX - 1)]
    record = json.loads(found.sent)
    assert levels(record["metadata"]) == DEPTH_MAX
    assert record["before"] == nested(DEPTH_MAX)
    assert found.removed[0].sha256 == digest(canonical(nested(40 - DEPTH_MAX + 1))).hex()
    assert stored(found).trimmed == (found.removed[0].path,)


def test_field_goes_whole_where_too_many_values_are_too_deep() -> None:
    found = trimmed(1_000_000, metadata=[nested(40)] * (REMOVED_MAX + 1), after={"kept": 1})
    assert [each.path for each in found.removed] == ["/metadata"]
    assert json.loads(found.sent)["after"] == {"kept": 1}


def test_room_for_the_list_of_what_is_too_deep_is_made_as_well() -> None:
    whole = json.loads(body(metadata={"deep": nested(40)}))
    filler = LIMIT - 512 - len(canonical(whole)) - len(',"after":["",""]') - 20
    found = trimmed(metadata=whole["metadata"], after=["x" * (filler // 2), "y" * (filler // 2)])
    assert len(found.removed) == 2


def test_hash_of_what_was_removed_does_not_depend_on_a_secret() -> None:
    one, other = (trimmed(metadata={"body": {"password": pin, "filler": ["x" * 99] * 50}}) for pin in ("1234", "9999"))
    assert one.removed == other.removed
    assert one.sent == other.sent
    assert b"1234" not in one.sent


def test_stored_record_lists_what_was_removed_as_its_last_member() -> None:
    found = trimmed(id="x", related=[{"type": "t"}], source={"ip": "::1"}, metadata={"a/b": {"~c": "x" * 5_000}, "password": "p"})
    prepared = stored(found, recorder=b'{"id":"k","type":"api_key"}')
    content = json.loads(prepared.content)
    assert content["trimmed"] == [{"path": "/metadata/a~1b/~0c", "bytes": 5_002, "sha256": found.removed[0].sha256}]
    assert content["masked"] == ["/metadata/password"]
    assert canonical(content) == prepared.content
    assert digest(prepared.content) == prepared.digest


def test_records_that_differ_only_in_what_was_removed_are_two() -> None:
    one, same, other = (stored(trimmed(id="x", metadata={"filler": text * 5_000})) for text in "xxy")
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint is not None
    assert len(one.fingerprint) == 16


@pytest.mark.parametrize(
    "raw",
    [
        body(metadata={"small": 1}),
        body(message="x" * 8_000),
        body(metadata={"x": "y" * 5_000}, related=[{"type": "t", "id": "x" * 1_000}] * 5),
        b'{"action":"a","actor":{"id":"x"},"metadata":{"a":"' + b"x" * 5_000 + b'","a":1}}',
        b'{"action":"a","actor":{"id":"x"},"metadata":["' + b"x" * 5_000 + b'",NaN]}',
        b'{"action":"a","actor":{"id":"x"},"metadata":["' + b"x" * 5_000 + b'","\\ud800"]}',
        b'{"action":"a","actor":{"id":"x"},"metadata":["' + b"x" * 5_000,
        b'{"action":"a","actor":{"id":"x"},"metadata":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b"[" + b"1," * 5_000 + b"1]",
        b"\xff" * 5_000,
    ],
    ids=range(10),
)
def test_record_that_cannot_be_trimmed_stays_refused(raw: bytes) -> None:
    assert trim(raw, LIMIT) is None


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.floats(allow_nan=False, allow_infinity=False),
    lambda below: st.lists(below, max_size=8) | st.dictionaries(names, below, max_size=8),
    max_leaves=60,
)


@given(st.fixed_dictionaries({}, optional={"metadata": values, "before": values, "after": values}), st.integers(0, 40))
def test_trimmed_record_fits_and_differs_only_by_what_it_lists(fields: dict[str, Any], depth: int) -> None:
    for _ in range(depth):
        fields = {**fields, "before": [fields.get("before")]}
    raw = body(**fields)
    found = trim(raw, LIMIT)
    whole = {name: mask(value, "", []) if name in fields else value for name, value in json.loads(raw).items()}
    fits = len(canonical(whole)) <= LIMIT - 512 and all(levels(whole.get(name)) <= DEPTH_MAX for name in fields)
    if found is None:
        assert fits
        return
    assert not fits
    paths = [each.path for each in found.removed]
    assert canonical(json.loads(found.sent)) == canonical(without(whole, paths))
    for each in found.removed:
        gone = canonical(at(whole, each.path))
        assert (each.bytes, each.sha256) == (len(gone), digest(gone).hex())
    assert len(stored(found).content) <= LIMIT
