"""The sliding window: never more than the limit in any window, and not much less."""

from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.policy.limiter import SlidingLimiter
from tests.fakes import FakeClock


def taken(steps: list[int], limit: int, seconds: int) -> list[float]:
    """Give the times at which events were let through; steps are in quarters of a second."""
    clock = FakeClock()
    limiter = SlidingLimiter(clock.monotonic)
    times = []
    for step in steps:
        clock.advance(step / 4)
        if limiter.take("key", limit, seconds):
            times.append(clock.monotonic())
    return times


def most_in_a_window(times: list[float], seconds: int) -> int:
    return max((sum(start <= time < start + seconds for time in times) for start in times), default=0)


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), max_size=200), st.integers(0, 20), st.integers(1, 30))
def test_no_window_holds_more_than_the_limit(steps: list[int], limit: int, seconds: int) -> None:
    assert most_in_a_window(taken(steps, limit, seconds), seconds) <= limit


@settings(deadline=None)
@given(
    st.binary(min_size=400, max_size=600).map(lambda octets: [octet % 4 for octet in octets]),
    st.integers(257, 300),
    st.integers(100, 300),
)
def test_nor_where_events_are_remembered_in_groups(steps: list[int], limit: int, seconds: int) -> None:
    assert most_in_a_window(taken(steps, limit, seconds), seconds) <= limit


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), max_size=200), st.integers(1, 20), st.integers(1, 30))
def test_what_fits_is_let_through(steps: list[int], limit: int, seconds: int) -> None:
    """Up to 256 the window is exact: an event is refused only while `limit` others are in it."""
    clock = FakeClock()
    limiter = SlidingLimiter(clock.monotonic)
    times: list[float] = []
    for step in steps:
        clock.advance(step / 4)
        inside = sum(time > clock.monotonic() - seconds for time in times)
        assert limiter.take("key", limit, seconds) == (inside < limit)
        if inside < limit:
            times.append(clock.monotonic())


def test_room_comes_back_when_the_window_has_passed() -> None:
    clock = FakeClock()
    limiter = SlidingLimiter(clock.monotonic)
    assert [limiter.take("a", 2, 3600) for _ in range(3)] == [True, True, False]
    clock.advance(3599)
    assert not limiter.take("a", 2, 3600)
    clock.advance(1)
    assert limiter.take("a", 2, 3600)


def test_keys_do_not_share() -> None:
    limiter = SlidingLimiter(FakeClock().monotonic)
    assert [limiter.take(key, 1, 60) for key in ("a", "b", "a")] == [True, True, False]


def test_the_key_that_was_asked_for_longest_ago_is_forgotten() -> None:
    limiter = SlidingLimiter(FakeClock().monotonic, max_keys=2)
    assert [limiter.take(key, 1, 60) for key in ("a", "b", "a", "c")] == [True, True, False, True]
    assert not limiter.take("a", 1, 60)  # refused a moment ago, so it was remembered
    assert limiter.take("b", 1, 60)  # forgotten
    assert len(limiter._windows) == 2


def test_memory_per_key_is_bounded_however_high_the_limit() -> None:
    clock = FakeClock()
    limiter = SlidingLimiter(clock.monotonic)
    for _ in range(20_000):
        clock.advance(0.01)
        limiter.take("a", 1_000_000, 100)
    assert len(limiter._windows["a"].groups) <= 258


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), max_size=50), st.integers(0, 5))
def test_room_foretells_take_and_counts_nothing(steps: list[int], limit: int) -> None:
    clock = FakeClock()
    limiter = SlidingLimiter(clock.monotonic)
    for step in steps:
        clock.advance(step)
        foretold = limiter.room("key", limit, 30)
        assert limiter.room("key", limit, 30) == foretold
        assert limiter.take("key", limit, 30) == foretold


@given(st.integers(1, 5), st.integers(0, 10))
def test_what_is_given_back_was_never_taken(limit: int, given_back: int) -> None:
    limiter = SlidingLimiter(FakeClock().monotonic)
    while limiter.take("key", limit, 30):
        pass
    for _ in range(given_back):
        limiter.give_back("key")
    limiter.give_back("another")
    assert sum(limiter.take("key", limit, 30) for _ in range(20)) == min(limit, given_back)
