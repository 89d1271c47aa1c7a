"""The operator's own settings, and those left for the backends."""

from __future__ import annotations

import pytest

import decklog.settings
from decklog.domain.errors import Code, DecklogError
from decklog_operator import settings


def test_operator_settings_have_descriptions_and_valid_defaults() -> None:
    for name, (_, description, default) in settings.variables().items():
        assert description, name
        assert settings.load({name: str(default)}) == settings.OperatorSettings()


def test_split_separates_operator_variables_from_backend_variables() -> None:
    environment = {"DECKLOG_OPERATOR_SELECTOR": "a=b", "DECKLOG_DATABASE_OWNER_DSN": "postgresql://localhost/x", "HOME": "/"}
    own, others = settings.split(environment)
    assert own == {"DECKLOG_OPERATOR_SELECTOR": "a=b"}
    assert settings.load(environment).selector == "a=b"
    assert decklog.settings.load(others).database.owner_dsn == "postgresql://localhost/x"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RESYNC_SECONDS", "soon"),
        ("RESYNC_SECONDS", "0"),
        ("HEALTH_PORT", "65536"),
        ("API_URL", "https://user:hunter2@decklog.example.test"),
        ("RESYNC", "hunter2"),
    ],
)
def test_invalid_setting_is_reported_by_name_and_never_by_value(name: str, value: str) -> None:
    with pytest.raises(DecklogError) as caught:
        settings.load({f"DECKLOG_OPERATOR_{name}": value})
    assert caught.value.code is Code.MISCONFIGURED
    assert name.lower() in caught.value.detail.lower()
    assert "hunter2" not in caught.value.detail
