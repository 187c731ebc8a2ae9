"""A day's requests: what is left, and how far apart polls must be to make it last."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.detection.daily_budget import LOW, DailyBudget

NOON = datetime(2026, 7, 11, 12, tzinfo=timezone.utc)
MIDNIGHT = datetime(2026, 7, 12, tzinfo=timezone.utc)

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 — the strategy takes naive bounds, and gives them zones
    datetime(2100, 1, 1),  # noqa: DTZ001 — likewise
    timezones=zones,
)
counts = st.integers(0, 200_000)
maybe = st.none() | counts


def budget_of(
    now: datetime, share: int | None = None, limit: int | None = None, remaining: int | None = None
) -> DailyBudget:
    budget = DailyBudget(share)
    budget.answered(now, limit, remaining)
    return budget


@pytest.mark.parametrize(
    ("share", "limit", "remaining", "total", "left"),
    [
        (None, None, None, None, None),
        (None, 1000, 400, 1000, 400),
        (None, None, 400, None, 400),
        (500, None, None, 500, 500),
        (500, 1000, 900, 500, 400),  # the account has made 100
        (500, 1000, 400, 500, 0),  # it has made 600: others have used part of our share
        (500, 1000, 500, 500, 0),
        (5000, 1000, 900, 1000, 900),  # a share above the plan's limit is all of the plan
        (500, 100, 900, 100, 500),  # impossible counts: nothing is used
        (500, None, 30, 500, 30),
        (0, 1000, 1000, 0, 0),
    ],
)
def test_counts(
    share: int | None, limit: int | None, remaining: int | None, total: int | None, left: int | None
) -> None:
    """The account's use, as the headers show it, counts against the share.

    Without it, our own requests count.
    """
    budget = budget_of(NOON, share, limit, remaining)
    assert (budget.total(NOON), budget.left(NOON)) == (total, left)


def test_own_requests_count_without_headers() -> None:
    """Without counts from the API, our own requests use up the share. Counts from the API replace them."""
    budget = DailyBudget(3)
    for used in range(3):
        assert budget.left(NOON) == 3 - used
        assert not budget.share_is_used(NOON)
        budget.asked(NOON)
    assert budget.left(NOON) == 0
    assert budget.share_is_used(NOON)
    budget.answered(NOON, 1000, 999)
    assert budget.left(NOON) == 2
    assert not budget.share_is_used(NOON)


@given(instants, maybe, maybe, maybe)
def test_bounds(now: datetime, share: int | None, limit: int | None, remaining: int | None) -> None:
    """What is left is never negative, and never more than the share or what the API says remains."""
    budget = budget_of(now, share, limit, remaining)
    left = budget.left(now)
    if left is None:
        assert (share, remaining) == (None, None)
    else:
        assert 0 <= left <= min(count for count in (share, remaining) if count is not None)
    assert not budget.share_is_used(now) or left == 0
    assert not budget.is_refused(now)


@given(instants, counts, counts)
def test_low(now: datetime, limit: int, remaining: int) -> None:
    """From the last fifth on, few are left. If none is left, few are left whatever the numbers are."""
    budget = budget_of(now, None, limit, remaining)
    assert budget.is_low(now) == (remaining <= LOW * limit)
    assert budget_of(now, None, limit, 0).is_low(now)


def test_unknown_counts_are_not_low() -> None:
    """If it is unknown how many there are, nobody is warned."""
    assert not DailyBudget().is_low(NOON)
    assert not budget_of(NOON, remaining=0).is_low(NOON)


@given(instants)
def test_reset(now: datetime) -> None:
    """The day ends at the next midnight UTC, whatever zone the time is in."""
    ends = DailyBudget().resets_at(now)
    assert ends.utcoffset() == timedelta(0)
    assert (ends.hour, ends.minute, ends.second, ends.microsecond) == (0, 0, 0, 0)
    assert timedelta(0) < ends - now <= timedelta(days=1)


@given(instants, maybe, maybe, maybe, st.floats(0, 90_000))
def test_a_refusal_lasts_until_the_day_ends(
    now: datetime, share: int | None, limit: int | None, remaining: int | None, seconds: float
) -> None:
    """After the API's refusal, nothing is left until the day ends. Then counting begins anew."""
    budget = budget_of(now, share, limit, remaining)
    budget.asked(now)
    budget.refused(now)
    ends = budget.resets_at(now)
    later = now + timedelta(seconds=seconds)
    assert budget.left(now) == 0
    assert budget.is_refused(later) == (later < ends)
    fresh = DailyBudget(share)
    assert (budget.left(ends), budget.total(ends)) == (fresh.left(ends), fresh.total(ends))
    assert not budget.is_refused(ends)


