"""The tools as a model may call them: their definitions, the check of each call, and what of a result the model sees.

A call is untrusted. Its name and arguments are checked, its query is parsed by the query language, and the reading authorises it as the asking
user. A refused call is answered with a typed error, which the model sees, and counted. No argument names a tenant, a log or an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta
from prometheus_client import Counter

from decklog.domain.ask.understanding import Expert
from decklog.domain.errors import Code, DecklogError
from decklog.domain.json_body import decoded
from decklog.domain.log import LogName
from decklog.services.ask.chat_protocol import ToolCall, function
from decklog.services.ask.tools import Counts, Listed, Story, Tools

ARGUMENTS_CHARS_MAX: Final = 8 * 1024
"""Characters of the arguments of one call."""
RESULT_BYTES_MAX: Final = 32 * 1024
"""Bytes of records in one result; further ones are left out, and the result says how many there are."""
LIMIT_DEFAULT: Final = 20

_refused = Counter("decklog_ask_model_calls_refused_total", "Calls of tools by a model that were refused, by reason.", ["reason"])

_Query = Annotated[str, Meta(max_length=4_096)]


class SearchCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `search`."""

    query: _Query
    order: Literal["newest", "oldest"] = "newest"
    limit: Annotated[int, Meta(ge=1, le=100)] = LIMIT_DEFAULT


class CountCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `count`."""

    query: _Query
    group_by: Annotated[str, Meta(pattern=r"\A[A-Za-z][A-Za-z0-9_.-]{0,199}\Z")] | None = None
    top: Annotated[int, Meta(ge=1, le=100)] = 10


class TimelineCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `timeline`."""

    query: _Query
    interval: Literal["minute", "hour", "day", "week", "month"] = "day"


class StoryCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `story`."""

    query: _Query
    limit: Annotated[int, Meta(ge=1, le=100)] = 50


Call = SearchCall | CountCall | TimelineCall | StoryCall
Result = Listed | Counts | Story

_FORMS: dict[str, type[Call]] = {"search": SearchCall, "count": CountCall, "timeline": TimelineCall, "story": StoryCall}
OF_EXPERT: Final[dict[Expert, tuple[str, ...]]] = {
    Expert.FIND: ("search", "count"),
    Expert.COUNT: ("count",),
    Expert.COMPARE: ("count",),
    Expert.TIMELINE: ("timeline", "count"),
    Expert.STORY: ("story", "search"),
    Expert.TOP: ("count",),
}
"""The tools of each expert; the first one is that which its answer rests on."""
_QUERY = {"query": {"type": "string", "description": "A query in the query language; empty for all records."}}
_DEFINITIONS = {
    "search": function(
        "search",
        "Return matching records.",
        {
            **_QUERY,
            "order": {"type": "string", "enum": ["newest", "oldest"]},
            "limit": {"type": "integer", "minimum": 1, "maximum": 100},
        },
        ("query",),
    ),
    "count": function(
        "count",
        "Return how many records match, and how many of them have each of the most frequent values of a field.",
        {
            **_QUERY,
            "group_by": {"type": "string", "description": "Path of a field, such as action or actor.id."},
            "top": {"type": "integer", "minimum": 1, "maximum": 100},
        },
        ("query",),
    ),
    "timeline": function(
        "timeline",
        "Return how many records match in each interval of time.",
        {**_QUERY, "interval": {"type": "string", "enum": ["minute", "hour", "day", "week", "month"]}},
        ("query",),
    ),
    "story": function(
        "story",
        "Return matching records, the oldest first, and which actors and actions took part.",
        {**_QUERY, "limit": {"type": "integer", "minimum": 1, "maximum": 100}},
        ("query",),
    ),
}
_TOLD = frozenset(
    {
        Code.INVALID_QUERY,
        Code.INVALID_PARAMETER,
        Code.UNKNOWN_PARAMETER,
        Code.TOO_MANY_BUCKETS,
        Code.FORBIDDEN,
        Code.QUESTION_TOO_COSTLY,
    }
)
"""Errors of a call that the model sees. Every other one ends the question as it would end a list."""


class Evidence(NamedTuple):
    """A call that was made, and its result. `blind`: the model had seen no value of a record when it made the call."""

    tool: str
    call: Call
    result: Result
    blind: bool


class Bench:
    """The tools of one question for a model.

    Args:
        tools: The tools, for the asking principal.
        expert: Whose tools the model may call.
        log: The log that is read, chosen before the model has seen any record.
        zone: IANA name of the time zone of intervals.
    """

    def __init__(self, tools: Tools, expert: Expert, log: LogName, zone: str) -> None:
        self._tools = tools
        self._names = OF_EXPERT[expert]
        self._log = log
        self._zone = zone
        self.evidence: list[Evidence] = []
        self.refused: list[str] = []
        """Reasons of refused calls."""
        self.sent = 0
        """Records that the model has been sent."""
        self._saw = False

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """The definitions of the tools that this expert has."""
        return [_DEFINITIONS[name] for name in self._names]

    async def call(self, call: ToolCall) -> str:
        """Return the result of a call as JSON: what was found, or a typed error. Raises errors that the model cannot mend."""
        name = call.function.name
        if name not in self._names:
            return self.refuse("unknown-tool", f"There is no tool of this name. Tools: {', '.join(self._names)}.")
        if len(call.function.arguments) > ARGUMENTS_CHARS_MAX:
            return self.refuse("arguments-too-large", f"Arguments may have {ARGUMENTS_CHARS_MAX} characters.")
        try:
            asked = decoded(call.function.arguments.encode("utf-8", "replace"), _FORMS[name])
        except DecklogError as error:
            return self.refuse("malformed-arguments", error.detail)
        try:
            result = await self._made(asked)
        except DecklogError as error:
            if error.code not in _TOLD:
                raise
            return self.refuse(error.code.value, error.detail)
        self.evidence.append(Evidence(name, asked, result, blind=not self._saw))
        return self._shown(result)

    async def _made(self, call: Call) -> Result:
        if isinstance(call, SearchCall):
            return await self._tools.search(call.query, log=self._log, newest_first=call.order == "newest", limit=call.limit)
        if isinstance(call, CountCall):
            return await self._tools.count(call.query, call.group_by, log=self._log, top=call.top)
        if isinstance(call, TimelineCall):
            return await self._tools.timeline(call.query, interval=call.interval, zone=self._zone, log=self._log)
        return await self._tools.story(call.query, log=self._log, limit=call.limit)

    def refuse(self, reason: str, detail: str) -> str:
        """Return the answer to a refused call, and count it."""
        _refused.labels(reason).inc()
        self.refused.append(reason)
        return msgspec.json.encode({"ok": False, "error": {"code": reason, "detail": detail}}).decode()

    def _shown(self, result: Result) -> str:
        """Return what the model sees of a result."""
        if isinstance(result, Counts):
            data: dict[str, Any] = self._counts(result)
        elif isinstance(result, Listed):
            data = {"total": result.total, **self._records(result.records)}
        else:
            taking_part = {"actors": self._counts(result.actors), "actions": self._counts(result.actions)}
            data = {"total": result.total, **taking_part, **self._records(result.records)}
        return msgspec.json.encode({"ok": True, "data": data}).decode()

    def _counts(self, counts: Counts) -> dict[str, Any]:
        named = counts.by in _OPEN or self._tools.records_may_leave
        self._saw |= named and counts.by not in _OPEN and bool(counts.values)
        values = [[each.value if named else f"#{place}", each.count] for place, each in enumerate(counts.values, 1)]
        return {"total": counts.total, "by": counts.by, "values": values, "other": counts.other, "missing": counts.missing}

    def _records(self, records: Sequence[msgspec.Raw]) -> dict[str, Any]:
        if not self._tools.records_may_leave:
            return {"numbers": [seq for record in records if (seq := number_of(record)) is not None]}
        shown: list[msgspec.Raw] = []
        size = 0
        for record in records:
            size += len(bytes(record))
            if size > RESULT_BYTES_MAX:
                break
            shown.append(record)
        self.sent += len(shown)
        self._saw |= bool(shown)
        return {"records": shown, "left_out": len(records) - len(shown)}


_OPEN = frozenset({"action", "resource.type", "severity", "outcome", "minute", "hour", "day", "week", "month"})
"""Fields and intervals whose values a model sees of every tenant: the words of the log, and times."""


class _Numbered(msgspec.Struct):
    seq: int | None = None


_seq = msgspec.json.Decoder(_Numbered).decode


def number_of(record: msgspec.Raw) -> int | None:
    """Return the number of a record; None where a viewer token hides it."""
    return _seq(record).seq
