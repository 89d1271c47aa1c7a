"""Settings of every Decklog process: one frozen tree, read once from the environment.

Each leaf is one variable, `DECKLOG_` and its path in capitals (`database.dsn` is `DECKLOG_DATABASE_DSN`); with `_FILE`
appended the value is read from a file, as Kubernetes mounts secrets. Unknown `DECKLOG_` variables are refused, so a
typo is seen at the start. docs/reference/settings.md is generated from this tree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenant import CELL_PATTERN, DEFAULT_CELL

PREFIX = "DECKLOG_"
_FOREIGN = ("DECKLOG_TEST_", "DECKLOG_CACHE")
"""Variables of the test suite, which may be set beside a process of ours."""
_CLIENT = frozenset({"DECKLOG_URL", "DECKLOG_KEY", "DECKLOG_KEY_FILE"})
"""Variables of `decklog import`, which a person may have set beside a process of ours."""


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dsn: Annotated[str, Meta(description="PostgreSQL URL of the least role `decklog_service`; used by API and workers.")] = ""
    owner_dsn: Annotated[str, Meta(description="URL of the role `decklog_owner`; used by provisioning and migrations only.")] = ""
    admin_dsn: Annotated[str, Meta(description="URL of a superuser; used once, by `decklog migrate --bootstrap`.")] = ""
    service_password: Annotated[
        str, Meta(description="Password that `decklog migrate --bootstrap` gives to `decklog_service`.")
    ] = ""
    owner_password: Annotated[str, Meta(description="Password that `decklog migrate --bootstrap` gives to `decklog_owner`.")] = ""
    pool_max: Annotated[int, Meta(ge=2, le=200, description="Connections of one process for reading.")] = 10


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[str, Meta(description="OpenSearch URL; empty means that Postgres searches.")] = ""
    user: Annotated[str, Meta(description="User of OpenSearch; empty for none.")] = ""
    password: Annotated[str, Meta(description="Its password.")] = ""
    replicas: Annotated[int, Meta(ge=0, le=5, description="Replicas of each index.")] = 1


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enabled: Annotated[bool, Meta(description="Whether wake-ups go through SQS; without, the sweeper alone finds work.")] = False
    endpoint_url: Annotated[str, Meta(description="SQS endpoint; empty for the one of AWS.")] = ""
    region: Annotated[str, Meta(description="AWS region.")] = "us-east-1"
    access_key_id: Annotated[str, Meta(description="Static credentials; empty for the SDK's own chain (IRSA).")] = ""
    secret_access_key: Annotated[str, Meta(description="Static credentials; empty for the SDK's own chain (IRSA).")] = ""


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bucket: Annotated[
        str,
        Meta(
            max_length=255,
            pattern=r"^[A-Za-z0-9._:/-]*$",
            description="S3 bucket that the workers archive deleted tenants to (`deletionPolicy: Archive`); empty for none.",
        ),
    ] = ""
    folder: Annotated[str, Meta(description="A folder in place of a bucket, where all is on one machine.")] = ""
    prefix: Annotated[
        str,
        Meta(
            max_length=255,
            pattern=r"^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?$",
            description="How the names of all objects begin, as in `audit/decklog`; empty for the bucket as a whole.",
        ),
    ] = ""
    endpoint_url: Annotated[str, Meta(description="S3 endpoint; empty for the one of AWS.")] = ""
    region: Annotated[str, Meta(description="AWS region.")] = "us-east-1"
    access_key_id: Annotated[str, Meta(description="Static credentials; empty for the SDK's own chain (IRSA).")] = ""
    secret_access_key: Annotated[str, Meta(description="Static credentials; empty for the SDK's own chain (IRSA).")] = ""
    lock_mode: Annotated[
        str,
        Meta(
            pattern="^(governance|compliance)$",
            description="Mode of Object Lock for `retention.archiveDays`: governance (who has the right may lift it), or compliance (nobody).",
        ),
    ] = "governance"


class Api(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: Annotated[str, Meta(description="Address that the API listens on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port of the API; 0 picks a free one.")] = 8321
    metrics_port: Annotated[int, Meta(ge=0, le=65535, description="Port for /metrics alone; 0 serves it beside the API.")] = 0
    waiting_requests_max: Annotated[int, Meta(ge=1, description="Append requests that may wait for a commit; more get 503.")] = (
        2_000
    )
    waiting_bytes_max: Annotated[int, Meta(ge=1, description="Bytes of records that may wait for a commit; more get 503.")] = (
        128 * 1024 * 1024
    )
    streams_max: Annotated[int, Meta(ge=1, description="Open streams of one process; more get 429.")] = 1_000
    trusted_proxies: Annotated[
        str,
        Meta(
            description="Addresses and networks (CIDR), separated by commas, of the proxies whose X-Forwarded-For is believed; empty for none."
        ),
    ] = ""
    search_timeout: Annotated[float, Meta(gt=0, description="Seconds that one list or count may take in Postgres.")] = 5.0


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    issuers_file: Annotated[
        str,
        Meta(
            description="JSON file with the JWT issuers that are trusted and the tenants each may speak for; empty for API keys only."
        ),
    ] = ""
    fingerprint_key: Annotated[
        str,
        Meta(description="Secret of at least 32 characters; keys the fingerprint that recognises retries. The same everywhere."),
    ] = ""


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sweep_seconds: Annotated[float, Meta(gt=0, description="Seconds between two comparisons of all heads and cursors.")] = 2.0
    pollers: Annotated[int, Meta(ge=1, le=64, description="Long polls of SQS at once; each blocks a thread.")] = 4
    concurrency: Annotated[int, Meta(ge=1, le=64, description="Logs that one worker advances at once.")] = 4
    metrics_port: Annotated[
        int, Meta(ge=0, le=65535, description="Port for /healthz and /metrics of the worker; 0 for none.")
    ] = 0


class Tenants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    owner: Annotated[
        str,
        Meta(
            pattern="^(kubernetes|decklog)$",
            description="Who makes tenants: kubernetes (its operator alone), or decklog (the API, which then needs `DECKLOG_DATABASE_OWNER_DSN`, and `decklog provision`).",
        ),
    ] = "kubernetes"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    database: Database = Database()
    search: Search = Search()
    queue: Queue = Queue()
    archive: Archive = Archive()
    api: Api = Api()
    identity: Identity = Identity()
    worker: Worker = Worker()
    tenants: Tenants = Tenants()
    prefix: Annotated[
        str,
        Meta(
            pattern="^[a-z][a-z0-9]{0,15}$",
            description="How the names of indices and queues begin; installations that share a cluster or an account need different ones.",
        ),
    ] = "decklog"
    cell: Annotated[
        str,
        Meta(
            pattern=CELL_PATTERN,
            description="Name of this installation's one cell, the database that keeps records; a Tenant says by `spec.cell` in which it lives.",
        ),
    ] = DEFAULT_CELL
    log_format: Annotated[str, Meta(pattern="^(json|text)$", description="Form of log lines: json or text.")] = "json"


_GROUPS = tuple(
    item.name
    for item in msgspec.structs.fields(Settings)
    if isinstance(item.type, type) and issubclass(item.type, msgspec.Struct)
)


def variables() -> dict[str, tuple[type, str, Any]]:
    """Every variable with its type, description and default."""
    found: dict[str, tuple[type, str, Any]] = {}

    def walk(struct: type[msgspec.Struct], prefix: str) -> None:
        hints = get_type_hints(struct, include_extras=True)
        for item in msgspec.structs.fields(struct):
            name = prefix + item.name.upper()
            if isinstance(item.type, type) and issubclass(item.type, msgspec.Struct):
                walk(item.type, name + "_")
                continue
            hint = hints[item.name]
            kind, meta = get_args(hint)[:2] if get_origin(hint) is Annotated else (hint, Meta())
            found[name] = (kind, meta.description or "", item.default)

    walk(Settings, PREFIX)
    return found


def load(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables. Raises `misconfigured`, naming the variable and never its value."""
    known = variables()
    tree: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name.startswith(_FOREIGN) or name in _CLIENT:
            continue
        plain = name.removesuffix("_FILE") if name not in known else name
        if plain not in known:
            raise DecklogError(Code.MISCONFIGURED, f"There is no setting {name}. See docs/reference/settings.md.")
        if plain != name:
            if plain in environment:
                raise DecklogError(Code.MISCONFIGURED, f"Set either {plain} or {name}, not both.")
            try:
                value = Path(value).read_text(encoding="utf-8").rstrip("\n")  # noqa: PLW2901
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
                raise DecklogError(Code.MISCONFIGURED, f"{name}: the file cannot be read ({why}).") from None
        _put(tree, plain, value)
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise DecklogError(Code.MISCONFIGURED, _invalid(str(error))) from None


