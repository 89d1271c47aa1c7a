"""Rules for words that name something: actors, resources, sessions, actions, and texts."""

from __future__ import annotations

from decklog.domain.ask.actions import equal, listed
from decklog.domain.ask.draft import Draft, Group
from decklog.domain.ask.forms import ACCESS_KEY_PATHS, form_of, is_hyphenated, is_id
from decklog.domain.ask.lexicon import BETWEEN, CONCEPTS, EMPTY, FAMILIES, LOGIN, LOGOUT, OPENINGS, TOUCHED, root
from decklog.domain.ask.people import actors_named, role_sessions, thing
from decklog.domain.search import syntax, tree
from decklog.domain.search.words import tokens as words_of

_ACTOR_ROLES = frozenset(("by", "of", "from", "'s"))
_TARGET_ROLES = frozenset(("to", "on", "about", "with", "against", "into"))
_PERSONS = frozenset(("user", "actor", "person", "principal", "identity", "account"))
_REFERENCES = {
    "session": ("session", "session_id"),
    "request": ("request", "correlation_id"),
    "correlation": ("request", "correlation_id"),
    "trace": ("request", "correlation_id"),
}
_PATHS = dict(_REFERENCES.values())
_TEXTS = (
    "mention mentions mentioning mentioned contain contains containing say says saying message messages word words phrase text"
)
_TEXT_CUES = frozenset(_TEXTS.split())
_GENERIC_THINGS = frozenset(("resource", "object", "target", "id"))
_LOGINS = frozenset(map(root, FAMILIES["login"]))


def quoted(draft: Draft) -> int:
    """Read a quoted text, or the word behind mention, containing and the like: it stands in any text of a record."""
    skipped = 0
    while draft.word(skipped) in _TEXT_CUES or (skipped and draft.word(skipped) in ("the", "with", "a")):
        skipped += 1
    if draft.at + skipped >= len(draft.tokens):
        return 0
    token = draft.tokens[draft.at + skipped]
    if not (token.quoted or (skipped and token.word not in EMPTY)) or not (found := words_of(token.text)):
        return 0
    return draft.add("text", tree.Phrase(tuple(found)), f"the text “{token.text}” anywhere", skipped + 1)


def typed(draft: Draft) -> int:
    """Read a value behind the word for what it is: session s-9, user carol, bucket logs, access key AKIA…, role admin."""
    for length in (2, 1):
        at = draft.at + length + (1 if draft.word(length) in ("id", "named", "called") else 0)
        if at >= len(draft.tokens) or draft.tokens[at].word in EMPTY:
            continue
        found = _typed(draft, draft.phrase(length), at, at + 1 - draft.at)
        if found:
            return found
    return 0


def concept(draft: Draft) -> int:
    """Read a phrase for a condition: private networks, second factor."""
    skipped = 1 if draft.word() in ("the", "a") else 0
    for count in (5, 4, 3, 2, 1):
        found = CONCEPTS.get(draft.phrase(count, skipped))
        if found is not None and draft.word(skipped + count - 1):
            return draft.add(found[0], syntax.read(found[1], draft.now.at), found[1], skipped + count)
    return 0


def _typed(draft: Draft, noun: str, at: int, count: int) -> int:
    token = draft.tokens[at]
    if noun in _REFERENCES and is_id(token) and _is_reference(draft, at):
        kind, path = _REFERENCES[noun]
        return draft.add(kind, tree.Equal(path, token.text), f"{kind} {token.text}", count)
    if noun == "access key" and is_id(token):
        node = tree.disjunction(tree.Equal(path, token.text) for path in ACCESS_KEY_PATHS)
        return draft.add("key", node, f"access key {token.text}", count)
    if noun == "role" and (found := _role(draft, token.word, count)):
        return found
    if noun in _PERSONS and _is_name(draft, at) and not _is_target(draft):
        return _actor(draft, at, count)
    if noun in _GENERIC_THINGS and is_id(token) and form_of(token, draft.now.at) is None:
        return draft.add("thing", thing(token.text), f"the resource {token.text}", count)
    kinds = draft.actions.types.get(tuple(map(root, noun.split())))
    if kinds and (is_id(token) or (noun in _PERSONS and _is_name(draft, at))) and _is_plain(draft, at):
        draft.nouns.append(tuple(map(root, noun.split())))
        draft.types = kinds
        return draft.add("thing", thing(token.text, kinds), f"the {listed(kinds)} {token.text}", count)
    return 0


