"""Settings of traces: the variables of OpenTelemetry's SDK, under the names that every collector's documentation uses.

They are not part of the tree of `settings`. This module checks those without which no trace can be sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from decklog.domain.errors import Code, DecklogError

SAMPLERS = frozenset(
    f"{parent}{sampler}" for parent in ("", "parentbased_") for sampler in ("always_on", "always_off", "traceidratio")
)
OPENTELEMETRY: dict[str, tuple[type, str, Any]] = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": (
        str, "Address of a collector of OTLP over HTTP, as in http://collector:4318; empty for no traces.", "",
    ),
    "OTEL_EXPORTER_OTLP_HEADERS": (str, "Headers for the collector, as in api-key=abc,team=audit.", ""),
    "OTEL_SERVICE_NAME": (str, "Name of the service in traces; empty for decklog-api, decklog-worker or (`decklog dev`) decklog.", ""),
    "OTEL_TRACES_SAMPLER": (str, f"Sampler of requests and batches: {', '.join(sorted(SAMPLERS))}.", "parentbased_always_on"),
    "OTEL_TRACES_SAMPLER_ARG": (float, "Sampled share from 0 to 1, for samplers by ratio.", 1.0),
    "OTEL_BSP_MAX_QUEUE_SIZE": (int, "Spans that may wait to be sent; further ones are dropped and counted.", 2_048),
}  # fmt: skip
"""The documented variables of OpenTelemetry's SDK."""


class Tracing(msgspec.Struct, frozen=True):
    """Settings of traces. No trace is sent where `endpoint` is empty."""

    endpoint: str = ""
    queue_spans_max: int = 2_048


def tracing(environment: Mapping[str, str]) -> Tracing:
    """Return the settings of traces. Raises `misconfigured`, which names the variable and never its value."""

    def value_of(name: str) -> str:
        return environment.get(name, "").strip()

    endpoint = value_of("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or value_of("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint or value_of("OTEL_SDK_DISABLED").lower() == "true" or value_of("OTEL_TRACES_EXPORTER") == "none":
        return Tracing()
    if not endpoint.startswith(("http://", "https://")) or not urlsplit(endpoint).hostname:
        raise _wrong("OTEL_EXPORTER_OTLP_ENDPOINT", "an address as in http://collector:4318")
    protocol = value_of("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or value_of("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in ("", "http/protobuf"):
        raise _wrong("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf, the only one that Decklog speaks (mostly on port 4318)")
    if (value_of("OTEL_TRACES_SAMPLER").lower() or "always_on") not in SAMPLERS:
        raise _wrong("OTEL_TRACES_SAMPLER", f"one of {', '.join(sorted(SAMPLERS))}")
    if not re.fullmatch(r"|0*(0|1|0?\.[0-9]+|1\.0*)", value_of("OTEL_TRACES_SAMPLER_ARG")):
        raise _wrong("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1")
    room = value_of("OTEL_BSP_MAX_QUEUE_SIZE") or str(Tracing().queue_spans_max)
    if not re.fullmatch(r"[1-9][0-9]{0,6}", room):
        raise _wrong("OTEL_BSP_MAX_QUEUE_SIZE", "a number from 1 to 9999999")
    return Tracing(endpoint, int(room))


def _wrong(name: str, wanted: str) -> DecklogError:
    return DecklogError(Code.MISCONFIGURED, f"{name} is not valid: it must be {wanted}.")
