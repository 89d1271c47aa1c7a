"""Why a record is refused: all its faults at once, found by a second and slower reading of the text that was sent."""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from decklog.domain.errors import Code, DecklogError
from decklog.domain.faults import FAULTS_MAX, Fault, Hints, faults_of, joined, loaded, refused, syntax
from decklog.domain.times import NotATimeError, instant
from decklog.domain.unique_names import REPEATED_MAX, repeated

DEPTH_MAX = 32
"""Levels of arrays and objects in `metadata`, `before` and `after`."""
FUTURE_SKEW_MAX = timedelta(minutes=5)
"""`occurred_at` may be so far ahead of the server's clock. Clocks differ, but evidence from the future is an error."""
JSON_FIELDS = ("metadata", "before", "after")
"""Fields that hold any JSON; all others are strings of bounded length, enumerations and times."""

TOO_DEEP = f"is nested more than {DEPTH_MAX} levels deep"
SURROGATE = "contains a lone surrogate (half of a UTF-16 pair), which cannot be stored. Replace it, for example by U+FFFD"
NUL = "contains U+0000, which cannot be stored. Remove or replace it"
_INFINITE = "contains a number that no double can hold, or an integer of more than 4,300 digits. Send it as text"

_SURROGATES = re.compile("[\ud800-\udfff]")
_ACTOR = "actor.id"
_HINTS = Hints(
    {
        **dict.fromkeys(("user", "userid", "username", "principal", "subject", "actorid", "who", "author", "useremail"), _ACTOR),
        **dict.fromkeys(("actor.email", "actor.userid", "actor.username", "actor.login", "actor.sub", "actor.uid"), _ACTOR),
        **dict.fromkeys(("actortype", "usertype", "actor.kind"), "actor.type"),
        **dict.fromkeys(("actorname", "displayname", "actor.displayname"), "actor.name"),
        **dict.fromkeys(
            ("ip", "ipaddress", "clientip", "remoteip", "remoteaddr", "sourceip", "sourceipaddress", "actor.ip"), "source.ip"
        ),
        **dict.fromkeys(("source.ipaddress", "source.address", "source.host"), "source.ip"),
        **dict.fromkeys(("useragent", "ua", "source.agent"), "source.user_agent"),
        **dict.fromkeys(
            ("timestamp", "time", "eventtime", "ts", "date", "datetime", "createdat", "when", "happenedat"), "occurred_at"
        ),
        **dict.fromkeys(
            ("type", "event", "eventtype", "eventname", "name", "verb", "operation", "eventaction", "activity"), "action"
        ),
        **dict.fromkeys(("level", "loglevel", "priority"), "severity"),
        **dict.fromkeys(("status", "result", "success"), "outcome"),
        **dict.fromkeys(("description", "msg", "text", "summary"), "message"),
        **dict.fromkeys(("target", "object", "entity"), "resource"),
        **dict.fromkeys(("resourceid", "targetid", "objectid", "entityid", "resource.uid"), "resource.id"),
        **dict.fromkeys(("resourcetype", "targettype", "objecttype", "entitytype", "resource.kind"), "resource.type"),
        **dict.fromkeys(("resourcename", "targetname", "objectname"), "resource.name"),
        **dict.fromkeys(("targets", "resources"), "related"),
        **dict.fromkeys(("session", "sid"), "session_id"),
        **dict.fromkeys(("requestid", "traceid", "transactionid", "correlation"), "correlation_id"),
        **dict.fromkeys(("eventid", "uuid", "uid", "guid"), "id"),
        **dict.fromkeys(("old", "oldvalue", "oldvalues", "previous"), "before"),
        **dict.fromkeys(("new", "newvalue", "newvalues"), "after"),
        **dict.fromkeys(
            ("data", "payload", "extra", "context", "attributes", "details", "properties", "custom", "labels", "tags"), "metadata"
        ),
    },
    {
        "severity": {
            **dict.fromkeys(("debug", "trace", "notice", "low"), "INFO"),
            **dict.fromkeys(("warn", "medium"), "WARNING"),
            **dict.fromkeys(("err", "high"), "ERROR"),
            **dict.fromkeys(("crit", "fatal", "alert", "emergency", "emerg"), "CRITICAL"),
        },
        "outcome": {
            **dict.fromkeys(("ok", "succeeded", "successful", "allow", "allowed", "granted"), "success"),
            **dict.fromkeys(("error", "fail", "failed"), "failure"),
            **dict.fromkeys(("deny", "forbidden", "unauthorized", "blocked", "rejected"), "denied"),
        },
    },
    frozenset({"tenant", "log", "epoch", "seq", "received_at", "digest", "recorded_by", "masked"}),
)