def _invalid(message: str) -> str:
    """msgspec's message, which says what was expected and never the value, with the variable for the path."""
    expected, _, path = message.partition(" - at `$.")
    name = PREFIX + path.rstrip("`").replace(".", "_").upper()
    return f"{name} is not valid: {expected}."


SAMPLERS = frozenset(
    f"{parent}{sampler}" for parent in ("", "parentbased_") for sampler in ("always_on", "always_off", "traceidratio")
)
OPENTELEMETRY: dict[str, tuple[type, str, Any]] = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": (
        str, "Address of a collector that takes OTLP over HTTP, as in http://collector:4318; empty for no traces.", "",
    ),
    "OTEL_EXPORTER_OTLP_HEADERS": (str, "Headers for it, as in api-key=abc,team=audit.", ""),
    "OTEL_SERVICE_NAME": (str, "Name of the service in traces; empty for decklog-api, decklog-worker, or decklog for `decklog dev`.", ""),
    "OTEL_TRACES_SAMPLER": (str, f"Which requests and batches are traced: {', '.join(sorted(SAMPLERS))}.", "parentbased_always_on"),
    "OTEL_TRACES_SAMPLER_ARG": (float, "Their part from 0 to 1, for the samplers by ratio.", 1.0),
    "OTEL_BSP_MAX_QUEUE_SIZE": (int, "Spans that may wait to be sent; what there is no room for is dropped and counted.", 2_048),
}  # fmt: skip
"""What is documented of the variables that OpenTelemetry's SDK reads. They keep its names, which every collector's documentation
uses, so they are no part of the tree; those without which nothing sensible can be sent are checked."""


