"""Values that are recognised by their form: addresses, networks, emails, ARNs, access keys, regions, ids and conditions of the query language."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from decklog.domain.ask.tokens import Token
from decklog.domain.errors import DecklogError
from decklog.domain.search import syntax, tree
from decklog.domain.search.names import resolve
from decklog.domain.search.terms import parse_network

ACCESS_KEY_PATHS = ("actor.id", "session_id", "metadata.userIdentity.accessKeyId")
_ACCESS_KEY = re.compile(r"A(?:KIA|SIA)[A-Z0-9]{12,}")
_REGION = re.compile(r"[a-z]{2}(?:-gov|-iso[a-z]?)?-(?:north|south|east|west|central|northeast|northwest|southeast|southwest)-\d")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_ARN = re.compile(r"arn:[a-z-]+:[^\s]+")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ID = re.compile(r"(?=.*[A-Za-z])(?=.*[\d_/@:.-])[\w./:@+=-]{2,512}|[A-Z][A-Z0-9]{7,}")
_MEASURE = re.compile(r"[\d.,:]+[a-z%]{0,3}")
"""Ordinals, hours and sizes: 10th, 3am, 5mb."""
_CONDITION = re.compile(r"[\w.]+:(?!//).+")


class Form(NamedTuple):
    """A value by its form. `kind` is that of the condition: ip, key, region, actor, thing, uuid or condition."""

    kind: str
    value: str
    node: tree.Node | None = None
    meaning: str = ""


def form_of(token: Token, now: datetime) -> Form | None:
    """Return what a word is by its form, None for a word of a language."""
    text = token.text
    if not token.quoted and not text.isdigit() and (network := parse_network(text)) is not None:
        return Form("ip", network, tree.Network("source.ip", network), f"source address {'in ' if '/' in text else ''}{text}")
    if _ACCESS_KEY.fullmatch(text):
        return Form("key", text, tree.disjunction(tree.Equal(path, text) for path in ACCESS_KEY_PATHS), f"access key {text}")
    if _REGION.fullmatch(text):
        return Form("region", text, tree.Equal("metadata.awsRegion", text), f"region {text}")
    if _UUID.fullmatch(text):
        return Form("uuid", text)
    if _ARN.fullmatch(text):
        return Form("actor" if re.search(r":(user|assumed-role|federated-user)/|:root$", text) else "thing", text)
    if _EMAIL.fullmatch(text):
        return Form("actor", text)
    return _condition(text, now)


def _condition(text: str, now: datetime) -> Form | None:
    """Return a condition that stands in the question as the query language has it."""
    if not _CONDITION.fullmatch(text) or resolve(text.partition(":")[0]) is None:
        return None
    try:
        return Form("condition", text, syntax.read(text, now), text)
    except DecklogError:
        return None


def is_id(token: Token) -> bool:
    """Return whether a word can only be the id of something: it has digits, hyphens or other marks in it."""
    if _MEASURE.fullmatch(token.word):
        return False
    return token.quoted or (_ID.fullmatch(token.text) is not None and not token.word.endswith("'s"))


def is_hyphenated(token: Token) -> bool:
    """Return whether a word has hyphens only between its letters: it may be an id, as logs-prod is, or a word, as read-only is."""
    return not token.quoted and token.word.replace("-", "").isalpha()