def _is_reference(draft: Draft, at: int) -> bool:
    found = form_of(draft.tokens[at], draft.now.at)
    return found is None or found.kind in ("uuid", "key")


def _is_plain(draft: Draft, at: int) -> bool:
    found = form_of(draft.tokens[at], draft.now.at)
    return found is None or found.kind in ("uuid", "thing")


def _is_name(draft: Draft, at: int) -> bool:
    """Return whether the word at a place may be a name: it is an id, a known actor, or no word of the actions."""
    token = draft.tokens[at]
    known = actors_named(token.word, draft.actions.vocabulary.actors)
    return bool(known) or is_id(token)


def _role(draft: Draft, name: str, count: int) -> int:
    if _is_target(draft):
        return 0
    node = role_sessions(name, draft.actions.vocabulary.actors)
    return 0 if node is None else draft.add("actor", node, f"sessions of the role {name}", count)


def _is_target(draft: Draft) -> bool:
    """Return whether a name at the current place is what an action was done to, and not who did it."""
    if draft.role in _ACTOR_ROLES:
        return False
    if (before := draft.listed()) is not None and before.kind in ("actor", "thing"):
        return before.kind == "thing"
    if draft.negation is not None and draft.role not in _TARGET_ROLES:
        return False
    return draft.role in _TARGET_ROLES or draft.verb_at is not None


def _actor(draft: Draft, at: int, count: int) -> int:
    token = draft.tokens[at]
    found = actors_named(token.word, draft.actions.vocabulary.actors)
    possessive = 1 if at + 1 < len(draft.tokens) and draft.tokens[at + 1].word == "'s" else 0
    if found:
        return draft.add("actor", equal("actor.id", found), f"actor {listed(found)}", count + possessive)
    node = tree.disjunction((tree.Equal("actor.id", token.text), tree.Phrase(tuple(words_of(token.text)), "actor.name")))
    return draft.add("actor", node, f"actor {token.text}, by id or name", count + possessive)


def person(draft: Draft) -> int:
    """Read the name of a known actor: who acted, or behind an active verb or to, on, with, what was acted on."""
    token = draft.tokens[draft.at]
    if token.word in EMPTY or token.quoted:
        return 0
    found = actors_named(token.word, draft.actions.vocabulary.actors)
    acts = draft.role == "by" or draft.word(1) == "'s" or draft.word(-1) in ("did", "does", "has", "had")
    if not found or (not acts and draft.actions.is_word(root(token.word))):
        return 0  # the program `payments` is one only where it acts
    if draft.word(1) != "'s" and _is_target(draft):
        values = tuple(dict.fromkeys((*found, token.text)))
        node = tree.disjunction(thing(value) for value in values)
        return draft.add("thing", node, f"the resource {listed(values)}", 1)
    return _actor(draft, draft.at, 1)


def formed(draft: Draft) -> int:
    """Read a value that is recognised by its form."""
    token = draft.tokens[draft.at]
    found = form_of(token, draft.now.at)
    if found is None:
        return 0
    if found.kind == "actor" and not _is_target(draft):
        return draft.add("actor", tree.Equal("actor.id", found.value), f"actor {found.value}", 1)
    if found.kind in ("actor", "thing"):
        if draft.role == "by":
            return draft.add("actor", tree.Equal("actor.id", found.value), f"actor {found.value}", 1)
        return draft.add("thing", thing(found.value), f"the resource {found.value}", 1)
    if found.kind == "uuid":
        paths = ("id", "actor.id", "session_id", "correlation_id", "resource.id", "related.id")
        node = tree.disjunction(tree.Equal(path, found.value) for path in paths)
        return draft.add("request", node, f"{found.value} as any id", 1)
    return draft.add(found.kind, found.node or tree.Everything(), found.meaning, 1)


def identified(draft: Draft) -> int:
    """Read a word that can only be an id: of who acted behind by, else of a resource."""
    token = draft.tokens[draft.at]
    if not is_id(token):
        return 0
    before = draft.listed()
    if before is not None and before.kind in _PATHS:
        return draft.add(before.kind, tree.Equal(_PATHS[before.kind], token.text), f"{before.kind} {token.text}", 1)
    if draft.role == "by" or (not draft.role and draft.word(-1) in ("did", "does", "has", "had")):
        return draft.add("actor", tree.Equal("actor.id", token.text), f"actor {token.text}", 1)
    if is_hyphenated(token) and before is None and draft.verb_at is None and draft.role not in (*_TARGET_ROLES, "of"):
        return 0
    types = draft.types if before is not None and before.kind == "thing" else ()
    return draft.add("thing", thing(token.text, types), f"the resource {token.text}", 1)


def exact_action(draft: Draft) -> int:
    """Read the name of an action as the log has it."""
    token = draft.tokens[draft.at]
    found = draft.actions.exact.get(token.word)
    named = found is not None and (token.text in found or any(action.rpartition(":")[2] == token.text for action in found))
    if (
        not found
        or not named
        or token.word in EMPTY
        or (token.text.islower() and "." not in token.text and ":" not in token.text)
    ):
        return 0
    return draft.add("exact action", equal("action", found), f"action {listed(found)}", 1)


def service(draft: Draft) -> int:
    """Read the name of a service, which stands before the colon of its actions."""
    word = draft.word()
    if word in EMPTY or word not in draft.actions.services:
        return 0
    known = next(each.action for each in draft.actions.all if each.service == word)
    prefix = known.rpartition(":")[0]
    return draft.add("service", tree.Pattern("action", (f"{prefix}:", tree.Wild.MANY)), f"actions of {prefix}", 1)


def content(draft: Draft) -> int:
    """Read a word for an action or for what it was done to; words of one group are understood together."""
    if draft.phrase(2) in LOGIN or draft.phrase(2) in LOGOUT:
        return _grouped(draft, root("login" if draft.phrase(2) in LOGIN else "logout"), 2)
    word = draft.word()
    stem = root(word)
    if not word.isalpha() or not draft.actions.is_word(stem):
        return 0
    if word in OPENINGS and _opens(draft):
        return 0
    if (word in EMPTY or word in TOUCHED) and not _in_pair(draft, stem):
        return 0
    return _grouped(draft, stem, 1)


def _opens(draft: Draft) -> bool:
    """Return whether only words without a meaning stand before the current one: list documents asks for documents."""
    return all(token.word in OPENINGS for token in draft.tokens[: draft.at])


def _in_pair(draft: Draft, stem: str) -> bool:
    """Return whether a word without a meaning of its own names an action or a type together with one of its neighbours."""
    pairs = ([stem, root(draft.word(1))], [root(draft.word(-1)), stem])
    return any(draft.actions.matching(pair) or tuple(pair) in draft.actions.types for pair in pairs)


def _grouped(draft: Draft, stem: str, count: int) -> int:
    last = draft.groups[-1] if draft.groups else None
    linked = draft.link if last is not None and _between(draft, last.places[-1] + 1, draft.at) else None
    if last is None or linked is not None or (draft.negation is not None):
        draft.open_links.discard(-1 if linked is None else linked)
        carried = last.negation if last is not None and linked is not None else None
        last = Group([], [], draft.negation or carried, linked)
        if draft.negation is not None:
            draft.meanings[draft.negation] = "not"
        draft.groups.append(last)
        draft.negation = draft.link = None
    last.places += range(draft.at, draft.at + count)
    last.roots.append(stem)
    if _is_active(draft, stem):
        draft.verb_at = draft.at
    draft.role = ""
    return count


def _between(draft: Draft, first: int, end: int) -> bool:
    return all(token.word in BETWEEN for token in draft.tokens[first:end])


def _is_active(draft: Draft, stem: str) -> bool:
    """Return whether a word is a verb in its active form, behind which its object stands."""
    word = draft.word()
    passive = draft.word(-1) in ("was", "were", "been", "be", "is", "are", "being")
    nominal = word.endswith(("s", "ion", "ions")) or (stem in _LOGINS)
    return stem in draft.actions.verbs and not passive and not nominal
