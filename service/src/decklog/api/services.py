"""The services that the HTTP API calls: what `create_app` needs and every route gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from decklog.domain.store import Readiness
from decklog.services.ask.asking import Asking
from decklog.services.ask.conversations import OwnConversations
from decklog.services.identity.identity import Identity
from decklog.services.identity.oidc import OidcSignIn
from decklog.services.identity.sessions import Sessions
from decklog.services.records.attempts import Attempts
from decklog.services.records.ingest import Ingest
from decklog.services.records.reading import Reading
from decklog.services.records.rejected import Rejected
from decklog.services.records.retention import Retention
from decklog.services.records.searches import Searches
from decklog.services.records.sign_in import SignIn
from decklog.services.records.streaming import Streams
from decklog.services.records.viewers import Viewers
from decklog.services.tenancy.keys import Keys
from decklog.services.tenancy.tenants import Tenants


@dataclass(frozen=True)
class ApiServices:
    """Started services over one cell. The caller stops them after the server; `readiness` is by name of the backend."""

    identity: Identity
    ingest: Ingest
    reading: Reading
    streams: Streams
    tenants: Tenants
    readiness: Mapping[str, Readiness]
    attempts: Attempts
    rejected: Rejected
    searches: Searches
    keys: Keys
    sessions: Sessions
    sign_in: SignIn
    retention: Retention
    viewers: Viewers
    conversations: OwnConversations
    asking: Asking
    oidc: OidcSignIn | None = None
