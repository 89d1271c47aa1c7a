"""Settings come from the environment, are known by name, and never show a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.settings import OPENTELEMETRY, PREFIX, SAMPLERS, Settings, Tracing, load, tracing, variables

SAMPLE: dict[type, str] = {str: "text", int: "4", float: "1.5", bool: "true"}
OTHER = {"DECKLOG_ARCHIVE_LOCK_MODE": "compliance", "DECKLOG_TENANTS_OWNER": "decklog"}
"""Samples of what takes certain words only."""
VALUE: dict[type, Any] = {str: "text", int: 4, float: 1.5, bool: True}


def sample(name: str) -> tuple[str, Any]:
    """A value for a variable, as text and as it is read."""
    kind = variables()[name][0]
    return (OTHER[name], OTHER[name]) if name in OTHER else (SAMPLE[kind], VALUE[kind])


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(DecklogError) as error:
        load(environment)
    assert error.value.code is Code.MISCONFIGURED
    return error.value.detail


def read(settings: Settings, name: str) -> Any:
    path = name.removeprefix(PREFIX).lower()
    for group in settings.__struct_fields__:
        if path == group:
            return getattr(settings, group)
        if path.startswith(group + "_"):
            return getattr(getattr(settings, group), path.removeprefix(group + "_"))
    raise AssertionError(f"{name} is nowhere in the tree")


def test_without_any_variable_there_are_defaults() -> None:
    assert load({}) == Settings()
    assert load({"PATH": "/bin", "DECKLOG_TEST_REQUIRE": "all", "DECKLOG_CACHE": "x"}) == Settings()


def test_variables_of_a_client_may_stand_beside_a_process() -> None:
    assert load({"DECKLOG_URL": "http://x", "DECKLOG_KEY": "dlk_a_b", "DECKLOG_KEY_FILE": "key"}) == Settings()


@pytest.mark.parametrize("name", list(variables()))
def test_every_variable_is_described(name: str) -> None:
    _, description, _ = variables()[name]
    assert description.endswith(".")
    assert name == name.upper()


@pytest.mark.parametrize("name", list(variables()))
def test_every_variable_arrives_where_its_name_says(name: str) -> None:
    text, value = sample(name)
    default = variables()[name][2]
    settings = load({name: text})
    assert read(settings, name) == value
    assert read(Settings(), name) == default
    others = [other for other in variables() if other != name]
    assert all(read(settings, other) == variables()[other][2] for other in others)


@pytest.mark.parametrize("name", list(variables()))
def test_every_variable_can_be_read_from_a_file(name: str, tmp_path: Path) -> None:
    text, value = sample(name)
    file = tmp_path / "value"
    file.write_text(text + "\n")
    assert read(load({name + "_FILE": str(file)}), name) == value


def test_no_name_of_a_variable_reads_as_the_file_of_another() -> None:
    assert not {name + "_FILE" for name in variables()} & set(variables())


@pytest.mark.parametrize("name", ["DECKLOG_PORT", "DECKLOG_API", "DECKLOG_API_PROT", "DECKLOG_", "DECKLOG_API_PROT_FILE"])
def test_an_unknown_variable_is_refused_by_name(name: str) -> None:
    assert name in refusal({name: "hunter2"})
    assert "hunter2" not in refusal({name: "hunter2"})


def test_a_variable_and_its_file_together_are_refused(tmp_path: Path) -> None:
    detail = refusal({"DECKLOG_DATABASE_DSN": "hunter2", "DECKLOG_DATABASE_DSN_FILE": str(tmp_path / "x")})
    assert "DECKLOG_DATABASE_DSN_FILE" in detail
    assert "hunter2" not in detail


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for file in (tmp_path / "missing", tmp_path, binary):
        assert "DECKLOG_DATABASE_DSN_FILE" in refusal({"DECKLOG_DATABASE_DSN_FILE": str(file)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DECKLOG_API_PORT", "hunter2"),
        ("DECKLOG_API_PORT", "65536"),
        ("DECKLOG_API_PORT", ""),
        ("DECKLOG_DATABASE_POOL_MAX", "1"),
        ("DECKLOG_QUEUE_ENABLED", "perhaps"),
        ("DECKLOG_WORKER_SWEEP_SECONDS", "-7"),
        ("DECKLOG_LOG_FORMAT", "hunter2"),
        ("DECKLOG_TENANTS_OWNER", "hunter2"),
        ("DECKLOG_ARCHIVE_LOCK_MODE", "hunter2"),
        ("DECKLOG_ARCHIVE_BUCKET", "hunter two"),
        ("DECKLOG_ARCHIVE_PREFIX", "/hunter2"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable_and_not_shown(name: str, value: str) -> None:
    detail = refusal({name: value})
    assert detail.startswith(f"{name} is not valid: ")
    assert not value or value not in detail.replace("65535", "")


COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def test_traces_are_sent_where_a_collector_is_named_and_nothing_turns_them_off() -> None:
    assert tracing({}) == tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}) == Tracing()
    assert tracing(COLLECTOR) == Tracing("http://collector:4318", 2_048)
    assert tracing({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://other/v1/traces"}).endpoint == "https://other/v1/traces"
    assert tracing({**COLLECTOR, "OTEL_SDK_DISABLED": "True"}) == Tracing()
    assert tracing({**COLLECTOR, "OTEL_TRACES_EXPORTER": "none", "OTEL_TRACES_SAMPLER": "no matter"}) == Tracing()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("part", ["", "0", "1", "0.25", ".5", "1.0"])
def test_every_sampler_of_opentelemetry_may_be_asked_for(sampler: str, part: str) -> None:
    asked = {**COLLECTOR, "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": part, "OTEL_BSP_MAX_QUEUE_SIZE": "64"}
    assert tracing(asked) == Tracing("http://collector:4318", 64)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://:hunter2"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "hunter2"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.1"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "hunter2"),
    ],
)
def test_a_wrong_value_for_traces_is_refused_by_the_name_of_its_variable_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(DecklogError) as refused:
        tracing({**COLLECTOR, name: value})
    assert refused.value.code is Code.MISCONFIGURED
    assert refused.value.detail.startswith(f"{name} is not valid: ")
    assert value not in refused.value.detail.removeprefix(name) or value in ("0", "1.1")


def test_the_defaults_that_are_told_of_traces_are_those_that_hold() -> None:
    assert OPENTELEMETRY["OTEL_BSP_MAX_QUEUE_SIZE"][2] == Tracing().queue_spans_max
    assert OPENTELEMETRY["OTEL_TRACES_SAMPLER"][2] in SAMPLERS
