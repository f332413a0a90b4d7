"""When the next attempt is made, and when there is none any more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.delivery.intervals import Intervals
from forwarder.model.letter import Progress, State


def test_the_last_interval_repeats() -> None:
    plain = Intervals()
    assert [plain.after(n) for n in range(8)] == [60, 60, 300, 900, 1800, 3600, 3600, 3600]


@pytest.mark.parametrize(("number", "expected"), [(0.0, 270.0), (0.5, 300.0), (1.0, 330.0)])
def test_jitter_is_a_share_of_the_interval(number: float, expected: float) -> None:
    assert Intervals().drawn(2, number) == pytest.approx(expected)


@given(st.integers(0, 200), st.floats(0, 1))
def test_no_interval_is_longer_than_the_longest(attempts: int, chance: float) -> None:
    drawn = Intervals().drawn(attempts, chance)
    assert 0 < drawn <= Intervals().longest(attempts)


@pytest.mark.parametrize(("expire", "enough"), [(432_000.0, 6), (0.0, 1), (65.0, 1), (66.0, 2), (400.0, 3)])
def test_no_more_attempts_are_asked_for_than_fit(expire: float, enough: int) -> None:
    assert Intervals(expire=expire).enough == enough


@pytest.mark.parametrize(
    ("attempts", "waited", "expired"),
    [(6, 432_000.0, True), (5, 1e12, False), (1000, 431_999.0, False), (500, 1e12, True)],
)
def test_expiry_needs_enough_time_and_enough_attempts(attempts: int, waited: float, expired: bool) -> None:
    assert Intervals().expired(Progress(State.QUEUED, attempts=attempts, waited=waited)) is expired


@pytest.mark.parametrize(("wait", "expected"), [(0.0, 60.0), (30.0, 60.0), (7200.0, 7200.0), (1e9, 14_400.0)])
def test_a_next_hop_can_only_make_it_longer_and_not_without_end(wait: float, expected: float) -> None:
    assert Intervals().stretched(60.0, wait) == expected
    assert Intervals().stretched(20_000.0, wait) == 20_000.0
