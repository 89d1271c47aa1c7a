"""Settings of every Decklog process: one frozen tree, read once from the environment.

Each leaf is one variable: `DECKLOG_` and its path in capitals (`database.dsn` is `DECKLOG_DATABASE_DSN`). With `_FILE` appended,
the value is read from a file, as Kubernetes mounts secrets. Unknown `DECKLOG_` variables are refused, so a typo fails at the
start. docs/reference/settings.md is generated from this tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from decklog.ask_settings import Ask
from decklog.database_address import unverified_hosts
from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenant import CELL_PATTERN, DEFAULT_CELL

PREFIX = "DECKLOG_"
_FOREIGN = ("DECKLOG_TEST_", "DECKLOG_CACHE")
"""Prefixes of variables of the test suite, which a process ignores."""
_CLIENT = frozenset({"DECKLOG_URL", "DECKLOG_KEY", "DECKLOG_KEY_FILE", "DECKLOG_CONTEXT"})
"""Variables of the verbs that call the API, which a process ignores."""


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PostgreSQL, as each of the four roles."""

    dsn: Annotated[
        str,
        Meta(
            description="PostgreSQL URL of a process's least role: `decklog_service` for the API, `decklog_worker` for a worker."
        ),
    ] = ""
    owner_dsn: Annotated[
        str, Meta(description="PostgreSQL URL of the role `decklog_owner`, for provisioning and migrations only.")
    ] = ""
    admin_dsn: Annotated[str, Meta(description="PostgreSQL URL of a superuser, for `decklog migrate --bootstrap` only.")] = ""
    service_password: Annotated[
        str, Meta(description="Password that `decklog migrate --bootstrap` sets for `decklog_service`.")
    ] = ""
    worker_password: Annotated[
        str, Meta(description="Password that `decklog migrate --bootstrap` sets for `decklog_worker`.")
    ] = ""
    owner_password: Annotated[str, Meta(description="Password that `decklog migrate --bootstrap` sets for `decklog_owner`.")] = ""
    allow_unverified: Annotated[
        bool,
        Meta(
            description="Whether a database on another host may be used without `sslmode=verify-full` in its URL. Anybody on the way could then read and change records."
        ),
    ] = False
    pool_max: Annotated[
        int,
        Meta(
            ge=2,
            le=200,
            description="Connections of one process for the readings of tenants. An API process opens up to 7 more, a worker up to 6.",
        ),
    ] = 10


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """OpenSearch."""

    url: Annotated[str, Meta(description="OpenSearch URL; empty for search by PostgreSQL.")] = ""
    user: Annotated[str, Meta(description="OpenSearch user; empty for no authentication.")] = ""
    password: Annotated[str, Meta(description="OpenSearch password.")] = ""
    replicas: Annotated[int, Meta(ge=0, le=5, description="Replicas of each search index.")] = 1


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SQS."""

    enabled: Annotated[
        bool, Meta(description="Whether wake-ups are sent over SQS. Without SQS, workers find work by sweeping alone.")
    ] = False
    endpoint_url: Annotated[str, Meta(description="SQS endpoint; empty for the AWS endpoint of the region.")] = ""
    region: Annotated[str, Meta(description="AWS region.")] = "us-east-1"
    access_key_id: Annotated[str, Meta(description="Static AWS credential; empty for the SDK's credential chain (IRSA).")] = ""
    secret_access_key: Annotated[str, Meta(description="Static AWS credential; empty for the SDK's credential chain (IRSA).")] = (
        ""
    )


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where archives of deleted tenants are stored."""

    bucket: Annotated[
        str,
        Meta(
            max_length=255,
            pattern=r"^[A-Za-z0-9._:/-]*$",
            description="S3 bucket to which workers archive deleted tenants (`deletionPolicy: Archive`); empty for none.",
        ),
    ] = ""
    folder: Annotated[str, Meta(description="Folder to archive to in place of a bucket, for installations on one machine.")] = ""
    prefix: Annotated[
        str,
        Meta(
            max_length=255,
            pattern=r"^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?$",
            description="Prefix of all object names, as in `audit/decklog`; empty for the root of the bucket.",
        ),
    ] = ""
    endpoint_url: Annotated[str, Meta(description="S3 endpoint; empty for the AWS endpoint of the region.")] = ""
    region: Annotated[str, Meta(description="AWS region.")] = "us-east-1"
    access_key_id: Annotated[str, Meta(description="Static AWS credential; empty for the SDK's credential chain (IRSA).")] = ""
    secret_access_key: Annotated[str, Meta(description="Static AWS credential; empty for the SDK's credential chain (IRSA).")] = (
        ""
    )
    lock_mode: Annotated[
        str,
        Meta(
            pattern="^(governance|compliance)$",
            description="S3 Object Lock mode for `retention.archiveDays`: `governance` (principals with the right may lift a lock) or `compliance` (no principal may).",
        ),
    ] = "governance"


