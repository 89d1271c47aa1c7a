"""The account of bytes: each tenant within its share, all within the budget, and nothing left behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog.services.budget import Budget, Held


def taken(held: Held, step: int) -> int:
    """Take steps until the budget refuses, and return the bytes held."""
    while held.fits(step):
        held.take(step)
    with pytest.raises(DecklogError) as caught:
        held.take(step)
    assert (caught.value.code, caught.value.retry_after) == (Code.OVERLOADED, 1)
    return held.held


def test_one_tenant_holds_at_most_a_third_and_another_still_finds_room() -> None:
    budget = Budget(1_200, of="test")
    with budget.account(1) as greedy, budget.account(2) as other:
        assert taken(greedy, 1) == 400
        assert taken(other, 1) == 266
        greedy.give(400)
        assert taken(other, 1) == 400


def test_room_is_left_for_a_newcomer_however_many_tenants_take_all_they_can() -> None:
    budget = Budget(30_000, of="test")
    greedy = [budget.account(tenant) for tenant in range(1, 21)]
    for _ in range(2_000):
        for held in greedy:
            if held.fits(1):
                held.take(1)
    assert not any(held.fits(1) for held in greedy)
    assert taken(budget.account(99), 1) > 500


def test_accounts_of_one_tenant_share_its_share() -> None:
    budget = Budget(300, of="test")
    with budget.account(1) as one, budget.account(1) as two:
        one.take(60)
        assert taken(two, 1) == 40
        with pytest.raises(DecklogError):
            one.check(1)
    assert (budget.held, budget.held_by(1)) == (0, 0)


def test_tenant_that_was_refused_is_refused_early_until_as_much_is_free() -> None:
    budget = Budget(900, of="test")
    with budget.account(1) as first, budget.account(1) as second:
        budget.refuse_early(1)
        first.take(200)
        second.take(50)
        with pytest.raises(DecklogError):
            second.take(100)
        second.give(50)
        with pytest.raises(DecklogError) as caught:
            budget.refuse_early(1)
        assert caught.value.code is Code.OVERLOADED
        budget.refuse_early(2)
        first.give(200)
        budget.refuse_early(1)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400), st.sampled_from(["take", "give", "leave"])), max_size=60),
)
def test_budget_returns_to_zero_after_any_interleaving(steps: list[tuple[int, int, str]]) -> None:
    budget = Budget(1_000, of="test")
    accounts = [budget.account(number % 3) for number in range(6)]
    for number, count, action in steps:
        held = accounts[number]
        if action == "take" and budget.fits(number % 3, count):
            held.take(count)
        elif action == "give":
            held.give(count)
        elif action == "leave":
            held.__exit__(None, None, None)
        assert budget.held == sum(held.held for held in accounts) <= budget.bytes_max
    for held in accounts:
        held.__exit__(None, None, None)
    assert budget.held == 0
    assert all(budget.held_by(tenant) == 0 for tenant in range(3))