def test_a_clock_that_was_set_back() -> None:
    """If the clock shows an earlier day, counting begins anew: a clock that was wrong once blocks nothing."""
    budget = DailyBudget()
    budget.refused(NOON + timedelta(days=300))
    assert not budget.is_refused(NOON)


# --- polls -----------------------------------------------------------------------------------------------


def test_polls_without_counts() -> None:
    """If it is unknown how many are left, polls keep their interval."""
    assert DailyBudget().spaced(15.0, NOON) == 15.0


@pytest.mark.parametrize(
    ("limit", "remaining", "seconds"),
    [
        (100_000, 100_000, 15.0),
        (100_000, 1000, 86.4),
        (1000, 100, 864.0),
        (1000, 1, 43_200.0),
        (0, 0, 43_200.0),
    ],
)
def test_spaced(limit: int, remaining: int, seconds: float) -> None:
    """Half of what is left is spread over the rest of the day."""
    assert budget_of(NOON, None, limit, remaining).spaced(15.0, NOON) == pytest.approx(seconds)


def test_polls_of_several_requests() -> None:
    """Polls that make twice as many requests are twice as far apart."""
    assert budget_of(NOON, None, 1000, 100).spaced(15.0, NOON, requests=2) == pytest.approx(2 * 864)


def test_an_answer_without_counts_changes_none() -> None:
    """Those of the day's earlier answers hold on."""
    budget = budget_of(NOON, None, 1000, 400)
    budget.answered(NOON, None, None)
    assert (budget.total(NOON), budget.left(NOON)) == (1000, 400)


@given(instants, st.floats(1, 100_000), maybe, counts, counts, st.integers(1, 10), st.booleans())
def test_spacing_has_bounds(
    now: datetime, interval: float, share: int | None, limit: int, remaining: int, requests: int, spent: bool
) -> None:
    """The interval is never below the given one, and never beyond the day's end. Costlier polls are rarer."""
    budget = budget_of(now, share, limit, remaining)
    if spent:
        budget.refused(now)
    until_reset = (budget.resets_at(now) - now).total_seconds()
    spaced = budget.spaced(interval, now, requests)
    assert interval <= spaced <= max(interval, until_reset)
    assert spaced <= budget.spaced(interval, now, requests + 1)
    if budget.left(now) == 0:
        assert spaced == max(interval, until_reset)


@given(st.integers(0, 86_399), st.floats(5, 3600), st.integers(1, 2000), st.integers(1, 3), st.integers(0, 1))
def test_polls_last_until_the_day_ends(
    second: int, interval: float, remaining: int, requests: int, by_share: int
) -> None:
    """However few are left and whenever, each poll still has requests, and the next day has one, too."""
    now = MIDNIGHT - timedelta(days=1) + timedelta(seconds=second)
    limit = 5000
    budget = DailyBudget(remaining if by_share else None)
    left = max(remaining, requests)
    used = 0
    while now < MIDNIGHT:
        assert used + requests <= left
        used += requests
        if by_share:
            budget.share = left
            budget.answered(now, limit, limit - used)
        else:
            budget.answered(now, limit, left - used)
        now += timedelta(seconds=budget.spaced(interval, now, requests))
    assert now <= MIDNIGHT + timedelta(seconds=interval)


@given(st.integers(2, 500))
def test_a_reserve_is_left(remaining: int) -> None:
    """For three quarters of the rest of the day, half of the requests left at its start remain for others."""
    now, left = NOON, remaining
    while now < MIDNIGHT - timedelta(hours=3):
        left -= 1
        now += timedelta(seconds=budget_of(now, None, 100_000, left).spaced(1.0, now))
    assert left >= remaining / 2 - 2
