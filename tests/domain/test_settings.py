"""Settings come from the environment, are known by name, and never show a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.settings import PREFIX, Settings, load, variables
from decklog.tracing_settings import OPENTELEMETRY, SAMPLERS, Tracing, tracing

SAMPLE: dict[type, str] = {str: "text", bool: "true"}
OTHER = {
    "DECKLOG_ARCHIVE_LOCK_MODE": "compliance",
    "DECKLOG_TENANTS_OWNER": "decklog",
    "DECKLOG_BOARD_FRAME_ANCESTORS": "https://app.example.com http://localhost:*",
}
"""Samples of what takes certain words only."""
VALUE: dict[type, Any] = {str: "text", bool: True}


def sample(name: str) -> tuple[str, Any]:
    """A value for a variable, as text and as it is read."""
    kind, _, default = variables()[name]
    if kind in (int, float):  # near the default, which is within the bounds
        near = default + 1 if kind is int else default * 0.75
        return str(near), near
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


def test_load_returns_defaults_without_variables() -> None:
    assert load({}) == Settings()
    assert load({"PATH": "/bin", "DECKLOG_TEST_REQUIRE": "all", "DECKLOG_CACHE": "x"}) == Settings()


def test_load_ignores_variables_of_clients() -> None:
    assert load({"DECKLOG_URL": "http://x", "DECKLOG_KEY": "dlk_a_b", "DECKLOG_KEY_FILE": "key"}) == Settings()


@pytest.mark.parametrize("name", list(variables()))
def test_variables_have_a_description(name: str) -> None:
    _, description, _ = variables()[name]
    assert description.endswith(".")
    assert name == name.upper()


@pytest.mark.parametrize("name", list(variables()))
def test_load_puts_each_variable_into_its_field(name: str) -> None:
    text, value = sample(name)
    default = variables()[name][2]
    settings = load({name: text})
    assert read(settings, name) == value
    assert read(Settings(), name) == default
    others = [other for other in variables() if other != name]
    assert all(read(settings, other) == variables()[other][2] for other in others)


@pytest.mark.parametrize("name", list(variables()))
def test_load_reads_each_variable_from_a_file(name: str, tmp_path: Path) -> None:
    text, value = sample(name)
    file = tmp_path / "value"
    file.write_text(text + "\n")
    assert read(load({name + "_FILE": str(file)}), name) == value


def test_variable_names_do_not_collide_with_file_variables() -> None:
    assert not {name + "_FILE" for name in variables()} & set(variables())


@pytest.mark.parametrize("name", ["DECKLOG_PORT", "DECKLOG_API", "DECKLOG_API_PROT", "DECKLOG_", "DECKLOG_API_PROT_FILE"])
def test_load_refuses_unknown_variables_by_name(name: str) -> None:
    assert name in refusal({name: "hunter2"})
    assert "hunter2" not in refusal({name: "hunter2"})


def test_load_refuses_a_variable_together_with_its_file(tmp_path: Path) -> None:
    detail = refusal({"DECKLOG_DATABASE_DSN": "hunter2", "DECKLOG_DATABASE_DSN_FILE": str(tmp_path / "x")})
    assert "DECKLOG_DATABASE_DSN_FILE" in detail
    assert "hunter2" not in detail


def test_load_names_the_variable_of_an_unreadable_file(tmp_path: Path) -> None:
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
def test_load_names_the_variable_of_a_wrong_value_and_hides_the_value(name: str, value: str) -> None:
    detail = refusal({name: value})
    assert detail.startswith(f"{name} is not valid: ")
    assert not value or value not in detail.replace("65535", "")


COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def test_tracing_has_an_endpoint_only_when_set_and_not_disabled() -> None:
    assert tracing({}) == tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}) == Tracing()
    assert tracing(COLLECTOR) == Tracing("http://collector:4318", 2_048)
    assert tracing({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://other/v1/traces"}).endpoint == "https://other/v1/traces"
    assert tracing({**COLLECTOR, "OTEL_SDK_DISABLED": "True"}) == Tracing()
    assert tracing({**COLLECTOR, "OTEL_TRACES_EXPORTER": "none", "OTEL_TRACES_SAMPLER": "no matter"}) == Tracing()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("part", ["", "0", "1", "0.25", ".5", "1.0"])
def test_tracing_accepts_every_sampler_of_opentelemetry(sampler: str, part: str) -> None:
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
def test_tracing_names_the_variable_of_a_wrong_value_and_hides_the_value(name: str, value: str) -> None:
    with pytest.raises(DecklogError) as refused:
        tracing({**COLLECTOR, name: value})
    assert refused.value.code is Code.MISCONFIGURED
    assert refused.value.detail.startswith(f"{name} is not valid: ")
    assert value not in refused.value.detail.removeprefix(name) or value in ("0", "1.1")


def test_tracing_defaults_are_the_documented_ones() -> None:
    assert OPENTELEMETRY["OTEL_BSP_MAX_QUEUE_SIZE"][2] == Tracing().queue_spans_max
    assert OPENTELEMETRY["OTEL_TRACES_SAMPLER"][2] in SAMPLERS


ELSEWHERE = ["postgresql://a:b@db.example/x", "postgres://10.0.0.7:5432/x", "postgresql://[2001:db8::7]:5432/x"]
HERE = [
    "postgresql://a:b@127.0.0.1:5432/x",
    "postgresql://[::1]/x",
    "postgresql://localhost/x",
    "postgresql:///x?host=/run/postgresql",
]


@pytest.mark.parametrize("name", ["DECKLOG_DATABASE_DSN", "DECKLOG_DATABASE_OWNER_DSN", "DECKLOG_DATABASE_ADMIN_DSN"])
@pytest.mark.parametrize(
    "address",
    [
        *ELSEWHERE,
        "postgresql://127.0.0.1,db.example/x",
        "postgresql:///x?host=db.example",
        "postgresql://a:p%40ss@db.example/x?sslmode=require",
        "postgresql://db.example/x?sslmode=verify-ca",
        "postgresql://db.example/x?sslmode=verify-full&sslmode=disable",
    ],
)
def test_database_on_another_host_needs_a_verified_certificate(name: str, address: str) -> None:
    detail = refusal({name: address})
    assert name in detail
    assert "sslmode=verify-full" in detail
    assert "DECKLOG_DATABASE_ALLOW_UNVERIFIED=true" in detail
    assert not {"db.example", "p%40ss", "10.0.0.7"} & set(detail.split())
    assert load({name: address, "DECKLOG_DATABASE_ALLOW_UNVERIFIED": "true"}).database.allow_unverified


@pytest.mark.parametrize("address", [*HERE, *(f"{each}?sslmode=verify-full" for each in ELSEWHERE), "postgresql://[broken"])
def test_database_on_this_machine_or_with_a_verified_certificate_is_accepted(address: str) -> None:
    assert load({"DECKLOG_DATABASE_DSN": address}).database.dsn == address


def test_mode_of_the_environment_counts_for_addresses_without_one() -> None:
    assert load({"DECKLOG_DATABASE_DSN": ELSEWHERE[0], "PGSSLMODE": "verify-full"}).database.dsn
    assert refusal({"DECKLOG_DATABASE_DSN": f"{ELSEWHERE[0]}?sslmode=prefer", "PGSSLMODE": "verify-full"})
