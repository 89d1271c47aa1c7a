"""Refusals that belong into the access log of the tenant that they name: without its permission, suspended, over a limit.

A request without a valid credential names a tenant only where its key or its token does.
"""

from __future__ import annotations

from litestar.types import Scope

from decklog.api.request import PRINCIPAL, context_of
from decklog.api.services import ApiServices
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal
from decklog.services.identity.identity import CredentialRefusedError
from decklog.services.records.attempts import Attempt

_RECORDED = frozenset({Code.FORBIDDEN, Code.TENANT_SUSPENDED, Code.RATE_LIMITED, Code.QUOTA_EXCEEDED, Code.TOO_MANY_STREAMS})


def note_refused(services: ApiServices, scope: Scope, error: Exception) -> None:
    """Count a refusal for the access log of the tenant that it names. Never waits."""
    if isinstance(error, CredentialRefusedError):
        refused = Attempt(error.code.value, error.reason, error.kind, error.subject, error.issuer)
        services.attempts.note(error.tenant, refused, context_of(scope))
        return
    principal: Principal | None = scope.get("state", {}).get(PRINCIPAL)
    if not isinstance(error, DecklogError) or error.code not in _RECORDED or principal is None or principal.tenant is None:
        return
    attempt = Attempt(error.code.value, f"role {principal.role.value}", principal.kind, principal.subject, principal.issuer)
    services.attempts.note(principal.tenant, attempt, context_of(scope))