class Api(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP API and its limits."""

    host: Annotated[str, Meta(description="Address that the API listens on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port of the API; 0 picks a free one.")] = 8321
    metrics_port: Annotated[
        int, Meta(ge=0, le=65535, description="Port for /metrics and the probes; 0 serves /metrics on the port of the API.")
    ] = 0
    waiting_requests_max: Annotated[
        int,
        Meta(ge=3, description="Append requests that may wait for a commit, one tenant's at most a third; further ones get 503."),
    ] = 2_000
    waiting_bytes_max: Annotated[
        int,
        Meta(ge=1_048_576, description="Bytes of records that wait for a commit, one tenant's at most a third; more get 503."),
    ] = 64 * 1024 * 1024
    body_bytes_max: Annotated[
        int,
        Meta(
            ge=1024 * 1024,
            description="Bytes of request bodies that may be received, decompressed or prepared at once, one tenant's at most a third; "
            "further requests get 503. A bulk of 16 MiB needs about 40 MiB of it.",
        ),
    ] = 128 * 1024 * 1024
    reading_bytes_max: Annotated[
        int,
        Meta(
            ge=25_165_824, description="Bytes of unsent pages, exports and streams, one tenant's at most a third; more get 503."
        ),
    ] = 96 * 1024 * 1024
    streams_max: Annotated[int, Meta(ge=1, description="Open streams of one process; further ones get 429.")] = 1_000
    trusted_proxies: Annotated[
        str,
        Meta(
            description="Comma-separated addresses and networks (CIDR) of the proxies whose X-Forwarded-For is trusted; empty for none."
        ),
    ] = ""
    checked_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of listed records that are compared with their digests; other reads compare all."),
    ] = 0.1
    search_timeout: Annotated[float, Meta(gt=0, description="Seconds that one list or count may take in PostgreSQL.")] = 5.0
    tls_certificate_file: Annotated[
        str,
        Meta(
            description="PEM file of the certificate, followed by its intermediates, with which the API serves HTTPS; empty for HTTP. A changed file is loaded without a restart."
        ),
    ] = ""
    tls_key_file: Annotated[str, Meta(description="PEM file of the private key of the certificate, without a password.")] = ""
    connections_max: Annotated[
        int, Meta(ge=16, le=100_000, description="Open connections of one process; further ones get 503 or are closed.")
    ] = 2_000
    connections_per_address_max: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Open connections of one client address (of IPv6: one /64 network); further ones get 429. Trusted proxies are exempt.",
        ),
    ] = 1_000
    header_bytes_max: Annotated[
        int,
        Meta(
            ge=4_096, le=1_048_576, description="Bytes of the request line and the headers of one request; more get 431 or 414."
        ),
    ] = 32 * 1024
    header_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=600,
            description="Seconds for the headers of a request to arrive; afterwards 408. A new connection has as long.",
        ),
    ] = 10.0
    idle_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=3_600,
            description="Seconds that a connection may stay open without a request; longer than the idle time of common load balancers (60), so that they close first.",
        ),
    ] = 75.0
    receive_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=600,
            description="Seconds in which a body must progress by `DECKLOG_API_TRANSFER_RATE_MIN`; a slower one gets 408. A whole body may take 60 seconds.",
        ),
    ] = 10.0
    send_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=3_600,
            description="Seconds in which a client must read waiting bytes of an answer at `DECKLOG_API_TRANSFER_RATE_MIN`; a slower one is disconnected.",
        ),
    ] = 30.0
    transfer_rate_min: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Bytes a second that a body and an answer must move at least.")
    ] = 1_024


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credentials: trusted issuers, and the key of fingerprints."""

    issuers_file: Annotated[
        str,
        Meta(
            description="JSON file of the trusted JWT issuers and the tenants that each may issue tokens for; empty for API keys only."
        ),
    ] = ""
    token_seconds_max: Annotated[
        float,
        Meta(
            ge=60,
            le=366 * 86_400,
            description="Longest life of a JWT in seconds: `exp` may be so far after `iat` and after the present. Other tokens get 401.",
        ),
    ] = 86_400.0
    unreachable_seconds_max: Annotated[
        float,
        Meta(
            ge=600,
            le=366 * 86_400,
            description="Seconds for which the keys of an issuer that cannot be reached stay valid. After that its tokens get 503 `issuer-unavailable`.",
        ),
    ] = 14_400.0
    fingerprint_key: Annotated[
        str,
        Meta(
            description="Secret of at least 32 characters that keys the fingerprints of retries. Every API process needs the same value."
        ),
    ] = ""


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The board: its pages, sign-in and sessions."""

    enabled: Annotated[bool, Meta(description="Whether the API serves the board, the pages at `/board`.")] = True
    session_idle_seconds: Annotated[
        float, Meta(ge=300, le=2_592_000, description="Seconds without a request after which a session ends.")
    ] = 28_800.0
    session_seconds: Annotated[
        float, Meta(ge=300, le=31_536_000, description="Seconds after which a session ends, however much it is used.")
    ] = 604_800.0
    oidc_issuer: Annotated[
        str, Meta(description="Issuer of the sign-in by OpenID Connect, an entry of the issuers file; empty for none.")
    ] = ""
    oidc_client_id: Annotated[str, Meta(description="Client id of Decklog at that issuer.")] = ""
    oidc_client_secret: Annotated[str, Meta(description="Client secret; empty for a public client, which PKCE protects.")] = ""
    oidc_scopes: Annotated[str, Meta(description="Scopes that the sign-in asks for, separated by blanks.")] = "openid profile"
    oidc_name: Annotated[str, Meta(max_length=100, description="Name of the provider on the button of the sign-in.")] = (
        "OpenID Connect"
    )
    frame_ancestors: Annotated[
        str,
        Meta(
            max_length=4_000,
            pattern=r"^(https?://(\*\.)?[A-Za-z0-9.-]+(:([0-9]{1,5}|\*))?( https?://(\*\.)?[A-Za-z0-9.-]+(:([0-9]{1,5}|\*))?)*)?$",
            description="Origins whose pages may show `/board/embed` in a frame, separated by blanks, as in `https://app.example.com`; empty for none.",
        ),
    ] = ""


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The worker."""

    sweep_seconds: Annotated[
        float, Meta(gt=0, description="Seconds between two sweeps, which compare all heads with all cursors.")
    ] = 2.0
    pollers: Annotated[int, Meta(ge=1, le=64, description="Concurrent long polls of SQS. Each occupies a thread.")] = 4
    concurrency: Annotated[
        int, Meta(ge=1, le=64, description="Batches that each consumer of a worker reads and applies concurrently.")
    ] = 4
    metrics_port: Annotated[
        int, Meta(ge=0, le=65535, description="Port for /healthz, /readyz and /metrics of the worker; 0 for none.")
    ] = 0


class Tenants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The source of tenants."""

    owner: Annotated[
        str,
        Meta(
            pattern="^(kubernetes|decklog)$",
            description="Source of tenants: `kubernetes` (the operator alone), or `decklog` (the API, which then needs `DECKLOG_DATABASE_OWNER_DSN`, and `decklog provision`).",
        ),
    ] = "kubernetes"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one process."""

    database: Database = Database()
    search: Search = Search()
    queue: Queue = Queue()
    archive: Archive = Archive()
    api: Api = Api()
    identity: Identity = Identity()
    board: Board = Board()
    ask: Ask = Ask()
    worker: Worker = Worker()
    tenants: Tenants = Tenants()
    prefix: Annotated[
        str,
        Meta(
            pattern="^[a-z][a-z0-9]{0,15}$",
            description="Prefix of the names of indices and queues. Installations that share a cluster or an account need different prefixes.",
        ),
    ] = "decklog"
    cell: Annotated[
        str,
        Meta(
            pattern=CELL_PATTERN,
            description="Name of this installation's cell, the database that stores records. `spec.cell` of a Tenant must name it.",
        ),
    ] = DEFAULT_CELL
    log_format: Annotated[str, Meta(pattern="^(json|text)$", description="Format of log lines: `json` or `text`.")] = "json"


_GROUPS = tuple(
    item.name
    for item in msgspec.structs.fields(Settings)
    if isinstance(item.type, type) and issubclass(item.type, msgspec.Struct)
)


def variables() -> dict[str, tuple[type, str, Any]]:
    """Return every variable with its type, description and default."""
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
    """Return the settings of an environment. Raises `misconfigured`, which names the variable and never its value."""
    known = variables()
    tree: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name.startswith(_FOREIGN) or name in _CLIENT:
            continue
        setting = name if name in known else name.removesuffix("_FILE")
        if setting not in known:
            raise DecklogError(Code.MISCONFIGURED, f"There is no setting {name}. See docs/reference/settings.md.")
        if setting != name and setting in environment:
            raise DecklogError(Code.MISCONFIGURED, f"Set either {setting} or {name}, not both.")
        _put(tree, setting, value if setting == name else _read(name, value))
    try:
        loaded = msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise DecklogError(Code.MISCONFIGURED, _invalid(str(error))) from None
    _require_verified(loaded.database, environment.get("PGSSLMODE", ""))
    return loaded


def _require_verified(database: Database, default_mode: str) -> None:
    """Refuse a database on another host whose certificate would not be verified, unless that is allowed."""
    for name in ("dsn", "owner_dsn", "admin_dsn"):
        if not database.allow_unverified and unverified_hosts(getattr(database, name), default_mode):
            raise DecklogError(
                Code.MISCONFIGURED,
                f"{PREFIX}DATABASE_{name.upper()} names another host without sslmode=verify-full, so anybody on the way could read and "
                "change records. Add sslmode=verify-full, and sslrootcert=… for a private authority; or set "
                f"{PREFIX}DATABASE_ALLOW_UNVERIFIED=true where the network itself is trusted.",
            )


def _read(name: str, file: str) -> str:
    """Return the content of the file that the variable `name` names, without its final line breaks."""
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DecklogError(Code.MISCONFIGURED, f"{name}: the file cannot be read ({why}).") from None


def _invalid(message: str) -> str:
    """Return a message of msgspec, which never contains the value, with the variable in place of the path."""
    expected, _, path = message.partition(" - at `$.")
    name = PREFIX + path.rstrip("`").replace(".", "_").upper()
    return f"{name} is not valid: {expected}."


def _put(tree: dict[str, Any], name: str, value: str) -> None:
    path = name.removeprefix(PREFIX).lower()
    for group in _GROUPS:
        if path.startswith(group + "_"):
            tree.setdefault(group, {})[path.removeprefix(group + "_")] = value
            return
    tree[path] = value
