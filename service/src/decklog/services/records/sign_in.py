"""Sign-in, sign-out and the list of sessions: what a session may hold, who may see and end it, and the access record of each request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, Principal, RequestContext
from decklog.domain.identity.session import CodeKind, Held, Session, held, merged, new_id
from decklog.domain.records.record import Outcome
from decklog.services.identity.identity import unauthenticated
from decklog.services.identity.sessions import Sessions, refused
from decklog.services.records.access_log import (
    SESSIONS_CLOSE,
    SESSIONS_END,
    SESSIONS_LINK,
    SESSIONS_LIST,
    SESSIONS_OPEN,
    AccessLog,
)

_ID = re.compile(r"[0-9a-f]{16}")


class SignIn:
    """The sign-ins of one process. A change is recorded before it is made, so none goes unrecorded."""

    def __init__(self, sessions: Sessions, access_log: AccessLog) -> None:
        self._sessions = sessions
        self._access_log = access_log

    async def open(
        self, principals: Sequence[Principal], request: RequestContext, current: Session | None, how: str
    ) -> tuple[str, Session]:
        """Open a session for these principals and return its token and the session.

        The identities of the `current` session, if there is one, are added behind them, and it ends. A tenant that is suspended takes
        no record of a sign-in, so its identity is left out, and refused where it is the only one.

        Raises:
            DecklogError: `tenant-suspended`, `forbidden` for a credential that opens no session, `conflict` for too many identities,
                `rate-limited`, `overloaded`, `access-log-unavailable` and `storage-unavailable`.
        """
        others = [] if current is None else [held(each) for each in await self._sessions.principals(current.identities)]
        merged([held(each) for each in principals], others)
        number, recorded, suspended = new_id(), [], None
        details = {"by": how, **({} if current is None else {"replaces": current.id})}
        for each in principals:
            try:
                await self._access_log.write(
                    replace(each, session=number), request, SESSIONS_OPEN, resource=("session", number), details=details
                )
            except DecklogError as error:
                if error.code is not Code.TENANT_SUSPENDED:
                    raise
                suspended = error
            else:
                recorded.append(held(each))
        if not recorded:
            raise suspended or unauthenticated()
        return await self._sessions.open(
            merged(recorded, others),
            number=number,
            address=request.ip,
            user_agent=request.user_agent,
            replaces=None if current is None else current.id,
        )

    async def open_by_link(self, code: str, request: RequestContext, current: Session | None) -> tuple[str, Session]:
        """Use up a one-time link and open a session for its identities, as `open`. Raises `unauthenticated`, too."""
        taken = await self._sessions.take(CodeKind.LINK, code)
        principals = await self._sessions.principals(taken.identities)
        if not principals:
            raise refused(CodeKind.LINK.value)
        return await self.open(principals, request, current, "link")

    async def close(self, session: Session, request: RequestContext) -> None:
        """End the session of the request. The end is recorded late: what only takes rights away waits for no record."""
        principals = await self._sessions.principals(session.identities, session.id)
        await self._sessions.end(session.id, session.identities[0].tenant_id)
        for each in principals:
            await self._access_log.write_late(
                each, request, SESSIONS_CLOSE, resource=("session", session.id), details={}, outcome=Outcome.SUCCESS
            )

    async def visible(self, principal: Principal, request: RequestContext) -> list[Session]:
        """Return the sessions that this credential may see, the one used last first, each with the identities that it may see."""
        found = await self._visible(principal)
        await self._access_log.write(principal, request, SESSIONS_LIST, resource=("session", None), details={"count": len(found)})
        return found

    async def end(self, principal: Principal, request: RequestContext, number: str) -> None:
        """End a session. Raises `not-found` for one that this credential may not see."""
        there = bool(_ID.fullmatch(number)) and any(each.id == number for each in await self._visible(principal))
        outcome = Outcome.SUCCESS if there else Outcome.FAILURE
        await self._access_log.write(principal, request, SESSIONS_END, resource=("session", number), details={}, outcome=outcome)
        if not there or not await self._sessions.end(number, held(principal).tenant_id):
            raise DecklogError(
                Code.NOT_FOUND,
                f"There is no session {number[:40]!r} that this credential may end. List them with GET /api/v1/sessions.",
            )

    async def link(self, principals: Sequence[Principal], request: RequestContext) -> tuple[str, datetime]:
        """Make a one-time link for these principals; return its code and its end.

        Raises:
            DecklogError: `forbidden` for a credential that opens no session, `tenant-suspended`, `rate-limited`, `overloaded`,
                `access-log-unavailable` and `storage-unavailable`.
        """
        named = merged([held(each) for each in principals], ())
        for each in principals:
            await self._access_log.write(each, request, SESSIONS_LINK, resource=("session", None), details={})
        return await self._sessions.code(CodeKind.LINK, named, None)

    async def ticket(self, principal: Principal) -> tuple[str, datetime]:
        """Make a ticket for one stream of this principal; return it and its end. The stream itself is recorded when it opens."""
        return await self._sessions.code(CodeKind.TICKET, (held(principal),), principal.session)

    async def by_ticket(self, ticket: str) -> Principal:
        """Use up a ticket and return its principal. Raises `unauthenticated`."""
        taken = await self._sessions.take(CodeKind.TICKET, ticket)
        principals = await self._sessions.principals(taken.identities, taken.session)
        if not principals:
            raise refused(CodeKind.TICKET.value)
        return principals[0]

    async def _visible(self, principal: Principal) -> list[Session]:
        """Return the sessions of this credential or, for an admin, of its tenant. Identities of other tenants are left out of them."""
        manages = principal.tenant is not None and Permission.MANAGE in principal.permissions
        own = held(principal)
        found = await self._sessions.listed(own, whole_tenant=manages)
        return [_seen_by(own, each, manages=manages) for each in found]


def _seen_by(own: Held, session: Session, *, manages: bool) -> Session:
    shown = tuple(each for each in session.identities if each.id == own.id or (manages and each.tenant_id == own.tenant_id))
    return replace(session, identities=shown)
