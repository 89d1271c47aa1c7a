"""Say in one sentence what a record is about, from the members of the record alone. Pure.

The board says the same in `board/src/api/sentence.ts`; `board/src/api/sentences.json` holds the sentences that both are tested with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_REGULAR = (
    "add allow approve archive assign associate assume attach authenticate authorize block cancel change check clear "
    "close complete configure confirm connect copy create decline decrypt delete deploy deregister describe detach "
    "disable disassociate disconnect download edit enable encrypt enroll execute expire export fail finish generate "
    "grant impersonate import install invite invoke issue join launch link list lock merge modify move open patch "
    "pause post publish purge push reboot receive register reject release remove rename renew replace request resolve "
    "restart restore resume retrieve reveal revoke rotate save schedule search seal share sign start stop stream "
    "submit subscribe suspend sync tag terminate test transfer trigger try uninstall unlink unlock unshare "
    "unsubscribe untag update upgrade upload use validate verify view watch "
)
"""Verbs of actions whose past is regular."""
_IRREGULAR = {
    "begin": "began",
    "exec": "executed in",
    "get": "read",
    "leave": "left",
    "login": "logged in to",
    "logout": "logged out of",
    "lookup": "looked up",
    "put": "put",
    "read": "read",
    "reset": "reset",
    "run": "ran",
    "send": "sent",
    "set": "set",
    "signin": "signed in to",
    "signout": "signed out of",
    "write": "wrote",
}
"""The other verbs, with their past."""
_SPOKEN = {
    "get": "read",
    "login": "log in",
    "logout": "log out",
    "signin": "sign in",
    "signout": "sign out",
    "exec": "execute",
    "lookup": "look up",
}
"""Verbs that are written apart, or otherwise, where the deed was only tried."""
_DOUBLED = frozenset({"tag", "untag", "stop", "submit", "transfer", "permit"})
_OUTCOMES = {"success": "allowed", "failure": "failed", "denied": "denied", "unknown": "outcome unknown"}
_OBJECTLESS = frozenset({"login", "logout", "signin", "signout"})
"""Signing in is a deed without an object, whatever the action is filed under."""
_FILED_UNDER = frozenset({"user", "account", "session", "auth"})
_PREPOSITION = re.compile(r" (to|of|in)$")


def _past(base: str) -> str:
    if base.endswith("e"):
        return f"{base}d"
    if re.search(r"[^aeiou]y$", base):
        return f"{base[:-1]}ied"
    return f"{base}{base[-1] if base in _DOUBLED else ''}ed"


_VERBS = {**{base: _past(base) for base in _REGULAR.split()}, **_IRREGULAR}
_BASES = {past: base for base, past in _VERBS.items()}


class Deed(NamedTuple):
    """The deed of an action: its verb (`base` is None where only its past is known), and the object that the action itself names."""

    base: str | None
    past: str
    object: str


def words_of(name: str) -> list[str]:
    """Return the words of a name in any usual spelling: `DeleteParameter`, `delete_parameter`, `delete-parameter`."""
    apart = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1 \2", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name))
    return [word if re.fullmatch(r"[A-Z]{2,}[0-9]*s?", word) else word.lower() for word in re.split(r"[\s_-]+", apart) if word]


def _singular(words: str) -> str:
    return re.sub(r"([^s])s$", r"\1", words)


def _deed(base: str, about: str) -> Deed:
    return Deed(base, _VERBS[base], "" if base in _OBJECTLESS and about in _FILED_UNDER else about)


def deed_of(action: str) -> Deed | None:
    """Return the deed of an action; None where no verb is known in it."""
    verb, *objects = action.split(" ")  # Kubernetes names a verb and a resource: "create pods/exec"
    if objects and verb in _VERBS:
        return _deed(verb, " ".join(objects))
    segments = [segment for segment in re.split(r"[.:/]+", action) if segment]
    words = words_of(segments[-1] if segments else "")
    if not words:
        return None
    before = " ".join(words_of(segments[-2])) if len(segments) > 1 else ""
    first, last, rest = words[0].lower(), words[-1], words[1:]
    if len(words) == 2 and "".join(words) in _VERBS:
        return _deed("".join(words), "")
    if first in _VERBS:
        return _deed(first, " ".join(rest) or (_singular(before) if len(segments) == 2 else ""))
    if last in _VERBS:
        return _deed(last, " ".join(words[:-1]))
    if re.search(r"[a-z]ed$", last):
        return Deed(_BASES.get(last), last, " ".join(words[:-1]) or before)
    return None


def _object_of(named: str, resource: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the object of the sentence: "parameter", and the name of the resource."""
    if not resource:
        return named, ""
    kind_name = str(resource.get("type", ""))
    kind = " ".join(words_of(next((part for part in reversed(re.split(r"[.:/]+", kind_name)) if part), kind_name)))
    name = str(resource.get("name") or resource.get("id") or "")
    same = not named or _singular(named.lower()) == _singular(kind.lower())
    return (kind if same else f"{named} on {kind}"), name


def _verb_of(action: str, found: Deed | None, *, missed: bool) -> str:
    """Return the verb of the sentence. A deed that was refused was only tried."""
    if found is None:
        return f"{'tried' if missed else 'did'} {action}"
    if not missed:
        return found.past
    if found.base is None:
        return f"tried {action}"
    preposition = _PREPOSITION.search(found.past)
    return f"tried to {_SPOKEN.get(found.base, found.base)}{preposition.group() if preposition else ''}"


def sentence(record: Mapping[str, Any]) -> str:
    """Return the sentence of a record, given by its members on the wire: "alice deleted document Q3 from 192.0.2.1: allowed"."""
    action, outcome, actor = str(record["action"]), str(record["outcome"]), record["actor"]
    found, missed = deed_of(action), outcome in ("denied", "failure")
    about, name = _object_of(found.object if found else "", record.get("resource"))
    verb = _verb_of(action, found, missed=missed)
    text = f"{actor.get('name') or actor['id']} {verb if about or name else _PREPOSITION.sub('', verb)}"
    joint = " " if found else " on "
    if about:
        text += f"{joint}{about}"
    if name:
        text += f"{' ' if about else joint}{name}"
    if address := (record.get("source") or {}).get("ip"):
        text += f" from {address}"
    return f"{text}: {_OUTCOMES.get(outcome, outcome)}"
