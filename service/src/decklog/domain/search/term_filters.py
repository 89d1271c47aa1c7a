"""Filters of terms: which blocks of a log cannot hold a token, or a leaf of a JSON value.

A block is a run of records. Its filter is a Bloom filter (B. Bloom, 1970) of the words and leaves of all of them: it may admit a term
that no record has, and never excludes one that a record has. So a search reads the blocks that it admits, and the matcher decides.
Filters are derived from the records and can be made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain

import msgspec

from decklog.domain.search import tree
from decklog.domain.search.fields import CONTENT, Kind
from decklog.domain.search.names import field_at
from decklog.domain.search.query import Query
from decklog.domain.search.terms import Terms, leaf
from decklog.domain.search.words import tokens

VERSION = 2
"""Grows with any change of terms, of hashes or of bits. A filter of another version admits everything until it is made again."""
BLOCK_RECORDS_MAX = 64
"""Records of one block: an admitted block is read whole."""
BLOCK_TERMS_MAX = 512
"""Distinct terms of a block of several records. The filter of so many has 1 KiB."""
SIZES = tuple(1 << exponent for exponent in range(7, 18))
"""Bits that a filter may have. The largest is that of one record with the most words and leaves: 16 KiB."""
_BITS_PER_TERM = 16
"""At least. Then a filter admits an absent term about once in 1,700 blocks."""
_PROBES = 8
"""Bits of one term."""


class TermFilter(msgspec.Struct, frozen=True):
    """The filter of the records `first <= seq < end`. `size` is the place of its number of bits in `SIZES`, from 1."""

    first: int
    end: int
    size: int
    bits: bytes


@lru_cache(maxsize=50_000)
def _hash(kind: bytes, term: str) -> int:
    return int.from_bytes(hashlib.blake2b(kind + term.encode(), digest_size=8).digest(), "big")


_WORD, _LEAF = b"w", b"l"


def hashes(found: Terms) -> set[int]:
    """Return the hashes of a record's tokens and leaves."""
    return {_hash(_WORD, token) for token in set(chain.from_iterable(found.texts))} | {
        _hash(_LEAF, term) for term in found.leaves
    }


def _bits(hashed: Iterable[int], bits: int) -> bytes:
    """Return so many bits, with those of every hash set."""
    made, within = bytearray(bits // 8), bits - 1
    for value in hashed:
        at, step = value & 0xFFFFFFFF, (value >> 32) | 1
        for _ in range(_PROBES):
            place = at & within
            made[place >> 3] |= 1 << (place & 7)
            at += step
    return bytes(made)


def filters(records: Iterable[tuple[int, set[int]]]) -> list[TermFilter]:
    """Return the filters of records, which are in order, each with its `seq` and the hashes of its terms.

    A gap in the numbers ends a block, so no filter speaks of a record that it does not know.
    """
    made: list[TermFilter] = []
    first = end = 0
    held: set[int] = set()
    for seq, hashed in records:
        full = end - first >= BLOCK_RECORDS_MAX or len(held | hashed) > BLOCK_TERMS_MAX
        if end > first and (full or seq != end):
            made.append(_filter(first, end, held))
            first, held = seq, set()
        elif end == first:
            first = seq
        held |= hashed
        end = seq + 1
    return [*made, _filter(first, end, held)] if end > first else made


def _filter(first: int, end: int, held: set[int]) -> TermFilter:
    size = next(number for number, bits in enumerate(SIZES, start=1) if bits >= _BITS_PER_TERM * len(held) or bits == SIZES[-1])
    return TermFilter(first, end, size, _bits(held, SIZES[size - 1]))


def masks(query: Query) -> list[bytes]:
    """Return, for each of `SIZES`, the bits that a filter of a block with a match has; all are 0 where terms decide nothing."""
    wanted = {hashed for node in query.conjuncts for hashed in _necessary(node)}
    return [_bits(wanted, bits) for bits in SIZES]


def _necessary(node: tree.Node) -> Iterator[int]:
    """Yield the hashes of terms that every match of a node has."""
    match node:
        case tree.Phrase():
            for word in node.words:
                yield _hash(_WORD, word)
        case tree.Equal() if field_at(node.field).kind is Kind.LEAVES:
            yield _hash(_LEAF, leaf(node.field, node.value))
        case tree.Equal() if field_at(node.field).column == CONTENT:
            for word in tokens(node.value):
                yield _hash(_WORD, word)


def admits(made: TermFilter, mask: list[bytes]) -> bool:
    """Return whether a record of the block may match the query of these masks."""
    wanted = int.from_bytes(mask[made.size - 1], "big")
    return int.from_bytes(made.bits, "big") & wanted == wanted
