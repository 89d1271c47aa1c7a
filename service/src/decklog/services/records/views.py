"""The view of a request: the one way from a principal and its parameters to a query and to the records as they are given.

Lists, single records, counts, exports and streams begin here. The principal of a viewer token has the permission `view` and no other,
and nothing else asks for it: a reading that does not begin here refuses such a token. Numbers of the whole log (head, positions,
cursors) are hidden from viewers, as they count the records outside of the scope.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from decklog.domain.errors import Code, DecklogError, invalid_parameter, unknown_parameter
from decklog.domain.identity.access import Principal
from decklog.domain.identity.scope import Scope
from decklog.domain.log import LogName, Position
from decklog.domain.records.record import StoredRecord
from decklog.domain.records.wire import renderer
from decklog.domain.search.fields import COUNTABLE
from decklog.domain.search.order import Order
from decklog.domain.search.query import Query, parse
from decklog.domain.search.scoping import require_visible, within
from decklog.domain.tenant import Tenant
from decklog.services.records.access_log import AccessLog
from decklog.services.records.list_options import Parameters
from decklog.services.sealing import Sealing
from decklog.services.search.matching import Matcher

POSITIONS = "viewers' positions 1"
"""Purpose of the key that seals positions and cursors."""
AFTER, CURSOR = "after", "cursor"
_SEALED = (AFTER, CURSOR)
"""Parameters whose values viewers get and send sealed."""
_FROM_THE_FIRST = "-1"
_ALLOWED = frozenset(
    {
        *("limit", CURSOR, "sort", "order", AFTER, "count", "by", "interval", "tz", "fill", "facets", "top"),
        *("format", "fields", "bom"),
    }
)
"""Parameters, beside filters, that a viewer may use. Another one, such as `wait` for a number, may reveal what is hidden."""


class View(msgspec.Struct, frozen=True):
    """The records and fields that one request may read.

    `query` is that of the request within the scope, and `parameters` are those of the request with positions and cursors that are
    readable. `scope` is None for a principal that reads everything.
    """

    tenant: Tenant
    log: LogName
    query: Query
    parameters: Parameters
    scope: Scope | None
    sealing: Sealing

    @property
    def fields(self) -> tuple[str, ...]:
        """The visible fields, none for whole records."""
        return () if self.scope is None else self.scope.fields

    def writer(self) -> Callable[[StoredRecord], str]:
        """Return the function that writes a record as this principal sees it, as a JSON object on one line."""
        render, visible = renderer(self.tenant.name, self.log), None if self.scope is None else self.scope.visible
        return render if visible is None else lambda record: visible.seen(render(record))

    def has(self, record: StoredRecord) -> bool:
        """Return whether a record satisfies the query. One whose content cannot be read satisfies none."""
        try:
            return Matcher(self.query)(record)
        except DecklogError:
            return False

    def mark(self, position: Position | str) -> str:
        """Return a position or a cursor as this principal may see it: sealed for a viewer."""
        return str(position) if self.scope is None else self.sealing.seal(str(position), self.tenant.id)

    def require_fields(self, paths: Iterable[str]) -> None:
        """Raise `invalid-query` where one of the fields at these paths is hidden."""
        for path in paths:
            require_visible(path, None if self.scope is None else self.scope.visible)

    def require_order(self, order: Order) -> None:
        """Raise `invalid-query` where a list is sorted by a hidden field."""
        if order.by_time:
            self.require_fields((order.by,))

    def require_countable(self, names: Iterable[str], interval: str | None) -> None:
        """Raise `invalid-query` where records are counted by a hidden field: names of countable fields, and an interval."""
        self.require_fields(COUNTABLE[name].path for name in names)
        if interval is not None:
            self.require_fields(("occurred_at",))

    def refusal(self, error: DecklogError) -> DecklogError:
        """Return an error as this principal may see it: a viewer gets no numbers of records and positions."""
        if self.scope is None:
            return error
        if error.code is Code.RECORD_DAMAGED:
            return DecklogError(error.code, "A record of this log does not match its digest, so nothing is given.")
        if error.code is Code.INVALID_PARAMETER and error.extra.get("parameter") == AFTER:
            return invalid_parameter(AFTER, "the log cannot be read on from this position any more. Begin without it.")
        return error

    def raise_refusal(self, error: BaseException) -> None:
        """Raise what a viewer may see of an error, where that differs; the caller raises the error itself otherwise."""
        if isinstance(error, DecklogError) and (shown := self.refusal(error)) is not error:
            raise shown from None


class Views:
    """Opens the views of all readings of one process. `sealing` seals positions; None for one that no other process opens."""

    def __init__(self, access_log: AccessLog, sealing: Sealing | None = None) -> None:
        self._access_log = access_log
        self._sealing = sealing or Sealing()

    def open(self, principal: Principal, parameters: Parameters, others: Sequence[str] = ()) -> View:
        """Return what a request may read.

        Args:
            principal: Whose credential was verified.
            parameters: Filters, and `others`.
            others: Names of parameters that the caller reads itself, from the view.

        Raises:
            DecklogError: The errors of `AccessLog.admit` and `parse`; for a viewer `forbidden` for another log than `events`, and
                `invalid-query` for a condition on a hidden field.
        """
        scope = principal.scope
        if scope is None:
            tenant = self._access_log.admit(principal, parameters)
            log, query = parse(parameters, others=others)
            return View(tenant, log, query, parameters, None, self._sealing)
        tenant = self._access_log.admit_viewer(principal)
        for name, _ in parameters:
            if name in others and name not in _ALLOWED:
                raise unknown_parameter(
                    name, f"for a viewer token filters and {', '.join(sorted(_ALLOWED.intersection(others)))}"
                )
        parameters = [self._readable(tenant, name, value) for name, value in parameters]
        log, query = parse(parameters, others=others)
        if log is not LogName.EVENTS:
            raise DecklogError(Code.FORBIDDEN, "A viewer token reads the log 'events' only.")
        return View(tenant, log, within(query, scope.query, scope.visible), parameters, scope, self._sealing)

    def _readable(self, tenant: Tenant, name: str, value: str) -> tuple[str, str]:
        """Return a parameter of a viewer with its value unsealed. Raises `invalid-parameter` and `invalid-cursor`."""
        if name not in _SEALED or (name == AFTER and value == _FROM_THE_FIRST):
            return name, value
        opened = self._sealing.opened(value, tenant.id)
        if opened is None and name == CURSOR:
            raise DecklogError(Code.INVALID_CURSOR, "cursor: this is not a cursor. Use the value of `next` of the previous page.")
        if opened is None:
            raise invalid_parameter(name, "this is not a position. Use one that an answer to a viewer token has, or -1.")
        return name, opened
