"""Actors and things that words name: by their ids, by the last part of an id, and by what stands before them."""

from __future__ import annotations

from collections.abc import Sequence

from decklog.domain.search import tree


def actors_named(word: str, actors: Sequence[str]) -> tuple[str, ...]:
    """Return the known actors of a name: those with this id, else those whose name within the id it is. Case makes no difference."""
    exact = tuple(actor for actor in actors if actor.lower() == word)
    return exact or tuple(actor for actor in actors if word in _names(actor))


def _names(actor: str) -> tuple[str, ...]:
    """Return the names within an id: the user of an ARN, the session of a role, and what stands before the @ of an email."""
    lowered = actor.lower()
    if lowered.startswith("arn:"):
        path = lowered.rpartition(":")[2]
        return path.rpartition("/")[2], path
    local, at, _ = lowered.partition("@")
    return tuple(part for part in (local, *local.split(".")) if part) if at else ()


def role_sessions(role: str, actors: Sequence[str]) -> tree.Node | None:
    """Return the condition of all sessions of a role, None where no known actor is one."""
    middle = f":assumed-role/{role}/"
    found = next((actor for actor in actors if middle.lower() in actor.lower()), None)
    if found is None:
        return None
    start = found.lower().index(middle.lower())
    return tree.Pattern("actor.id", (tree.Wild.MANY, found[start : start + len(middle)], tree.Wild.MANY))


def thing(value: str, types: Sequence[str] = ()) -> tree.Node:
    """Return the condition that a record is about the resource with this id, also as a related one."""
    return tree.disjunction(_of(member, value, types) for member in ("resource", "related"))


def _of(member: str, value: str, types: Sequence[str]) -> tree.Node:
    kinds = [tree.disjunction(tree.Equal(f"{member}.type", kind) for kind in types)] if types else []
    return tree.conjunction((tree.Equal(f"{member}.id", value), *kinds))
