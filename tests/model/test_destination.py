import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.address import AddressError
from forwarder.model.destination import Hop, parse_hop


@pytest.mark.parametrize(
    ("text", "hop", "written"),
    [
        ("[192.0.2.7]:25", Hop("192.0.2.7", 25), "[192.0.2.7]:25"),
        ("192.0.2.7:25", Hop("192.0.2.7", 25), "[192.0.2.7]:25"),
        ("[192.0.2.7]", Hop("192.0.2.7"), "[192.0.2.7]"),
        ("[2001:DB8::0:1]", Hop("2001:db8::1"), "[2001:db8::1]"),
        ("[IPv6:2001:db8::1]:2525", Hop("2001:db8::1", 2525), "[2001:db8::1]:2525"),
        ("[MX.example.]:25", Hop("mx.example", 25), "[mx.example]:25"),
        ("mx.example:65535", Hop("mx.example", 65_535), "[mx.example]:65535"),
        ("mx.example", Hop("mx.example"), "[mx.example]"),
        ("mx.bücher.example:00025", Hop("mx.xn--bcher-kva.example", 25), "[mx.xn--bcher-kva.example]:25"),
    ],
)
def test_a_next_hop_is_read_and_written(text: str, hop: Hop, written: str) -> None:
    assert parse_hop(text) == hop
    assert str(hop) == written
    assert parse_hop(written) == hop


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[",
        "[192.0.2.7",
        "[192.0.2.7]25",
        "[192.0.2.7]:",
        "[192.0.2.7]:0",
        "[192.0.2.7]:65536",
        "[192.0.2.7]:-1",
        "[192.0.2.7]:+25",
        "[192.0.2.7]: 25",
        "[192.0.2.7]:25\n",
        "[192.0.2.7]:²5",
        "[192.0.2.7]:٢٥",
        "mx.example:",
        "mx.example:smtp",
        "mx.example:000025",
        "mx.example:0000251234567",
        "mx.example:00001" + "1" * 6000,
        "2001:db8::1",
        "[fe80::1%eth0]:25",
        "[fe80::1%a\r\nb]:25",
        "mx..example",
        "mx example",
        "[mx.example]]",
        "[[192.0.2.7]]",
    ],
)
def test_what_is_no_next_hop_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_hop(text)


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([*"[]:%.-0125", "mx", "IPv6:", "fe80::1", "\n", "ü"]), max_size=12).map("".join)
)
def test_any_text_gives_a_hop_or_a_refusal(text: str) -> None:
    try:
        hop = parse_hop(text)
    except AddressError as error:
        assert str(error)
        return
    assert parse_hop(str(hop)) == hop
    assert str(hop).isascii()
    assert str(hop).isprintable()
    assert hop.port is None or 0 < hop.port < 65_536
