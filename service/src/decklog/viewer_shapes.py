"""The shapes of viewer tokens and of the answers to them, for the OpenAPI document and the tests."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

ViewedRecord = Annotated[dict[str, Any], Meta(description="Members of a record that a viewer token shows.")]


class ViewerPage(msgspec.Struct):
    """One page of records by a viewer token, without numbers of the whole log. `next` and `position` are sealed."""

    items: list[ViewedRecord]
    next: Annotated[str | None, Meta(description="`cursor` of the next page; null on the last page.")]
    total: Annotated[int | None, Meta(description="Number of all matching records, with `count=exact`; null without.")]
    position: Annotated[
        str | None, Meta(description="Position of a list in ascending order of `received_at`, for `after`; else null.")
    ]


class ViewerToken(msgspec.Struct):
    """A viewer token."""

    token: Annotated[str, Meta(pattern="^dlv_", description="Credential for `Authorization: Bearer`.")]
    expires_at: Annotated[datetime, Meta(tz=True, description="End of the token.")]
