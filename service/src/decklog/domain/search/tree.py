"""The syntax tree of a query: what every engine evaluates, whatever text or parameters it was read from.

A node has no behaviour of its own. `syntax` reads a tree from text, `canonical` writes it as text, `matching` evaluates it in memory,
and the adapters translate it to SQL and to the language of an index. Fields are named by their paths on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from enum import Enum
from typing import TypeAlias

import msgspec


class Wild(Enum):
    """A wildcard of a pattern."""

    MANY = "*"
    """Any characters, also none."""
    ONE = "?"
    """Exactly one character, a code point."""


Parts: TypeAlias = tuple[str | Wild, ...]
"""A pattern: literal texts, none of them empty, and the wildcards between them."""


class Everything(msgspec.Struct, frozen=True):
    """Every record."""


class And(msgspec.Struct, frozen=True):
    """Records that satisfy all children, at least two of them."""

    children: tuple[Node, ...]


class Or(msgspec.Struct, frozen=True):
    """Records that satisfy at least one of the children, at least two of them."""

    children: tuple[Node, ...]


class Not(msgspec.Struct, frozen=True):
    """Records that do not satisfy the child, also because they have no such field."""

    child: Node


class Equal(msgspec.Struct, frozen=True):
    """Records whose field has this whole value: a member of a set, or a leaf at this path, where the field has several."""

    field: str
    value: str


class Pattern(msgspec.Struct, frozen=True):
    """Records whose field has a whole value of this pattern."""

    field: str
    parts: Parts


class Exists(msgspec.Struct, frozen=True):
    """Records whose field has a value, or which have a JSON value other than null at this path."""

    field: str


class Network(msgspec.Struct, frozen=True):
    """Records whose address lies in a network, which has its canonical spelling."""

    field: str
    network: str


class Since(msgspec.Struct, frozen=True):
    """Records that occurred at this time or later. `ago` is the time as it was written, where it depends on now."""

    at: datetime
    ago: str = ""


class Until(msgspec.Struct, frozen=True):
    """Records that occurred before this time. `ago` is the time as it was written, where it depends on now."""

    at: datetime
    ago: str = ""


class Received(msgspec.Struct, frozen=True):
    """Records received at this time or later; with `before`, earlier. `ago` is the time as it was written, where it depends on now."""

    at: datetime
    before: bool = False
    ago: str = ""


class Seqs(msgspec.Struct, frozen=True):
    """Records with a number from `first` up to, but not including, `end`."""

    first: int = 0
    end: int = 2**63 - 1


class Numbers(msgspec.Struct, frozen=True):
    """Records with a JSON number at this path within bounds, which are JSON numbers themselves; an empty bound is open."""

    field: str
    low: str = ""
    high: str = ""
    above: bool = False
    """Whether the number must be greater than `low`, not equal to it."""
    below: bool = False
    """Whether the number must be less than `high`, not equal to it."""


class Phrase(msgspec.Struct, frozen=True):
    """Records with these words next to each other, in this order, within one text; in any text where `field` is empty."""

    words: tuple[str, ...]
    field: str = ""


class WordPattern(msgspec.Struct, frozen=True):
    """Records with a word of this pattern; in any text where `field` is empty."""

    parts: Parts
    field: str = ""


Leaf: TypeAlias = (
    Everything | Equal | Pattern | Exists | Network | Since | Until | Received | Seqs | Numbers | Phrase | WordPattern
)
Node: TypeAlias = And | Or | Not | Leaf


def _flat(kind: type[And | Or], nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        if isinstance(node, kind):
            yield from node.children
        else:
            yield node


def conjunction(nodes: Iterable[Node]) -> Node:
    """Return the node of records that satisfy all of these nodes; of no nodes, every record."""
    children = tuple(node for node in dict.fromkeys(_flat(And, nodes)) if not isinstance(node, Everything))
    if len(children) < 2:
        return children[0] if children else Everything()
    return And(children)


def disjunction(nodes: Iterable[Node]) -> Node:
    """Return the node of records that satisfy one of these nodes, of which there is at least one."""
    children = tuple(dict.fromkeys(_flat(Or, nodes)))
    if len(children) == 1:
        return children[0]
    return Everything() if Everything() in children else Or(children)


def negation(node: Node) -> Node:
    """Return the node of records that do not satisfy this node."""
    return node.child if isinstance(node, Not) else Not(node)


def conjuncts(node: Node) -> tuple[Node, ...]:
    """Return the nodes all of which a record must satisfy, and which together decide."""
    if isinstance(node, And):
        return node.children
    return () if isinstance(node, Everything) else (node,)


def replaced(node: Node, of_leaf: Callable[[Leaf], Node]) -> Node:
    """Return a tree with each leaf replaced."""
    if isinstance(node, And | Or):
        return msgspec.structs.replace(node, children=tuple(replaced(child, of_leaf) for child in node.children))
    return Not(replaced(node.child, of_leaf)) if isinstance(node, Not) else of_leaf(node)


def leaves(node: Node) -> Iterator[Leaf]:
    """Yield the leaves of a tree, in the order of its text."""
    if isinstance(node, And | Or):
        for child in node.children:
            yield from leaves(child)
    elif isinstance(node, Not):
        yield from leaves(node.child)
    else:
        yield node
