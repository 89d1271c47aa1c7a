"""The groups of words that name actions, as conditions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from decklog.domain.ask.actions import CHANGES, Actions, apart
from decklog.domain.ask.draft import Draft, Group
from decklog.domain.ask.lexicon import FAMILIES, OUTCOMES, root
from decklog.domain.records.record import Outcome
from decklog.domain.search import tree

_LOGINS = frozenset(map(root, FAMILIES["login"]))
_WORDS_MAX = 6
_PLAIN_NEGATIONS = frozenset(("not", "n't", "without", "but not"))


def group_nodes(draft: Draft) -> list[tree.Node]:
    """Return the conditions of the groups of a draft: one of the linked ones, and none of the excluded ones."""
    _both(draft)
    shared = _shared(draft)
    found: list[tree.Node] = []
    excluded: list[tree.Node] = []
    for group, roots in zip(draft.groups, shared, strict=True):
        node = _meaning(draft, group, roots)
        if node is not None:
            (excluded if group.negated else found).append(node)
    _logins(draft)
    positive = [tree.disjunction(found)] if found else []
    return [*positive, *(tree.negation(node) for node in excluded)]


def _both(draft: Draft) -> None:
    """Leave an and between verbs not understood where actors are asked for that did both: no record says so."""
    for group in draft.groups:
        if group.link is not None and draft.tokens[group.link].word == "and" and (draft.by == "actor.id" or "who" in draft.cues):
            draft.unread.add(group.link)


def _meaning(draft: Draft, group: Group, roots: Sequence[str]) -> tree.Node | None:
    found = _resolved(draft.actions, roots) if len(roots) <= _WORDS_MAX else None
    if found is None or not _allowed(draft, group):
        draft.unread.update(group.places)
        if group.negation is not None:
            draft.unread.update(range(*group.negation))
        return None
    for first, end in _runs(group.places):
        draft.meanings[first, end] = f"{'not ' if group.negated else ''}{found[1]}"
    return found[0]


def _allowed(draft: Draft, group: Group) -> bool:
    """Return whether a group can be what it says: who did not do something is no question about records."""
    if not group.negated:
        return True
    before = draft.tokens[group.places[0] - 1].word if group.places[0] else ""
    word = draft.tokens[group.places[0]].word
    return before not in _PLAIN_NEGATIONS or word.endswith(("s", "ion"))


def _resolved(actions: Actions, roots: Sequence[str]) -> tuple[tree.Node, str] | None:
    """Return the condition of some roots together, else of their parts together."""
    found = actions.node(roots)
    for cut in range(len(roots) - 1, 0, -1):
        if found is not None:
            return found
        head, tail = actions.node(roots[:cut]), _resolved(actions, roots[cut:])
        if head is not None and tail is not None and not apart(head[0], tail[0]):
            found = tree.conjunction((head[0], tail[0])), f"{head[1]} and {tail[1]}"
    return found


def _shared(draft: Draft) -> list[list[str]]:
    """Return the roots of each group: a verb alone shares the object of the group that it is linked to."""
    found = [_typed(draft, group.roots) for group in draft.groups]
    for number, group in enumerate(draft.groups):
        if group.link is None or number == 0:
            continue
        for alone, other in ((number - 1, number), (number, number - 1)):
            objects = [each for each in draft.groups[other].roots if each not in draft.actions.verbs]
            if len(found[alone]) == 1 and objects and draft.actions.matching([*found[alone], *objects]):
                found[alone] = [*found[alone], *objects]
            elif (verb := _only_verb(draft, draft.groups[other])) and not draft.actions.verbs.intersection(found[alone]):
                found[alone] = [*found[alone], verb] if draft.actions.node([*found[alone], verb]) else found[alone]
    return found


def _only_verb(draft: Draft, group: Group) -> str:
    """Return the root of the one verb of a group that has an object, empty where it is a noun: deleted users, but not role grants."""
    places = [place for place in group.places if draft.tokens[place].word.endswith(("ed", "en"))]
    roots = [root(draft.tokens[place].word) for place in places]
    return roots[0] if len(roots) == 1 and len(group.roots) > 1 and roots[0] in group.roots else ""


def _typed(draft: Draft, roots: Sequence[str]) -> list[str]:
    """Return the roots of a group, with the noun of a resource that is named with it: deleted document d-17."""
    for noun in draft.nouns if not CHANGES.issuperset(roots) else ():
        if not set(noun).intersection(roots) and draft.actions.matching([*noun, *roots]):
            return [*noun, *roots]
    return list(roots)


def _logins(draft: Draft) -> None:
    """Let failed logins be those that failed or were denied: which of both a wrong password is differs by the source."""
    if not any(_LOGINS.intersection(group.roots) for group in draft.groups if not group.negated):
        return
    failure = tree.Equal("outcome", Outcome.FAILURE.value)
    for number, each in enumerate(draft.conditions):
        if each.kind == "outcome" and each.node == failure and draft.tokens[each.first].word in OUTCOMES:
            both = tree.disjunction((failure, tree.Equal("outcome", Outcome.DENIED.value)))
            draft.conditions[number] = msgspec.structs.replace(each, node=both)
            draft.meanings[each.first, each.end] = "outcome failure or denied, as of a sign-in"


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and runs[-1][1] == place:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs
