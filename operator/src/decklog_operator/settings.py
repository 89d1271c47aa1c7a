"""Settings of the operator alone, read once from `DECKLOG_OPERATOR_` variables.

`decklog.settings` reads the backends. `split` separates the two groups, because each rejects unknown variables at startup.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from decklog.domain.errors import Code, DecklogError
from decklog_operator.names import OPERATOR

PREFIX = "DECKLOG_OPERATOR_"


class OperatorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field per variable; the descriptions are in docs/reference/settings.md."""

    api_url: Annotated[
        str, Meta(pattern=r"^https?://[^\s@]+$", description="Address of the API, written to each tenant's Secret.")
    ] = "http://decklog-api.decklog-system.svc:8321"
    resync_seconds: Annotated[
        float, Meta(ge=1, le=86_400, description="Seconds between two visits of a ready tenant, varied by up to a fifth.")
    ] = 300.0
    retry_max_seconds: Annotated[
        float, Meta(ge=0.1, le=3_600, description="Longest pause between two attempts at a tenant that is not ready, in seconds.")
    ] = 60.0
    pass_max_seconds: Annotated[
        float,
        Meta(
            ge=1,
            le=3_600,
            description="Longest duration of one attempt at a tenant, in seconds. A longer attempt is cancelled and retried.",
        ),
    ] = 600.0
    selector: Annotated[
        str, Meta(max_length=1_000, description="Label selector of the Tenants that this operator serves; empty for all.")
    ] = ""
    lease_namespace: Annotated[
        str,
        Meta(
            max_length=63,
            pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
            description="Namespace of the Lease that elects the working replica. Empty: the namespace of the pod; outside a cluster, no Lease.",
        ),
    ] = ""
    lease_name: Annotated[
        str,
        Meta(
            max_length=253,
            pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$",
            description=f"Name of the Lease; empty for {OPERATOR}. Required with a selector, and different for each selector.",
        ),
    ] = ""
    lease_seconds: Annotated[
        int,
        Meta(
            ge=3,
            le=3_600,
            description="Seconds until a standby replica takes the Lease of a dead one. A replica that cannot renew it for two thirds of this time ends.",
        ),
    ] = 15
    watch_silence_max_seconds: Annotated[
        float,
        Meta(
            ge=9,
            le=3_600,
            description="Seconds without data from the watch of Tenants after which /healthz fails.",
        ),
    ] = 180.0
    health_host: Annotated[str, Meta(description="Address of the server of /healthz, /readyz and /metrics.")] = "127.0.0.1"
    health_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of /healthz, /readyz and /metrics; 0 picks a free port and logs it.")
    ] = 8080


def variables() -> dict[str, tuple[type, str, Any]]:
    """Return each variable with its type, description and default."""
    hints = get_type_hints(OperatorSettings, include_extras=True)
    found: dict[str, tuple[type, str, Any]] = {}
    for field in msgspec.structs.fields(OperatorSettings):
        hint = hints[field.name]
        kind, meta = get_args(hint)[:2] if get_origin(hint) is Annotated else (hint, Meta())
        found[PREFIX + field.name.upper()] = (kind, meta.description or "", field.default)
    return found


def split(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the operator's variables and the others (for `decklog.settings.load`)."""
    own = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    return own, {name: value for name, value in environment.items() if name not in own}


def load(environment: Mapping[str, str]) -> OperatorSettings:
    """Return the settings from environment variables. Raises `misconfigured`, which names the variable and never its value."""
    own, _ = split(environment)
    if unknown := sorted(own.keys() - variables().keys()):
        raise DecklogError(Code.MISCONFIGURED, f"There is no setting {unknown[0]}. See docs/reference/settings.md.")
    tree = {name.removeprefix(PREFIX).lower(): value for name, value in own.items()}
    try:
        return msgspec.convert(tree, OperatorSettings, strict=False)
    except msgspec.ValidationError as error:
        raise DecklogError(
            Code.MISCONFIGURED, f"A setting {PREFIX}… is not valid: {str(error).partition(' - got')[0]}."
        ) from None
