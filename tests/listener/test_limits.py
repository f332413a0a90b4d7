"""Who is counted together, and how many."""

import pytest

from forwarder.listener.limits import (
    TOO_MANY,
    TOO_MANY_OF_YOURS,
    Admission,
    ListenerLimits,
    TurnedAway,
    canonical_address,
    network_of,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::1", "::1"),
    ],
)
def test_addresses_have_one_form(text: str, canonical: str) -> None:
    assert canonical_address(text) == canonical


def test_row_16_ipv6_counts_per_network() -> None:
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2::9") == "2001:db8:1:2::"
    assert network_of("2001:db8:1:3::4") != network_of("2001:db8:1:2::4")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")


async def test_row_16_per_client() -> None:
    admission = Admission(ListenerLimits(connections=10, connections_per_client=2))
    assert await admission.enter("2001:db8::1") is None
    assert await admission.enter("2001:db8::2") is None
    assert await admission.enter("2001:db8::3") is TOO_MANY_OF_YOURS
    assert await admission.enter("2001:db8:0:1::3") is None
    admission.leave("2001:db8::2")
    assert await admission.enter("2001:db8::3") is None


async def test_row_16_in_all() -> None:
    admission = Admission(ListenerLimits(connections=2))
    assert await admission.enter("192.0.2.1") is None
    assert await admission.enter("192.0.2.2") is None
    assert await admission.enter("192.0.2.3") is TOO_MANY
    admission.leave("192.0.2.1")
    admission.leave("192.0.2.2")
    assert await admission.enter("192.0.2.3") is None


async def test_counts_do_not_grow() -> None:
    admission = Admission(ListenerLimits())
    for number in range(1000):
        address = f"10.0.{number >> 8}.{number & 255}"
        await admission.enter(address)
        admission.leave(address)
    assert not admission._clients


async def test_other_limits_count_from_then_on() -> None:
    admission = Admission(ListenerLimits(connections_per_client=1))
    assert await admission.enter("192.0.2.1") is None
    assert await admission.enter("192.0.2.1") is not None
    admission.limits = ListenerLimits(connections_per_client=2)
    assert await admission.enter("192.0.2.1") is None


def test_row_16_a_client_that_is_turned_away_all_day_is_told_of_once_a_minute() -> None:
    turned_away = TurnedAway()
    told = {second: count for second in range(181) if (count := turned_away.tell("192.0.2.1", float(second)))}
    assert told == {0: 1, 60: 60, 120: 60, 180: 60}


def test_row_16_what_came_since_is_not_forgotten() -> None:
    turned_away = TurnedAway()
    assert [turned_away.tell("2001:db8::1", 0.0), turned_away.tell("2001:db8::2", 1.0)] == [1, 0]
    assert turned_away.tell("2001:db8:0:1::1", 1.0) == 1  # another network
    assert turned_away.tell("2001:db8::3", 10_000.0) == 2


def test_row_16_a_crowd_is_told_of_like_one() -> None:
    """However many networks take part, the log and the table have a bound."""
    turned_away = TurnedAway()
    counts = [turned_away.tell(f"10.{number >> 8}.{number & 255}.1", 0.0) for number in range(5000)]
    assert sum(count > 0 for count in counts) == 1025
    assert len(turned_away._networks) == 1025
    assert turned_away.tell("10.200.0.1", 59.0) == 0
    assert turned_away.tell("192.0.2.1", 60.0) == 1  # there is room again
    assert turned_away.tell("10.0.9.1", 60.0) == 1
    assert len(turned_away._networks) == 1025