def explained(error: DecklogError, raw: bytes, shape: type, now: datetime | None, faults_max: int = FAULTS_MAX) -> DecklogError:
    """Return the refusal of a record with all its faults; the error itself where none is found, or it has another code.

    Args:
        error: The first refusal.
        raw: The record as sent.
        shape: The type of a record.
        now: The server's clock; None leaves out the check of times in the future.
        faults_max: Faults to look for: finding all of them takes ten times as long as refusing a record.
    """
    if error.code is not Code.INVALID_RECORD:
        return error
    try:
        return refused(error.code, islice(_faults(raw.removeprefix(BOM_UTF8), shape, now), faults_max), error.detail)
    except RecursionError:
        return error
    except ValueError as malformed:  # behind the first fault
        return DecklogError(Code.INVALID_JSON, f"The record is not valid JSON in UTF-8: {syntax(malformed)}.")


def _faults(raw: bytes, shape: type, now: datetime | None) -> Iterator[Fault]:
    value = loaded(raw)
    yield from faults_of(shape, value, _HINTS)
    for each in repeated(raw)[:REPEATED_MAX]:
        yield Fault(joined(each.path, each.name), f"{each}; each name may occur once")
    if not isinstance(value, dict):
        return
    yield from _time_faults(value.get("occurred_at"), now)
    for name in JSON_FIELDS:
        if _is_deep(value.get(name), DEPTH_MAX):
            yield Fault(name, TOO_DEEP)
    for bad, why in ((has_nul, NUL), (has_surrogate, SURROGATE), (_is_infinite, _INFINITE)):
        if where := path_of(value, bad, ""):
            yield Fault(where, why)


def _time_faults(sent: Any, now: datetime | None) -> Iterator[Fault]:
    try:
        moment = instant(sent) if isinstance(sent, str) else None
    except NotATimeError:
        return  # it is among the faults already
    if moment is not None and now is not None and (reason := out_of_time(moment, now)):
        yield Fault("occurred_at", reason, sent)


def out_of_time(moment: datetime, now: datetime) -> str | None:
    """Return why a record cannot have this time, as a clause; None where it can."""
    if moment > now and moment - now > FUTURE_SKEW_MAX:
        minutes = FUTURE_SKEW_MAX.seconds // 60
        return f"{moment.isoformat()} is more than {minutes} minutes ahead of the server's clock, {now:%Y-%m-%dT%H:%M:%SZ}"
    if not 2 <= moment.year <= 9998:
        return "the time is outside the years 2 to 9998"
    return None


def _is_deep(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return depth == 0 or any(_is_deep(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value))


def path_of(value: Any, bad: Callable[[Any], bool], path: str) -> str | None:
    """Return the dotted path of the first value or key that is `bad`; "The record" for a key of the outermost object."""
    if isinstance(value, dict):
        for key, item in value.items():
            if found := path or "The record" if bad(key) else path_of(item, bad, f"{path}.{key}" if path else key):
                return found
        return None
    if isinstance(value, list):
        for item in value:
            if found := path_of(item, bad, path):
                return found
        return None
    return path if bad(value) else None


def has_surrogate(value: Any) -> bool:
    """Return whether a value is a text with half of a UTF-16 pair."""
    return isinstance(value, str) and not value.isascii() and _SURROGATES.search(value) is not None


def has_nul(value: Any) -> bool:
    """Return whether a value is a text with U+0000."""
    return isinstance(value, str) and "\0" in value


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def lone_surrogate(raw: bytes) -> str | None:
    """Return the path of a lone surrogate in JSON that msgspec refused, since its message has none."""
    if b"\\ud" not in raw.lower():
        return None
    try:
        return path_of(json.loads(raw), has_surrogate, "")
    except (ValueError, RecursionError):
        return None
