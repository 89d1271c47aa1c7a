"""Masking: secrets are found by whole names, replaced in place, and listed by JSON pointer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.privacy.masking import MASK, is_secret_name, mask
from tests.support.json_values import texts, values

SECRET_NAMES = [
    "password", "Password", "PASSWORD", "secret", "client_secret", "clientSecret", "access_token", "accessToken",
    "refresh_token", "refreshToken", "authorization", "Authorization", "cookie", "set-cookie", "Set-Cookie", "api_key",
    "apiKey", "API-KEY", "x-api-key", "private_key", "privateKey", "secretAccessKey", "secret_access_key",
    "sessionToken", "masterUserPassword", "id_token", "newPassword",
]  # fmt: skip
INNOCENT_NAMES = [
    "nextToken", "privateIpAddress", "passwordLastUsed", "secretId", "secretArn", "keyId", "token", "key", "tokens",
    "cookies_accepted", "authorizationType", "accessKeyId", "passwordResetRequired", "secrets", "", "_", "pass word",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_is_secret_name_accepts_usual_spellings(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", INNOCENT_NAMES)
def test_is_secret_name_rejects_names_that_contain_a_secret_word(name: str) -> None:
    assert not is_secret_name(name)


def test_is_secret_name_works_for_very_long_names() -> None:
    assert is_secret_name("pass" + "_" * 1_000 + "word")
    assert not is_secret_name("password" * 1_000)


def masked_of(value: Any, path: str = "/metadata") -> tuple[Any, list[str]]:
    masked: list[str] = []
    return mask(value, path, masked), masked


def test_mask_keeps_the_path_and_replaces_the_value() -> None:
    value = {"user": "alice", "login": {"password": "p", "remember": True}, "headers": [{"Authorization": "Bearer x"}]}
    clean, masked = masked_of(value)
    assert clean == {
        "user": "alice",
        "login": {"password": MASK, "remember": True},
        "headers": [{"Authorization": MASK}],
    }
    assert masked == ["/metadata/login/password", "/metadata/headers/0/Authorization"]


def test_mask_replaces_everything_below_a_secret_name_and_keeps_its_shape() -> None:
    clean, masked = masked_of({"secret": {"a": ["x", {"b": 1.5}], "empty": {}, "none": None, "yes": True}})
    assert clean == {"secret": {"a": [MASK, {"b": MASK}], "empty": {}, "none": None, "yes": True}}
    assert masked == ["/metadata/secret/a/0", "/metadata/secret/a/1/b"]


def test_mask_does_not_change_its_argument() -> None:
    value = {"password": "p", "list": [{"cookie": "c"}]}
    mask(value, "", [])
    assert value == {"password": "p", "list": [{"cookie": "c"}]}


def test_mask_returns_the_same_object_without_secrets() -> None:
    value = {"a": [1, {"b": None}], "password": None}
    assert masked_of(value) == (value, [])
    assert masked_of(value)[0] is value


def test_mask_escapes_names_in_json_pointers() -> None:
    _, masked = masked_of({"a/b": {"c~d": {"password": "p"}}, "": {"password": "q"}})
    assert masked == ["/metadata/a~1b/c~0d/password", "/metadata//password"]


names = st.one_of(texts, st.sampled_from(SECRET_NAMES))
trees = st.recursive(values, lambda inner: st.dictionaries(names, inner, max_size=4) | st.lists(inner, max_size=3), max_leaves=15)


def resolve(value: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def leaves(value: Any, path: str, secret: bool) -> list[tuple[str, Any, bool]]:
    """Every leaf with its pointer and whether a secret name is above it."""
    if isinstance(value, dict):
        return [
            leaf
            for key, item in value.items()
            for leaf in leaves(item, f"{path}/{key.replace('~', '~0').replace('/', '~1')}", secret or is_secret_name(key))
        ]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, f"{path}/{index}", secret)]
    return [(path, value, secret)]


@given(trees)
@settings(deadline=None)
def test_mask_leaves_no_secret_and_changes_nothing_else(value: Any) -> None:
    clean, masked = masked_of(value, "")
    before, after = leaves(value, "", secret=False), leaves(clean, "", secret=False)
    assert [path for path, _, _ in before] == [path for path, _, _ in after]
    for (path, old, secret), (_, new, _) in zip(before, after, strict=True):
        if secret and old is not None and not isinstance(old, bool):
            assert new == MASK
            assert path in masked
            assert resolve(clean, path) == MASK
        else:
            assert new is old
            assert path not in masked
    assert len(masked) == len(set(masked))


@given(trees)
@settings(deadline=None)
def test_mask_is_idempotent(value: Any) -> None:
    clean, masked = masked_of(value)
    again, masked_again = masked_of(clean)
    assert again == clean
    assert masked_again == masked
