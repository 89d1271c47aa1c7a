"""The one reader of JSON bodies: what it refuses, and in which words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.scope import read_viewer_input
from decklog.domain.json_body import decoded
from decklog.domain.search.saved import read_search
from decklog.domain.tenancy.api_keys import KeyInput, read_key


def test_body_is_decoded_as_its_shape() -> None:
    assert decoded(b'{"role": "auditor", "name": "a"}', KeyInput) == KeyInput("auditor", "a")


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        (b"{", Code.INVALID_JSON, "not valid JSON in UTF-8"),
        (b'{"name": "\xff"}', Code.INVALID_JSON, "not valid JSON in UTF-8"),
        (b'{"role": "auditor", "name": "a", "role": "admin"}', Code.INVALID_JSON, "the name 'role' occurs twice"),
        (b'{"role": "auditor"}', Code.INVALID_PARAMETER, "missing required field `name`"),
        (b'{"role": "auditor", "name": "a", "x": 1}', Code.INVALID_PARAMETER, "unknown field `x`"),
    ],
)
def test_body_that_is_no_such_shape_is_refused(body: bytes, code: Code, told: str) -> None:
    with pytest.raises(DecklogError) as refused:
        decoded(body, KeyInput)
    assert refused.value.code is code
    assert told in refused.value.detail


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (read_key, b'{"role": "auditor", "name": "a", "name": "b"}'),
        (read_viewer_input, b'{"query": "actor:a", "query": "actor:b"}'),
        (read_search, b'{"name": "a", "parameters": {"actor": "a", "actor": "b"}}'),
    ],
)
def test_every_body_refuses_a_name_that_occurs_twice(read: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(DecklogError, match="each name may occur once") as refused:
        read(body)
    assert refused.value.code is Code.INVALID_JSON
