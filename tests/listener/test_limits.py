"""Who is counted together, and how many."""

import pytest

from forwarder.listener.limits import (
    TOO_MANY,
    TOO_MANY_OF_YOURS,
    Admission,
    ListenerLimits,
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


def test_row_16_per_client() -> None:
    admission = Admission(ListenerLimits(connections=10, connections_per_client=2))
    assert admission.enter("2001:db8::1") is None
    assert admission.enter("2001:db8::2") is None
    assert admission.enter("2001:db8::3") is TOO_MANY_OF_YOURS
    assert admission.enter("2001:db8:0:1::3") is None
    admission.leave("2001:db8::2")
    assert admission.enter("2001:db8::3") is None


def test_row_16_in_all() -> None:
    admission = Admission(ListenerLimits(connections=2))
    assert admission.enter("192.0.2.1") is None
    assert admission.enter("192.0.2.2") is None
    assert admission.enter("192.0.2.3") is TOO_MANY
    admission.leave("192.0.2.1")
    admission.leave("192.0.2.2")
    assert admission.enter("192.0.2.3") is None


def test_counts_do_not_grow() -> None:
    admission = Admission(ListenerLimits())
    for number in range(1000):
        address = f"10.0.{number >> 8}.{number & 255}"
        admission.enter(address)
        admission.leave(address)
    assert not admission._clients


def test_other_limits_count_from_then_on() -> None:
    admission = Admission(ListenerLimits(connections_per_client=1))
    assert admission.enter("192.0.2.1") is None
    assert admission.enter("192.0.2.1") is not None
    admission.limits = ListenerLimits(connections_per_client=2)
    assert admission.enter("192.0.2.1") is None
