"""Sessions as a process uses them: looked up by their tokens, remembered for two seconds at most, and turned into principals.

A session proves who its identities were when it was opened. Each use asks the registry whether they still are, so a revoked key, a
deleted tenant and a session that ended act in every process within the age of what it remembers.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal
from decklog.domain.identity.session import (
    NO_TENANT,
    CodeKind,
    Held,
    OneTimeCode,
    Session,
    SessionStore,
    hashed,
    new_id,
    new_token,
)
from decklog.services.coalescing import Coalescing
from decklog.services.identity.identity import Identity, unauthenticated
from decklog.services.turns import Turns

REMEMBERED_SECONDS: Final = 2.0
"""Age at which a session is looked up again."""
REMEMBERED_MAX: Final = 10_000
"""Sessions that a process remembers, and tokens that it knows not to exist."""
TOUCH: Final = timedelta(minutes=1)
"""Time between two notes of the use of a session."""
LINK: Final = timedelta(minutes=10)
TICKET: Final = timedelta(seconds=60)
"""Life of a one-time code."""
_USED_SECONDS: Final = 10.0
"""Time after its last use for which a session is looked up again together with others."""
_TOGETHER_MAX: Final = 500
_REST: Final = 4.0
_REST_SECONDS_MAX: Final = 0.25
"""Rest after a look-up, as a multiple of its time and at most: guessed tokens occupy a fifth of one connection."""
_TURN_SECONDS: Final = 5.0
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")

OPENED = Counter("decklog_sessions_opened_total", "Sessions that were opened.")
ENDED = Counter(
    "decklog_sessions_ended_total",
    "Sessions that were ended by a request: signed out, ended from a list, or replaced by a new sign-in.",
)
LOOKUPS = Counter("decklog_sessions_lookups_total", "Queries for sessions.")
REFUSED = Counter(
    "decklog_sessions_refused_total",
    "Refused cookies, one-time links and tickets, and cross-site requests, by what was refused.",
    ["of"],
)
REMEMBERED = Gauge("decklog_sessions_remembered", "Sessions that the process remembers.")

_log = structlog.get_logger("decklog.sessions")


class Lives(msgspec.Struct, frozen=True):
    """How long a session may be unused, and how long it may last in all."""

    idle: timedelta = timedelta(hours=8)
    whole: timedelta = timedelta(days=7)


class _Seen:
    """A session as it was read. Times are of the monotonic clock."""

    __slots__ = ("as_of", "session", "used_at")

    def __init__(self, session: Session, as_of: float, used_at: float) -> None:
        self.session = session
        self.as_of = as_of
        self.used_at = used_at


class Sessions:
    """The sessions of one process.

    Args:
        store: Holds sessions and one-time codes.
        identity: Says what the credentials are that sessions name.
        turns: Those at the database, for everything but look-ups of sessions. Sign-ins by links share the turns of one tenant.
        lives: How long sessions last.
        now: Returns the time that decides when a session is over.
        monotonic: Returns seconds that never jump.
    """

    def __init__(
        self,
        store: SessionStore,
        identity: Identity,
        turns: Turns,
        lives: Lives | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._identity = identity
        self._turns = turns
        self._lives = lives or Lives()
        self._now = now
        self._monotonic = monotonic
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._ids: dict[bytes, str] = {}
        self._unknown: OrderedDict[bytes | str, float] = OrderedDict()
        self._lookups: Coalescing[bytes | str, Session | None] = Coalescing(
            self._look_up, group_max=_TOGETHER_MAX, gap=lambda took: took + min(took * _REST, _REST_SECONDS_MAX)
        )

    # --- what a request carries ---

    async def of(self, token: str) -> Session:
        """Return the session of a token and note its use. Raises `unauthenticated` and `registry-stale`."""
        session = await self._get(hashed(token)) if _TOKEN.fullmatch(token) else None
        if session is None:
            raise refused("cookie")
        return await self._used(session)

    async def principal(self, session: Session, wanted: str | None = None) -> Principal:
        """Return the principal of one identity of a session, by default the first one.

        Raises:
            DecklogError: `unauthenticated` where its credential is not valid any more, `forbidden` where the session has no such
                identity, and `registry-stale`.
        """
        held = session.identities[0] if wanted is None else next((each for each in session.identities if each.id == wanted), None)
        if held is None:
            raise DecklogError(Code.FORBIDDEN, "This session has no such identity. GET /api/v1/session lists those that it has.")
        found = await self._identity.named(held)
        if found is None:
            raise unauthenticated()
        return msgspec.structs.replace(found, session=session.id)

    async def principals(self, identities: Sequence[Held], session: str | None = None) -> list[Principal]:
        """Return the principals of those identities whose credentials are valid now. Raises `registry-stale`."""
        found = [await self._identity.named(each) for each in identities]
        return [msgspec.structs.replace(each, session=session) for each in found if each is not None]

    async def still_valid(self, principal: Principal) -> bool:
        """Return whether a request by this principal would be accepted now, for streams and exports. Raises `registry-stale`."""
        if principal.session is not None and await self._get(principal.session) is None:
            return False
        return await self._identity.still_valid(principal)

    # --- changes ---

    async def open(
        self,
        identities: tuple[Held, ...],
        *,
        number: str | None = None,
        address: str | None,
        user_agent: str | None,
        replaces: str | None,
    ) -> tuple[str, Session]:
        """Open a session in place of another one, if given, and return its token and the session.

        Raises:
            DecklogError: `overloaded` where the installation has as many sessions as it may have, and `storage-unavailable`.
        """
        token, now = new_token(), self._now()
        session = Session(
            number or new_id(),
            hashed(token),
            identities,
            now,
            now,
            now + self._lives.idle,
            now + self._lives.whole,
            (address or "")[:256],
            (user_agent or "")[:512],
        )
        async with self._turn(identities[0].tenant_id):
            opened = await self._store.open(session, replaces=replaces)
        if not opened:
            raise _no_room("sessions")
        OPENED.inc()
        if replaces is not None:
            self._forget(replaces)
        return token, session

    async def end(self, number: str, tenant_id: int) -> bool:
        """End a session for this tenant and return whether there was one. Raises `overloaded` and `storage-unavailable`."""
        async with self._turn(tenant_id):
            ended = await self._store.end(number)
        self._forget(number)
        return ended

    async def listed(self, own: Held, *, whole_tenant: bool) -> list[Session]:
        """Return the sessions of an identity or of its whole tenant, the one used last first.

        Raises `overloaded` and `storage-unavailable`.
        """
        async with self._turn(own.tenant_id):
            return await self._store.list(own.id, own.tenant_id if whole_tenant else None, self._now())

    # --- one-time codes ---

    async def code(self, kind: CodeKind, identities: tuple[Held, ...], session: str | None) -> tuple[str, datetime]:
        """Make a one-time code; return it and its end. Raises `overloaded` and `storage-unavailable`."""
        text, now = new_token(), self._now()
        made = OneTimeCode(hashed(text), kind, identities, now + (LINK if kind is CodeKind.LINK else TICKET), session)
        async with self._turn(identities[0].tenant_id):
            put = await self._store.put_code(made, now)
        if not put:
            raise _no_room("one-time codes")
        return text, made.ends_at

    async def take(self, kind: CodeKind, text: str) -> OneTimeCode:
        """Use up a one-time code. Raises `unauthenticated`, `overloaded` under a flood of attempts, and `storage-unavailable`."""
        found = None
        if _TOKEN.fullmatch(text):
            async with self._turn(NO_TENANT):
                found = await self._store.take_code(hashed(text), kind)
        if found is None or found.ends_at <= self._now():
            raise refused(kind.value)
        if kind is CodeKind.TICKET and found.session is not None and await self._get(found.session) is None:
            raise refused(kind.value)
        return found

    def _turn(self, tenant_id: int) -> AbstractAsyncContextManager[None]:
        return self._turns.turn(tenant_id, seconds=_TURN_SECONDS)

    # --- look-ups ---

    async def _used(self, session: Session) -> Session:
        """Return the session, with its use noted once a minute. A note that fails is left to the next request."""
        now = self._now()
        if now - session.last_used_at < TOUCH:
            return session
        noted = msgspec.structs.replace(session, last_used_at=now, idle_ends_at=now + self._lives.idle)
        if (seen := self._seen.get(session.id)) is not None:
            seen.session = noted
        with suppress(DecklogError):
            async with self._turn(session.identities[0].tenant_id):
                await self._store.touch(session.id, now, noted.idle_ends_at)
        return noted

    async def _get(self, wanted: bytes | str) -> Session | None:
        """Return a session by the hash of its token or by its id, None where there is none or it is over. Raises `registry-stale`."""
        number = self._ids.get(wanted) if isinstance(wanted, bytes) else wanted
        seen = None if number is None else self._seen.get(number)
        moment = self._monotonic()
        if seen is not None and moment - seen.as_of < REMEMBERED_SECONDS:
            seen.used_at = moment
            found: Session | None = seen.session
        elif self._unknown.get(wanted, 0.0) > moment:
            return None
        else:
            found = await self._lookups(wanted)
        return None if found is None or found.over(self._now()) else found

    async def _look_up(self, asked: Sequence[bytes | str]) -> Sequence[Session | None]:
        """Answer a group of look-ups by one query, and read again what others will soon ask for."""
        began = self._monotonic()
        again = [
            number
            for number, seen in self._seen.items()
            if seen.used_at > began - _USED_SECONDS and seen.as_of < began - REMEMBERED_SECONDS / 2
        ][:_TOGETHER_MAX]
        LOOKUPS.inc()
        try:
            async with asyncio.timeout(REMEMBERED_SECONDS):
                found = await self._store.find(
                    tokens=[each for each in asked if isinstance(each, bytes)],
                    ids=[*(each for each in asked if isinstance(each, str)), *again],
                )
        except (DecklogError, TimeoutError):
            raise DecklogError(
                Code.REGISTRY_STALE,
                "This process could not read the sessions, so it cannot tell who asks. Try again.",
                retry_after=1,
            ) from None
        by_key: dict[bytes | str, Session] = {}
        # Without those that were ended here while they were being read.
        found = [session for session in found if self._unknown.get(session.id, 0.0) <= began]
        for session in found:
            by_key[session.id] = by_key[session.token] = session
        for number in again:
            if number not in by_key:
                self._drop(number)
        wanted = set(asked)
        for session in found:
            self._put(session, began, asked=session.id in wanted or session.token in wanted)
        for each in asked:
            if each not in by_key:
                self._note_unknown(each, began)
        REMEMBERED.set(len(self._seen))
        return [by_key.get(each) for each in asked]

    def _put(self, session: Session, as_of: float, *, asked: bool) -> None:
        before = self._seen.pop(session.id, None)
        used_at = as_of if asked or before is None else before.used_at
        self._seen[session.id] = _Seen(session, as_of, used_at)
        self._ids[session.token] = session.id
        while len(self._seen) > REMEMBERED_MAX:
            self._drop(next(iter(self._seen)))

    def _drop(self, number: str) -> None:
        gone = self._seen.pop(number, None)
        if gone is not None:
            self._ids.pop(gone.session.token, None)

    def _forget(self, number: str) -> None:
        """Forget a session that was ended here, also where a look-up of it is under way."""
        ENDED.inc()
        self._drop(number)
        self._note_unknown(number, self._monotonic())

    def _note_unknown(self, wanted: bytes | str, moment: float) -> None:
        self._unknown.pop(wanted, None)
        while len(self._unknown) >= REMEMBERED_MAX:
            self._unknown.popitem(last=False)
        self._unknown[wanted] = moment + REMEMBERED_SECONDS


def refused(of: str) -> DecklogError:
    """Return the refusal of a cookie, a link or a ticket, counted and logged without its text."""
    REFUSED.labels(of).inc()
    _log.info("session refused", of=of)
    return DecklogError(
        Code.UNAUTHENTICATED,
        {
            "link": "This link is not valid: used before, expired, or cut. Make a new one with decklog board.",
            "ticket": "This ticket is not valid: used before, expired, or cut. Make a new one with POST /api/v1/logs/stream/tickets.",
        }.get(of, "The session has ended, or there is none. Sign in again."),
    )


def _no_room(what: str) -> DecklogError:
    return DecklogError(Code.OVERLOADED, f"This installation has as many {what} as it may have. Try again later.", retry_after=60)
