"""The actions of a log by the words that name them: "deleted buckets" means `s3:DeleteBucket`, and not `s3:DeleteBucketPolicy`.

The name of an action has a verb, its first or last word, and an object, the other words. A word of a question matches by its root.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

import msgspec

from decklog.domain.ask.lexicon import CHANGE, FAMILIES, READING, TRANSPARENT, root
from decklog.domain.ask.vocabulary import Vocabulary
from decklog.domain.search import tree

_NODES_MAX = 1_024
"""Phrases whose conditions are kept."""
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PARTS = re.compile(r"[.\s/:_-]+")
_ROOTS = {root(first): tuple(map(root, words)) for first, words in FAMILIES.items()}
_MEMBERS = {root(word): root(first) for first, words in FAMILIES.items() for word in words}
CHANGES = frozenset(map(root, CHANGE))
"""Roots of the verbs of every action that does not only read."""
_READS = frozenset(map(root, READING))


class Named(msgspec.Struct, frozen=True):
    """An action with the roots of its words; those in `verbs` are the places of its verb. `service` is what stands before a colon."""

    action: str
    service: str
    roots: tuple[str, ...]
    verbs: tuple[int, ...]

    @property
    def reads(self) -> bool:
        """True if the action only reads."""
        return any(self.roots[place] in _READS for place in self.verbs)

    def objects(self, without: int | None) -> tuple[str, ...]:
        """Return the roots of the words besides the one at a place."""
        return tuple(each for place, each in enumerate(self.roots) if place != without)


def named(action: str) -> Named:
    """Return an action with its words: those of `document.delete`, of `DeleteBucket`, or of `delete_bucket`."""
    service, _, name = action.rpartition(":")
    parts = [part for part in _PARTS.split(name) if part]
    words = [word.lower() for part in parts for word in _CAMEL.findall(part) or [part]]
    if len(words) > 2 and words[-1] in TRANSPARENT:
        del words[-1]
    last = len(words) - 1
    verbs = (last,) if len(parts) > 1 and "." in name else (0, last)
    return Named(action, service.lower(), tuple(map(root, words)), tuple(dict.fromkeys(verbs)) if words else ())


class Actions(msgspec.Struct, frozen=True, dict=True):
    """The actions and resource types of one vocabulary, and what words mean among them."""

    vocabulary: Vocabulary

    @cached_property
    def all(self) -> tuple[Named, ...]:
        """Every action that is known."""
        return tuple(map(named, self.vocabulary.actions))

    @cached_property
    def verbs(self) -> frozenset[str]:
        """Roots of the verbs of actions."""
        return frozenset(each.roots[place] for each in self.all for place in each.verbs)

    @cached_property
    def nouns(self) -> frozenset[str]:
        """Roots of all words of actions."""
        return frozenset(part for each in self.all for part in each.roots)

    @cached_property
    def services(self) -> frozenset[str]:
        """Parts of actions before the colon, in small letters."""
        return frozenset(each.service for each in self.all if each.service)

    @cached_property
    def exact(self) -> dict[str, tuple[str, ...]]:
        """Actions by their names in small letters, whole and without their service."""
        found: dict[str, tuple[str, ...]] = {}
        for action in self.vocabulary.actions:
            for name in {action.lower(), action.rpartition(":")[2].lower()}:
                found[name] = (*found.get(name, ()), action)
        return found

    @cached_property
    def types(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """Resource types by the roots of the words of their names: `AWS::S3::Bucket` by bucket."""
        found: dict[tuple[str, ...], tuple[str, ...]] = {}
        for kind in self.vocabulary.resource_types:
            words = [word.lower() for part in _PARTS.split(kind.rpartition(":")[2]) for word in _CAMEL.findall(part) or [part]]
            key = tuple(map(root, words))
            found[key] = (*found.get(key, ()), kind)
        return found

    def family(self, verb: str) -> tuple[str, ...]:
        """Return the roots that a verb stands for: those of its family, but its own alone where the log has such actions."""
        first = _MEMBERS.get(verb)
        if first is None or (verb != first and verb in self.verbs):
            return (verb,)
        return _ROOTS[first]

    def is_word(self, word: str) -> bool:
        """Return whether a root means an action, a family of actions, or a resource type."""
        return word in CHANGES or word in _MEMBERS or word in self.nouns or any(word in key for key in self.types)

    def matching(self, words: Sequence[str]) -> list[str]:
        """Return the actions that some roots name together: at most one verb, and the end of the object."""
        return [each.action for each in self._candidates(words) if self._fits(each, words)]

    @cached_property
    def _by_root(self) -> dict[str, frozenset[int]]:
        """The places in `all` of the actions with a root."""
        found: dict[str, set[int]] = {}
        for place, each in enumerate(self.all):
            for part in each.roots:
                found.setdefault(part, set()).add(place)
        return {part: frozenset(places) for part, places in found.items()}

    def _candidates(self, words: Sequence[str]) -> list[Named]:
        """Return the actions that have each of some roots, or one of its family: those that may fit."""
        places: frozenset[int] | None = None
        for word in words:
            if word in CHANGES:
                continue
            having = frozenset[int]().union(*(self._by_root.get(each, frozenset()) for each in {word, *self.family(word)}))
            places = having if places is None else places & having
        return list(self.all) if places is None else [self.all[place] for place in sorted(places)]

    def _fits(self, each: Named, words: Sequence[str]) -> bool:
        if any(
            _ends(each.objects(place), words) for place in each.verbs if place == each.verbs[0] or each.roots[place] in _MEMBERS
        ):
            return True
        return any(
            self._is_verb(each, place, verb) and _ends(each.objects(place), [*words[:number], *words[number + 1 :]])
            for number, verb in enumerate(words)
            for place in each.verbs
        )

    def _is_verb(self, each: Named, place: int, verb: str) -> bool:
        if verb in CHANGES:
            return not each.reads
        return each.roots[place] in self.family(verb)

    @cached_property
    def _nodes(self) -> dict[tuple[str, ...], tuple[tree.Node, str] | None]:
        return {}

    def node(self, words: Sequence[str]) -> tuple[tree.Node, str] | None:
        """Return the condition that some roots mean together, and what it means in words; None where they mean nothing."""
        key = tuple(words)
        if key not in self._nodes:
            if len(self._nodes) >= _NODES_MAX:
                self._nodes.clear()
            self._nodes[key] = self._node(words)
        return self._nodes[key]

    def _node(self, words: Sequence[str]) -> tuple[tree.Node, str] | None:
        typed = self.types.get(tuple(words))
        if typed is not None:
            return equal("resource.type", typed), f"resource type {listed(typed)}"
        if len(words) == 1 and words[0] in CHANGES:
            reads = [each.action for each in self.all if each.reads]
            node = tree.negation(equal("action", reads)) if reads else tree.Everything()
            return node, "every action that does not only read"
        if found := self.matching(words):
            return equal("action", found), f"action {listed(found)}"
        return self._of_type(words) or self._unknown(words)

    def _of_type(self, words: Sequence[str]) -> tuple[tree.Node, str] | None:
        """Return the condition of a verb whose object is a resource type."""
        for number, verb in enumerate(words):
            kinds = self.types.get((*words[:number], *words[number + 1 :]))
            actions = self.matching([verb])
            if kinds and actions and (verb in self.verbs or verb in _MEMBERS or verb in CHANGES):
                both = (equal("action", actions), equal("resource.type", kinds))
                return tree.conjunction(both), f"action {listed(actions)} on resource type {listed(kinds)}"
        return None

    def _unknown(self, words: Sequence[str]) -> tuple[tree.Node, str] | None:
        """Return the condition of a verb that no known action has."""
        if len(words) != 1 or words[0] not in _MEMBERS:
            return None
        family = FAMILIES[next(first for first in FAMILIES if root(first) == _MEMBERS[words[0]])][:3]
        patterns = [
            tree.Pattern("action", (tree.Wild.MANY, text, tree.Wild.MANY)) for word in family for text in (word, word.title())
        ]
        return tree.disjunction(patterns), f"action with {', '.join(family)} in its name; the log is not known to have one"


def apart(first: tree.Node, second: tree.Node) -> bool:
    """Return whether two conditions name actions of which none is the same, so that no record satisfies both."""
    both = [
        {leaf.value for leaf in tree.leaves(node) if isinstance(leaf, tree.Equal) and leaf.field == "action"}
        for node in (first, second)
    ]
    return bool(both[0] and both[1]) and not both[0] & both[1]


@lru_cache(maxsize=16)
def actions_of(vocabulary: Vocabulary) -> Actions:
    """Return the actions of a vocabulary. Those of the last vocabularies are kept, as each question of a tenant needs them."""
    return Actions(vocabulary)


def _ends(objects: Sequence[str], words: Sequence[str]) -> bool:
    """Return whether words are the end of an object; no words are."""
    return not words or (len(words) <= len(objects) and list(objects[len(objects) - len(words) :]) == list(words))


def equal(path: str, values: Iterable[str]) -> tree.Node:
    """Return the condition that a field has one of these values."""
    return tree.disjunction(tree.Equal(path, value) for value in values)


def listed(values: Sequence[str], most: int = 5) -> str:
    """Return values as a list for people, the first of them where they are many."""
    rest = len(values) - most
    return ", ".join(values[:most]) + (f" and {rest} more" if rest > 0 else "")
