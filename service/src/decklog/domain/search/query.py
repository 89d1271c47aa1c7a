"""The filter model of lists, exports, statistics and streams, and its evaluation in memory.

`parse` turns query parameters into a `Query` and refuses a name that it does not know, so no filter is silently ignored. Parameters and
the text of `q` become one tree. `matches` decides whether a record's terms satisfy it; OpenSearch and SQL translate the same tree and
must agree with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec

from decklog.domain.errors import invalid_parameter, unknown_parameter
from decklog.domain.log import LogName
from decklog.domain.privacy.masking import MASK, is_secret_name
from decklog.domain.records.canonical import UNSTORABLE
from decklog.domain.search import conditions, decided, evaluation, moments, syntax, tree
from decklog.domain.search.fields import FIELDS, NAMES, PATHS, Field, Kind, find
from decklog.domain.search.grammar import QUERY_CHARS_MAX
from decklog.domain.search.names import field_at, is_root
from decklog.domain.search.terms import Terms, parse_network
from decklog.domain.search.words import tokens
from decklog.domain.search.written import rfc3339, written

PARAMETER_CHARS_MAX = 2_000
"""Characters of the value of one parameter but `q`."""
LEAVES_MAX = 16
"""Parameters for leaves (`metadata.<path>` and the like) in one query."""
PARAMETERS = ("log", *NAMES)
"""Names of the parameters that `parse` reads, besides those of leaves."""


class Query(msgspec.Struct, frozen=True, dict=True):
    """What a record must satisfy; an empty query matches every record.

    `text` is the tree in the query language, the same for every spelling. Page cursors depend on it, and access records contain it.
    """

    root: tree.Node = tree.Everything()

    @cached_property
    def text(self) -> str:
        """The query in the query language."""
        return written(self.root)

    @property
    def empty(self) -> bool:
        """Whether every record matches, because there is no condition."""
        return isinstance(self.root, tree.Everything)

    @cached_property
    def conjuncts(self) -> tuple[tree.Node, ...]:
        """Nodes that a match satisfies, all of them."""
        return tree.conjuncts(self.root)

    @cached_property
    def needs_content(self) -> bool:
        """Whether the content must be matched: some fields have no column of their own, and columns do not hold long values."""
        return not decided.by_columns(self.root)

    @cached_property
    def index_decides(self) -> bool:
        """Whether an index finds exactly what matches. Else it finds more, where records have very long values."""
        return all(map(decided.by_index, tree.leaves(self.root)))

    @cached_property
    def needs_leaves(self) -> bool:
        """Whether the leaves of `metadata`, `before` and `after` decide."""
        return any(_of_leaves(leaf) for leaf in tree.leaves(self.root))

    @cached_property
    def needs_texts(self) -> bool:
        """Whether words in any text decide."""
        words = (tree.Phrase, tree.WordPattern)
        return any(isinstance(leaf, words) and not leaf.field for leaf in tree.leaves(self.root))

    @cached_property
    def satisfied(self) -> evaluation.Satisfied:
        """The function that decides whether a record with some terms matches."""
        return evaluation.compiled(self.root)

    @property
    def since(self) -> datetime | None:
        """The earliest `occurred_at` of a match, None where it has no bound."""
        return max((node.at for node in self.conjuncts if isinstance(node, tree.Since)), default=None)

    @property
    def until(self) -> datetime | None:
        """The time before which every match occurred, None where it has no bound."""
        return min((node.at for node in self.conjuncts if isinstance(node, tree.Until)), default=None)

    @property
    def received_since(self) -> datetime | None:
        """The earliest receipt time of a match, None where it has no bound."""
        return max((node.at for node in self.conjuncts if isinstance(node, tree.Received) and not node.before), default=None)

    @property
    def received_until(self) -> datetime | None:
        """The time before which every match was received, None where it has no bound."""
        return min((node.at for node in self.conjuncts if isinstance(node, tree.Received) and node.before), default=None)

    @cached_property
    def receipts(self) -> tuple[datetime, ...]:
        """All receipt times that decide."""
        return tuple(dict.fromkeys(leaf.at for leaf in tree.leaves(self.root) if isinstance(leaf, tree.Received)))

    def numbered(self, seqs: Mapping[datetime, int]) -> Query:
        """Return the same query with ranges of `seq` in place of receipt times: `seqs` has the first `seq` received from each on."""

        def of_leaf(leaf: tree.Leaf) -> tree.Node:
            if not isinstance(leaf, tree.Received):
                return leaf
            return tree.Seqs(end=seqs[leaf.at]) if leaf.before else tree.Seqs(first=seqs[leaf.at])

        return Query(tree.replaced(self.root, of_leaf))


def _of_leaves(node: tree.Leaf) -> bool:
    match node:
        case tree.Numbers():
            return True
        case tree.Equal() | tree.Pattern() | tree.Exists():
            return is_root(node.field) or field_at(node.field).kind is Kind.LEAVES
        case _:
            return False


def parse_time(name: str, text: str) -> datetime:
    """Return a time as `domain.times` reads it in UTC, clamped to the times that records can have.

    Raises:
        DecklogError: `invalid-parameter`.
    """
    try:
        return moments.read_time(text)
    except ValueError as error:
        raise invalid_parameter(name, str(error)) from None


def _network(name: str, text: str) -> str:
    network = parse_network(text)
    if network is None:
        raise invalid_parameter(name, f"{text!r} is neither an address nor a network in CIDR notation.")
    return network


def _one_of(name: str, text: str, allowed: Sequence[str]) -> str:
    if text not in allowed:
        raise invalid_parameter(name, f"{text!r} is not one of {', '.join(allowed)}.")
    return text


def _keyword(field: Field, text: str) -> tree.Node:
    if not field.prefixes or "*" not in text:
        return tree.Equal(field.path, text)
    start = text.removesuffix("*")
    if "*" in start or start == text:
        raise invalid_parameter(field.parameter, "'*' is allowed only at the end, as in user.*")
    return tree.Pattern(field.path, (start, tree.Wild.MANY)) if start else tree.Everything()


def _phrase(field: Field, text: str) -> tree.Node:
    found = tokens(text)
    if not found:
        raise invalid_parameter(field.parameter, "at least one word of letters or digits is required.")
    if len(found) > conditions.PHRASE_WORDS_MAX:
        raise invalid_parameter(field.parameter, f"at most {conditions.PHRASE_WORDS_MAX} words are allowed.")
    return conditions.of_words(found, field.path)


def _node(field: Field, name: str, text: str, now: datetime) -> tree.Node:
    """Return the node of a parameter."""
    match field.kind:
        case Kind.SINCE:
            return tree.Since(parse_time(name, text))
        case Kind.UNTIL:
            return tree.Until(parse_time(name, text))
        case Kind.KEYWORD | Kind.KEYWORDS:
            return _keyword(field, text)
        case Kind.CHOICE | Kind.CHOICES:
            return tree.Equal(field.path, _one_of(name, text, field.choices))
        case Kind.NETWORK:
            return tree.Network(field.path, _network(name, text))
        case Kind.LEAVES:
            return tree.Equal(name, text)
        case Kind.TEXT:
            return _phrase(field, text)
        case Kind.WORDS:
            return syntax.read(text, now)
        case Kind.SEQ | Kind.RECEIPT:
            raise ValueError(f"{name} is no parameter")


def _field(name: str, others: Sequence[str]) -> Field | None:
    """Return the field of a parameter, or None for `log`. Raises `unknown-parameter`."""
    field = find(name)
    if field is None and name != "log":
        raise unknown_parameter(name, ", ".join((*sorted({*PARAMETERS, *others}), *PATHS)))
    return field


def _check_text(name: str, text: str, most: int) -> None:
    if not text or len(text) > most or UNSTORABLE.search(name + text):
        raise invalid_parameter(name, f"must have 1 to {most} characters, none of them U+0000 or a lone surrogate.")


def _query(nodes: dict[str, list[tree.Node]]) -> Query:
    """Return the query of nodes by the names of their parameters. Raises `invalid-parameter`."""
    if sum(field.kind is Kind.LEAVES for name in nodes if (field := find(name)) is not None) > LEAVES_MAX:
        raise invalid_parameter("metadata", f"at most {LEAVES_MAX} parameters for metadata, before and after are allowed.")
    ordered = sorted(nodes, key=lambda name: (_PLACES[found] if (found := find(name)) else -1, name))
    query = Query(tree.conjunction(tree.disjunction(sorted(nodes[name], key=written)) for name in ordered))
    if query.since and query.until and query.since >= query.until:
        raise invalid_parameter("from", "must be before `to`, and since: before until: in `q`.")
    return query


_PLACES = {field: place for place, field in enumerate(FIELDS)}


def parse(
    parameters: Iterable[tuple[str, str]], *, others: Sequence[str] = (), now: datetime | None = None
) -> tuple[LogName, Query]:
    """Return the log and the query of query parameters.

    Args:
        parameters: Names and values, decoded, in the order sent.
        others: Names that the caller reads itself; they are skipped.
        now: What relative times in `q` refer to; None for the present time.

    Raises:
        DecklogError: `unknown-parameter` or `invalid-parameter`, with the name of the first parameter that is refused, and
            `invalid-query` with the place in `q`.
    """
    log = LogName.EVENTS
    nodes: dict[str, list[tree.Node]] = {}
    seen: set[str] = set()
    for name, text in parameters:
        if name in others:
            continue
        field = _field(name, others)
        if name in seen and not (field and field.kind is Kind.CHOICES):
            raise invalid_parameter(name, "may be given once only.")
        seen.add(name)
        _check_text(name, text, QUERY_CHARS_MAX if field and field.kind is Kind.WORDS else PARAMETER_CHARS_MAX)
        if field is None:
            log = LogName.parse(text)
        else:
            nodes.setdefault(name, []).append(_node(field, name, text, now or datetime.now(UTC)))
    return log, _query(nodes)


def matches(query: Query, terms: Terms) -> bool:
    """Return whether a record with these terms satisfies the query."""
    return query.satisfied(terms)


def _masked(node: tree.Node) -> tree.Node:
    """Return a tree in which values under the names of secrets are masked."""
    match node:
        case tree.And() | tree.Or():
            return msgspec.structs.replace(node, children=tuple(map(_masked, node.children)))
        case tree.Not():
            return tree.Not(_masked(node.child))
        case tree.Equal() | tree.Pattern() | tree.Numbers() if any(map(is_secret_name, node.field.split("."))):
            return tree.Equal(node.field, MASK)
        case _:
            return node


def describe(query: Query) -> dict[str, Any]:
    """Return the query as plain JSON for access records: its text, without values of secrets, and the times that it means."""
    bounds = {"since": query.since, "until": query.until}
    text = {} if query.empty else {"q": written(_masked(query.root))}
    return text | {name: rfc3339(at) for name, at in bounds.items() if at is not None}
