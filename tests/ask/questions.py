"""The questions of `questions.txt`, and how they are judged: by the set of records that a query finds."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

from decklog.domain.ask.vocabulary import Vocabulary
from decklog.domain.search import syntax
from tests.ask.records import NOW, world
from tests.support.naive import satisfies

_FILE = Path(__file__).with_name("questions.txt")
HELD_OUT = 3
"""One question of so many was not looked at while the grammar was built."""


class Asked(NamedTuple):
    """One question, with the expert, the path that is counted and the queries that are right."""

    group: str
    number: int
    world: str
    expert: str
    by: str | None
    queries: tuple[str, ...]
    text: str

    @property
    def held_out(self) -> bool:
        return self.number % HELD_OUT == HELD_OUT - 1


@cache
def questions() -> tuple[Asked, ...]:
    found: list[Asked] = []
    group = ""
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            group = line.strip("[]")
        elif line and not line.startswith("#"):
            name, expert, by, queries, text = (part.strip() for part in line.split("|"))
            found.append(Asked(group, len(found), name, expert, by or None, tuple(map(str.strip, queries.split("<>"))), text))
    return tuple(found)


@cache
def vocabulary(name: str) -> Vocabulary:
    """The vocabulary of a world, as the statistics of its records give it."""
    actions, actors, types = (
        tuple(value for value, _ in Counter(values).most_common())
        for values in (
            [record["action"] for record in world(name)],
            [record["actor"]["id"] for record in world(name)],
            [record["resource"]["type"] for record in world(name) if "resource" in record],
        )
    )
    return Vocabulary(actions, actors, types, every_action=True)


@cache
def found(name: str, query: str) -> frozenset[int]:
    """The numbers of the records of a world that a query finds, decided by the naive evaluation."""
    root = syntax.read(query, NOW) if query else None
    return frozenset(record["seq"] for record in world(name) if root is None or satisfies(root, record))
