"""The shapes of the API's answers about API keys; see `shapes`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class ApiKey(msgspec.Struct):
    """An API key of the tenant, without its secret."""

    id: Annotated[str, Meta(description="Id of the key, as in `dlk_<id>_<secret>` and in access records.")]
    role: Literal["writer", "auditor", "admin"]
    name: Annotated[str | None, Meta(description="What the key is for; null for a provisioned one.")]
    source: Annotated[
        Literal["provisioned", "api"], Meta(description="Whether provisioning made the key, or an admin over the API.")
    ]
    created_at: datetime
    created_by: Annotated[
        str | None, Meta(description="Credential that made it: kind, issuer and subject; null for a provisioned key.")
    ]
    expires_at: Annotated[datetime | None, Meta(description="Time from which the key is refused; null without an end.")]
    revoked_at: Annotated[datetime | None, Meta(description="Time of its revocation; null while it is not revoked.")]
    last_used_at: Annotated[
        datetime | None, Meta(description="Time of its last use, about a minute behind; null if it was not used yet.")
    ]


class ApiKeys(msgspec.Struct):
    """Keys in force, newest first, then the 200 others that ended last."""

    items: list[ApiKey]


class MadeKey(ApiKey):
    """A new API key, with its secret."""

    key: Annotated[str, Meta(pattern="^dlk_[0-9a-z]+_[0-9A-Za-z]+$", description="The key, shown only in this answer.")]