class Tracing(msgspec.Struct, frozen=True):
    """Whether traces are sent: not where there is no endpoint."""

    endpoint: str = ""
    queue_spans_max: int = 2_048


def tracing(environment: Mapping[str, str]) -> Tracing:
    """What OpenTelemetry's variables say. Raises `misconfigured`, naming the variable and never its value."""

    def told(name: str) -> str:
        return environment.get(name, "").strip()

    endpoint = told("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or told("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint or told("OTEL_SDK_DISABLED").lower() == "true" or told("OTEL_TRACES_EXPORTER") == "none":
        return Tracing()
    if not endpoint.startswith(("http://", "https://")) or not urlsplit(endpoint).hostname:
        raise _wrong("OTEL_EXPORTER_OTLP_ENDPOINT", "an address as in http://collector:4318")
    protocol = told("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or told("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in ("", "http/protobuf"):
        raise _wrong("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf, the only one that Decklog speaks (mostly on port 4318)")
    if (told("OTEL_TRACES_SAMPLER").lower() or "always_on") not in SAMPLERS:
        raise _wrong("OTEL_TRACES_SAMPLER", f"one of {', '.join(sorted(SAMPLERS))}")
    if not re.fullmatch(r"|0*(0|1|0?\.[0-9]+|1\.0*)", told("OTEL_TRACES_SAMPLER_ARG")):
        raise _wrong("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1")
    room = told("OTEL_BSP_MAX_QUEUE_SIZE") or str(Tracing().queue_spans_max)
    if not re.fullmatch(r"[1-9][0-9]{0,6}", room):
        raise _wrong("OTEL_BSP_MAX_QUEUE_SIZE", "a number from 1 to 9999999")
    return Tracing(endpoint, int(room))


def _wrong(name: str, wanted: str) -> DecklogError:
    return DecklogError(Code.MISCONFIGURED, f"{name} is not valid: it must be {wanted}.")


def _put(tree: dict[str, Any], name: str, value: str) -> None:
    path = name.removeprefix(PREFIX).lower()
    for group in _GROUPS:
        if path.startswith(group + "_"):
            tree.setdefault(group, {})[path.removeprefix(group + "_")] = value
            return
    tree[path] = value
