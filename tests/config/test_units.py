"""Sizes and durations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.config.units import duration_text, parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "octets"),
    [("0B", 0), ("1B", 1), ("50MB", 50_000_000), ("1MiB", 1_048_576), ("10kB", 10_000), ("2KiB", 2048), ("1GB", 10**9)],
)
def test_size(text: str, octets: int) -> None:
    assert parse_size(text) == octets
    assert size_text(octets) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0.0), ("250ms", 0.25), ("25s", 25.0), ("1h30m", 5400.0), ("5d", 432_000.0), ("1d1ms", 86_400.001)],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert duration_text(seconds) == text


def test_weeks_are_read_and_written_as_days() -> None:
    assert parse_duration("3w") == parse_duration("21d")
    assert duration_text(parse_duration("3w")) == "21d"


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "1.5h", "5S", "5m5m", "5s5m", "5ms5s", "٥s", "5s\n"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "5", "MB", "5 MB", "-5MB", "1.5MB", "5mb", "5MBMB", "٥MB", "5B\n", "9" * 13 + "B"]
)
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@given(st.integers(0, 10**15))
def test_sizes_are_written_as_they_are_read(octets: int) -> None:
    assert parse_size(size_text(octets)) == octets if octets < 10**12 else True


@given(st.integers(0, 10**13))
def test_durations_are_written_as_they_are_read(milliseconds: int) -> None:
    assert parse_duration(duration_text(milliseconds / 1000)) == milliseconds / 1000


@given(st.text(st.sampled_from("0123456789wdhms"), max_size=200))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except ValueError as error:
        assert str(error) == "not a duration"
