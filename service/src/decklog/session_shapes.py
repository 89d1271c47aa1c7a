"""JSON of the routes for sign-in: sessions, one-time links and tickets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from decklog.shapes import WhoAmI


class SessionInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A sign-in. `link` is the code of a one-time link; without it, the request carries its credential in the header Authorization."""

    link: Annotated[str, Meta(max_length=200)] | None = None


class SessionIdentity(WhoAmI, kw_only=True):
    """One identity of a session."""

    id: Annotated[str, Meta(description="For the header `Decklog-Identity`. The same for the same credential.")]
    display_name: Annotated[str | None, Meta(description="Display name of the tenant, if it has one.")]


class Session(msgspec.Struct):
    """The session of the caller."""

    id: str
    csrf: Annotated[str, Meta(description="For the header `Decklog-Csrf`, which every change by the cookie needs.")]
    identities: Annotated[list[SessionIdentity], Meta(description="Those whose credentials are valid now.")]
    created_at: datetime
    last_used_at: datetime
    idle_ends_at: Annotated[datetime, Meta(description="End of the session without a further request.")]
    ends_at: Annotated[datetime, Meta(description="Latest end of the session.")]


class ListedIdentity(msgspec.Struct):
    """A credential of a session, as a list names it."""

    id: str
    kind: Literal["api_key", "jwt"]
    subject: str
    issuer: str | None
    tenant: str | None
    role: Literal["writer", "auditor", "admin", "platform"]


class ListedSession(msgspec.Struct):
    """A session in a list."""

    id: str
    created_at: datetime
    last_used_at: datetime
    ends_at: datetime
    address: Annotated[str, Meta(description="Address that opened the session.")]
    user_agent: str
    current: Annotated[bool, Meta(description="Whether this request came by it.")]
    identities: Annotated[list[ListedIdentity], Meta(description="Those that the caller may see.")]


class Sessions(msgspec.Struct):
    """Sessions, the one used last first."""

    items: list[ListedSession]


class SignInLink(msgspec.Struct):
    """A one-time link. Its code stands in the fragment, which no browser sends to a server."""

    url: str
    expires_at: datetime


class StreamTicket(msgspec.Struct):
    """A one-time ticket for `GET /api/v1/logs/stream?ticket=…`."""

    ticket: str
    expires_at: datetime
