"""What is asked of DNS and what is not; addresses of clients; the counters."""

import pytest

from forwarder.auth.spf.lookups import Client, Lookups, PermanentTrouble, can_be_asked, is_within, parse_client
from forwarder.auth.spf.macros import MAX_NAME
from tests.fakes import FakeResolver


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("example", True),
        ("foo:bar/baz. %.example", True),
        ("x" * 63 + ".example", True),
        ("x" * 64 + ".example", False),
        ("x." * 126 + "x", True),
        ("x." * 126 + "xx", False),
        ("bücher.example", False),
        ("a..example", False),
        (".example", False),
        ("example.", False),
        ("", False),
        ("x" * (MAX_NAME + 1), False),
    ],
)
async def test_what_dns_cannot_hold_is_not_asked_for(name: str, fits: bool) -> None:
    assert can_be_asked(name) is fits
    resolver = FakeResolver()
    lookups = Lookups(resolver, parse_client("192.0.2.1"))
    assert not await lookups.exists(name)
    assert await lookups.addresses(name) == []
    assert await lookups.mail_hosts(name) == []
    assert len(resolver.asked) == (3 if fits else 0)


@pytest.mark.parametrize(
    ("text", "address", "is_ipv6"),
    [
        ("192.0.2.1", "192.0.2.1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", False),
        ("2001:DB8::1", "2001:db8::1", True),
        ("fe80::1%eth0", "fe80::1", True),
    ],
)
def test_clients(text: str, address: str, is_ipv6: bool) -> None:
    client = parse_client(text)
    assert (str(client.address), client.is_ipv6) == (address, is_ipv6)


@pytest.mark.parametrize("text", ["", "192.0.2", "[192.0.2.1]", "localhost", "%eth0"])
def test_what_is_no_client(text: str) -> None:
    with pytest.raises(ValueError):
        parse_client(text)


@pytest.mark.parametrize(("client", "kind"), [(parse_client("192.0.2.1"), "A"), (parse_client("2001:db8::1"), "AAAA")])
async def test_the_clients_family_decides_what_is_asked_but_for_exists(client: Client, kind: str) -> None:
    resolver = FakeResolver({("x.example", "A"): ["192.0.2.1"], ("x.example", "AAAA"): ["2001:db8::1", "rubbish"]})
    lookups = Lookups(resolver, client)
    assert await lookups.addresses("x.example") == [client.address]
    assert await lookups.exists("x.example")
    assert resolver.asked == [("x.example", kind), ("x.example", "A")]


async def test_reverse_names_are_asked_for_once() -> None:
    zone = {("1.2.0.192.in-addr.arpa", "PTR"): ["a.example", "b.example"], ("b.example", "A"): ["192.0.2.1"]}
    resolver = FakeResolver(zone)
    lookups = Lookups(resolver, parse_client("192.0.2.1"))
    for _ in range(3):
        assert await lookups.confirmed_name("x.example", within=False) == "b.example"
        assert await lookups.confirmed_name("a.example", within=True) == ""
        assert await lookups.confirmed_name("example", within=True) == "b.example"
    assert lookups.knows_reverse_names
    assert len(resolver.asked) == 3


async def test_the_domain_itself_is_the_best_confirmed_name() -> None:
    """RFC 7208 7.3: then a name below it, then any."""
    names = ["other.test", "sub.example.com", "example.com"]
    zone = {("1.2.0.192.in-addr.arpa", "PTR"): names, **{(name, "A"): ["192.0.2.1"] for name in names}}
    for best in reversed(names):
        lookups = Lookups(FakeResolver(zone), parse_client("192.0.2.1"))
        assert await lookups.confirmed_name("example.com", within=False) == best
        del zone[best, "A"]


async def test_a_null_mx_has_no_hosts() -> None:
    lookups = Lookups(FakeResolver({("x.example", "MX"): ["0 .", "1 mx.example"]}), parse_client("192.0.2.1"))
    assert await lookups.mail_hosts("x.example") == ["mx.example"]


async def test_after_the_end_nothing_in_vain_is_counted() -> None:
    lookups = Lookups(FakeResolver(), parse_client("192.0.2.1"))
    for name in ("a.example", "b.example"):
        lookups.begin_term()
        assert not await lookups.exists(name)
    lookups.begin_term()
    with pytest.raises(PermanentTrouble):
        await lookups.exists("c.example")
    lookups.begin_term()
    lookups.stop_counting()
    assert await lookups.confirmed_name("x.example", within=False) == ""


@pytest.mark.parametrize(
    ("name", "inside"), [("a.example", True), ("b.a.example", True), ("ba.example", False), ("example", False)]
)
def test_within(name: str, inside: bool) -> None:
    assert is_within(name, "a.example") is inside
