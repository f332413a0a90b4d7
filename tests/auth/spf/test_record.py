"""The grammar of RFC 7208 12, term by term; malformed records; what holds for any octets."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.spf.macros import SpfSyntaxError, parse_domain_spec
from forwarder.auth.spf.record import (
    A,
    All,
    Directive,
    Exists,
    Include,
    Mechanism,
    MxHosts,
    Network,
    Prefix,
    Ptr,
    Qualifier,
    SpfRecord,
    parse,
    select,
)

TARGET = parse_domain_spec("x.example")


@pytest.mark.parametrize(
    ("term", "mechanism"),
    [
        ("all", All()),
        ("ALL", All()),
        ("include:x.example", Include(TARGET)),
        ("a", A(None, Prefix())),
        ("a/24", A(None, Prefix(24, 128))),
        ("a//64", A(None, Prefix(32, 64))),
        ("a/0//0", A(None, Prefix(0, 0))),
        ("a:x.example", A(TARGET, Prefix())),
        ("A:x.example/8//128", A(TARGET, Prefix(8, 128))),
        ("mx", MxHosts(None, Prefix())),
        ("mx:x.example//7", MxHosts(TARGET, Prefix(32, 7))),
        ("ptr", Ptr(None)),
        ("ptr:x.example", Ptr(TARGET)),
        ("ip4:192.0.2.1", Network(4, int(ip_address("192.0.2.1")), 0)),
        ("ip4:192.0.2.1/24", Network(4, int(ip_address("192.0.2.1")), 8)),
        ("ip4:0.0.0.0/0", Network(4, 0, 32)),
        ("ip6:2001:DB8::/32", Network(6, int(ip_address("2001:db8::")), 96)),
        ("ip6:::ffff:192.0.2.1", Network(6, int(ip_address("::ffff:192.0.2.1")), 0)),
        ("ip6:::/0", Network(6, 0, 128)),
        ("exists:x.example", Exists(TARGET)),
    ],
)
def test_mechanisms(term: str, mechanism: Mechanism) -> None:
    assert parse(f"v=spf1 {term}".encode()).directives == (Directive(Qualifier.PASS, mechanism, term),)


@pytest.mark.parametrize("qualifier", list(Qualifier))
def test_qualifiers(qualifier: Qualifier) -> None:
    assert parse(f"v=spf1 {qualifier.value}all".encode()).directives == (Directive(qualifier, All(), "all"),)


@pytest.mark.parametrize(
    "term",
    [
        *("all:x.example", "all/8", "all.", "-", "+-all", "--all", "!all", "moo", "moo:x.example", "1up=x", "=x", "x"),
        *("include", "include:", "include/24", "include:x.example/24", "exists", "exists/8"),
        *("a:", "a/", "a/33", "a/032", "a/-1", "a//129", "a//0128", "a/24/64", "a/24//", "a:/24", "a.x.example"),
        *("mx:", "mx/33", "mx//129", "mx:museum", "ptr:", "ptr/24", "ptr:x.example/24", "exists:x.example/24"),
        *("ip4", "ip4:", "ip4/24", "ip4:192.0.2", "ip4:192.0.2.01", "ip4:192.0.2.1:25", "ip4:192.0.2.1//24"),
        *("ip4:192.0.2.1/33", "ip4:192.0.2.1/", "ip4:192.0.2.1/024", "ip4:2001:db8::1", "ip4:192.0.2.1/8/8"),
        *("ip6", "ip6:", "ip6:192.0.2.1", "ip6:2001:db8::/129", "ip6:2001:db8::/", "ip6:2001:db8::/0128"),
        *("ip6:fe80::1%eth0", "ip6::1::2", "ip6:[2001:db8::1]", "ip6:2001:db8:://32", "redirect:x.example"),
        *("redirect=", "redirect=x", "redirect=-all", "exp=", "exp=x", "exp=%{c}.example", "x=%", "x=%{y}", "x=a\x7fb"),
        *("-exp=x.example", "x/y=z", "x:y=z", "all\t", "all\n", "a:x.example\r", "a:x.example\0", "a:ü.example", "äll"),
        *("redirect=x.example redirect=x.example", "exp=x.example EXP=y.example", "-all moo", "moo -all"),
    ],
)
def test_what_is_malformed(term: str) -> None:
    with pytest.raises(SpfSyntaxError):
        parse(f"v=spf1 {term}".encode())


def test_modifiers_stand_anywhere_and_unknown_ones_are_ignored() -> None:
    record = parse(b"v=spf1 redirect=x.example moo.cow-far_out=man:dog/cat ip4:192.0.2.1 Exp=x.example x= x= include=y")
    assert (record.redirect, record.explanation, len(record.directives)) == (TARGET, TARGET, 1)


@pytest.mark.parametrize("text", ["v=spf1 redirect=x.example -all", "v=spf1 all redirect=x.example"])
def test_all_makes_redirect_void(text: str) -> None:
    assert parse(text.encode()).redirect is None


@pytest.mark.parametrize("text", ["v=spf1", "V=SPF1 ", "v=spf1    "])
def test_an_empty_record(text: str) -> None:
    assert parse(text.encode()) == SpfRecord(())


def test_more_than_one_space_between_terms() -> None:
    assert len(parse(b"v=spf1  a   mx ").directives) == 2


def test_records_are_chosen_by_their_version_alone() -> None:
    chosen = [b"v=spf1", b"V=SPF1 -all", b"v=spf1 \xff", b"v=spf1 rubbish"]
    others = [
        b"v=spf10",
        b"v=spf1\t-all",
        b"v=spf2.0/pra",
        b" v=spf1",
        b"",
        b"v=spf",
        b"v=spf1-all",
        b"\xef\xbb\xbfv=spf1",
    ]
    assert select([*others, *chosen]) == chosen


PIECES = ["a", "mx", "all", "include:", "ip4:", "ip6:", "exists:", "redirect=", "exp=", "x=", "192.0.2.1", "::1", "/24"]
PIECES += ["//64", "x.example", "%{d}", "%{ir}", "%%", "%", "-", "~", " ", " ", ":", "/", "\0", "é", "1"]
records = st.one_of(
    st.binary(max_size=80).map(lambda octets: b"v=spf1 " + octets),
    st.lists(st.sampled_from(PIECES), max_size=30).map(lambda pieces: ("v=spf1 " + "".join(pieces)).encode()),
)


@given(records)
def test_any_octets_give_a_record_or_the_error(record: bytes) -> None:
    try:
        parsed = parse(record)
    except SpfSyntaxError as error:
        assert str(error).isascii()
        assert str(error).isprintable()
        return
    assert record.isascii()
    terms = [term for term in record[6:].decode().split(" ") if term]
    assert [d.text for d in parsed.directives] == [t.lstrip("+-~?") for t in terms if "=" not in t.split(":")[0]]


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_ip4_networks(address: object, length: int) -> None:
    (directive,) = parse(f"v=spf1 ip4:{address}/{length}".encode()).directives
    assert directive.mechanism == Network(4, int(ip_address(str(address))), 32 - length)


@given(st.ip_addresses(v=6), st.integers(0, 128))
def test_ip6_networks(address: object, length: int) -> None:
    (directive,) = parse(f"v=spf1 ip6:{address}/{length}".encode()).directives
    assert directive.mechanism == Network(6, int(ip_address(str(address))), 128 - length)
