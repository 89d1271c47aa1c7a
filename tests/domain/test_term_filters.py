"""Filters of terms: a block that holds a match is always admitted, and one without is mostly not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.records.record import Prepared
from decklog.domain.search.query import Query, matches
from decklog.domain.search.term_filters import BLOCK_RECORDS_MAX, BLOCK_TERMS_MAX, SIZES, admits, filters, hashes, masks
from tests.support.asked import asked
from tests.support.documents import made
from tests.support.examples import examples
from tests.support.strategies import cases, terms_of


@settings(max_examples=examples(150), deadline=None)
@given(case=cases(most=8), gaps=st.lists(st.integers(1, 3), min_size=8, max_size=8))
def test_filters_admit_every_match_and_cover_exactly_their_records(case: tuple[list[Prepared], Query], gaps: list[int]) -> None:
    found, query = [terms_of(record) for record in case[0]], case[1]
    seqs = [sum(gaps[: number + 1]) for number in range(len(found))]
    blocks = filters((seq, hashes(item)) for seq, item in zip(seqs, found, strict=True))
    assert [seq for block in blocks for seq in range(block.first, block.end)] == seqs
    mask = masks(query)
    for seq, item in zip(seqs, found, strict=True):
        [block] = [block for block in blocks if block.first <= seq < block.end]
        assert len(block.bits) * 8 == SIZES[block.size - 1]
        assert admits(block, mask) or not matches(query, item)


def test_filters_exclude_most_blocks_without_a_word() -> None:
    blocks = filters((seq, hashes(made(message=f"number {seq} of them", metadata={"n": seq}))) for seq in range(10_000))
    assert all(block.end - block.first <= BLOCK_RECORDS_MAX for block in blocks)
    assert len(blocks) >= 10_000 / BLOCK_RECORDS_MAX
    for wanted in map(asked, ("absent", "number absent", '"number absent"', "metadata.n:10000", "related:absent")):
        assert sum(admits(block, masks(wanted)) for block in blocks) <= len(blocks) // 50
    assert all(admits(block, masks(asked("number"))) for block in blocks)
    [seen] = [block for block in blocks if block.first <= 4_711 < block.end]
    assert admits(seen, masks(asked("4711 metadata.n:4711")))
    for query in ("actor:nobody", "NOT number", "absent OR number", "absent*", "exists:metadata.absent", "metadata.n:>99999"):
        assert all(admits(block, masks(asked(query))) for block in blocks), "only terms that every match has decide"


def test_filters_bound_their_size_by_the_terms_of_one_record() -> None:
    large = hashes(made(before=" ".join(map(str, range(8_000))), metadata={str(n): n for n in range(2_000)}))
    small = [(seq, hashes(made(message=" ".join(f"w{seq}x{n}" for n in range(100))))) for seq in range(1, 60)]
    blocks = filters([(0, large), *small, (60, large)])
    assert [blocks[0].end, blocks[-1].first] == [1, 60]
    assert blocks[0].size == len(SIZES)
    assert max(SIZES[block.size - 1] for block in blocks[1:-1]) <= 16 * BLOCK_TERMS_MAX
    assert filters([]) == []
