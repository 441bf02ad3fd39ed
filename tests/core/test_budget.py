"""Spending limits of a session."""

from dataclasses import replace

import pytest

from core.budget import Budget, BudgetLimits

PRICED = BudgetLimits(usd_per_million_prompt=1.0, usd_per_million_completion=2.0)


def test_no_limits_allow_everything() -> None:
    budget = Budget(BudgetLimits())
    budget.record(10**9, 10**9, 0.0)
    assert budget.allowed_at(1.0) == 1.0


@pytest.mark.parametrize(
    ("limits", "spent", "now", "allowed"),
    [
        (BudgetLimits(tokens_per_hour=100), [(0, 99)], 5, 5),
        (BudgetLimits(tokens_per_hour=100), [(0, 100)], 5, 3600),
        (BudgetLimits(tokens_per_hour=100), [(0, 60), (1000, 60)], 1500, 3600),
        (BudgetLimits(tokens_per_hour=100), [(0, 60), (1000, 160)], 1500, 4600),
        (BudgetLimits(tokens_per_hour=100), [(0, 100)], 3600, 3600),
        (BudgetLimits(tokens_per_session=100), [(0, 100)], 9999, None),
        (replace(PRICED, usd_per_hour=0.5), [(0, 499_999)], 5, 5),
        (replace(PRICED, usd_per_hour=0.5), [(0, 500_000)], 5, 3600),
        (replace(PRICED, usd_per_session=0.5), [(0, 500_000)], 5, None),
    ],
)
def test_limits(
    limits: BudgetLimits, spent: list[tuple[float, int]], now: float, allowed: float | None
) -> None:
    budget = Budget(limits)
    for at, tokens in spent:
        budget.record(tokens, 0, at)
    assert budget.allowed_at(now) == allowed


def test_completion_tokens_have_their_own_price() -> None:
    budget = Budget(PRICED)
    budget.record(1_000_000, 500_000, 0.0)
    assert (budget.tokens, budget.usd) == (1_500_000, 2.0)
