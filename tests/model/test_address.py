import re
import string
from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forwarder.model.address import (
    MAX_MAILBOX,
    Address,
    AddressError,
    canonical_name,
    client_ip,
    parse_domain,
    parse_ip,
    parse_mailbox,
    quote_local,
    unicode_name,
)

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]")


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("a@b", Address("a", "b"), "a@b"),
        ("A.b@EXAMPLE.Org.", Address("A.b", "example.org"), "A.b@example.org"),
        ('"a"@b', Address("a", "b"), "a@b"),
        (r'"\a\.b"@c', Address("a.b", "c"), "a.b@c"),
        ('"a b"@c', Address("a b", "c"), '"a b"@c'),
        ('"a@b"@c', Address("a@b", "c"), '"a@b"@c'),
        ('".a"@c', Address(".a", "c"), '".a"@c'),
        (r'"a\"\\"@c', Address('a"\\', "c"), r'"a\"\\"@c'),
        ("é@BÜCHER.example", Address("é", "xn--bcher-kva.example"), "é@xn--bcher-kva.example"),
        ("a@XN--BCHER-KVA.example", Address("a", "xn--bcher-kva.example"), "a@xn--bcher-kva.example"),
        ("a@[192.0.2.1]", Address("a", "[192.0.2.1]"), "a@[192.0.2.1]"),
        ("a@[IPV6:2001:DB8:0::1]", Address("a", "[IPv6:2001:db8::1]"), "a@[IPv6:2001:db8::1]"),
        ("a@_under_score.example", Address("a", "_under_score.example"), "a@_under_score.example"),
        ("x" * 252 + "@c", Address("x" * 252, "c"), "x" * 252 + "@c"),
    ],
)
def test_a_mailbox_has_one_form(text: str, address: Address, written: str) -> None:
    assert parse_mailbox(text) == address
    assert str(address) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "a",
        "a@",
        "@b",
        "a@b@c",
        "a b@c",
        "a@b c",
        "a@b\n",
        "a\r\n@b",
        "a@b\r\n",
        ".a@b",
        "a.@b",
        "a..b@c",
        '""@b',
        '"a@b',
        '"a"b@c',
        '"a"',
        '"a\\"@b',
        '"a\tb"@c',
        '"a\0"@c',
        '"a\\\0"@c',
        '"a\r\n b"@c',
        "a(comment)@b",
        "<a@b>",
        "a@b>",
        "a,b@c",
        "a;b@c",
        "a:b@c",
        "a[b@c",
        "a\\b@c",
        "a\x80@b",
        "a\u2028@b",
        "a\ufeff@b",
        "a\ud800@b",
        "a@\ud800",
        "a@.",
        "a@b..",
        "a@.b",
        "a@b..c",
        "a@-b",
        "a@b-",
        "a@" + "b" * 64,
        "a@" + "b." * 128 + "c",
        "a@b/c",
        "a@b%c",
        "a@[",
        "a@[]",
        "a@[192.0.2.1",
        "a@[192.0.2]",
        "a@[192.0.2.01]",
        "a@[192.0.2.1]x",
        "a@[192.0.2.1].",
        "a@[::1]",
        "a@[IPv6:]",
        "a@[IPv6:::1%eth0]",
        "a@[IPv6:::1%a\r\nb]",
        "a@[IPv6:192.0.2.1]",
        "a@[tag:content]",
        "a@[١.2.3.4]",
        "x" * 253 + "@c",
        "é" * 127 + "@c",
    ],
)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_mailbox(text)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "\u212aent.example",  # the Kelvin sign is "k" in lower case
        "ｅxample.org",
        "example。org",
        "example．org",
        "ﬁ.example",
        "ſ.example",
        "a\u00ad.example",
        "a\u200bb.example",
        "u\u0308.example",
        "-ü.example",
        "ü..example",
        "ü" * 256,
        "ü" * 60 + ".example",
        "\u0660a.example",
    ],
)
def test_what_only_looks_like_a_name_is_refused(name: str) -> None:
    with pytest.raises(AddressError):
        canonical_name(name)


def test_no_single_letter_beyond_ascii_becomes_ascii() -> None:
    for point in range(0x80, 0x3100):
        try:
            name = canonical_name(f"a{chr(point)}b.example")
        except AddressError:
            continue
        assert name.startswith("xn--"), hex(point)


def test_a_homograph_is_another_name() -> None:
    assert canonical_name("ехample.org") != "example.org"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("xn--bcher-kva.example", "bücher.example"),
        ("example.org", "example.org"),
        ("xn--zzzzzzzz.example", "xn--zzzzzzzz.example"),
        ("xn--.example", "xn--.example"),
        ("_x.xn--bcher-kva.example", "_x.xn--bcher-kva.example"),
    ],
)
def test_names_are_shown_as_people_write_them(name: str, shown: str) -> None:
    assert unicode_name(name) == shown


@given(st.from_regex(r"xn--[a-z0-9-]{0,40}(\.xn--[a-z0-9-]{0,20})?", fullmatch=True) | st.text(max_size=40))
def test_showing_a_name_never_fails(name: str) -> None:
    assert isinstance(unicode_name(name), str)


def test_the_key_leaves_case_out() -> None:
    assert parse_mailbox("Alice@B.example").key == parse_mailbox('"aLICE"@b.EXAMPLE').key
    assert parse_mailbox("É@b").key == parse_mailbox("é@b").key
    assert parse_mailbox("a@b").key != parse_mailbox("a@c").key


def test_the_bare_postmaster_is_written_bare() -> None:
    assert str(Address("postmaster", "")) == "postmaster"


def test_only_the_local_part_needs_smtputf8() -> None:
    assert parse_mailbox("a@bücher.example").is_ascii
    assert not parse_mailbox("é@b").is_ascii


PIECES = st.sampled_from(
    [
        *'a.@"\\[]<>-_:%() ',
        "\r",
        "\n",
        "\0",
        "é",
        "ü.",
        "\u212a",
        "xn--",
        "IPv6:",
        "::1",
        "192.0.2.1",
        "\ud800",
        "\u2028",
        "。",
    ]
)


@given(st.text(max_size=80) | st.lists(PIECES, max_size=20).map("".join))
@example('"' + "\\a" * 130 + '"@b')
def test_any_text_gives_a_safe_mailbox_or_a_refusal(text: str) -> None:
    try:
        address = parse_mailbox(text)
    except AddressError as error:
        assert str(error)
        return
    assert not UNSAFE.search(str(address))
    assert address.domain.isascii()
    assert parse_mailbox(str(address)) == address
    assert parse_mailbox(quote_local(address.local) + "@" + address.domain) == address
    assert len(str(address).encode()) <= MAX_MAILBOX


@given(st.text(max_size=80) | st.lists(PIECES, max_size=20).map("".join))
def test_any_text_gives_a_canonical_domain_or_a_refusal(text: str) -> None:
    try:
        domain = parse_domain(text)
    except AddressError:
        return
    assert re.fullmatch(r"[a-z0-9._-]+|\[(?:IPv6:)?[0-9a-f.:]+\]", domain)
    assert parse_domain(domain) == domain
    assert parse_domain(domain.upper()) == domain


@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff"), min_size=1, max_size=60
    )
)
def test_any_local_part_round_trips(local: str) -> None:
    assert parse_mailbox(str(Address(local, "d"))) == Address(local, "d")


@pytest.mark.parametrize(
    "text",
    [
        "a." * 1_000_000 + "@",
        '"' + "\\a" * 1_000_000,
        '"' + "a" * 2_000_000,
        "a@" + "b." * 1_000_000,
        "a@" + "ü." * 1_000_000,
        "a@[" + "1." * 1_000_000 + "]",
        "a@[IPv6:" + "1:" * 1_000_000 + "]",
        "a" * 2_000_000 + "@b",
        "@" * 2_000_000,
    ],
)
@pytest.mark.timeout(10)
def test_two_million_characters_are_refused_in_linear_time(text: str) -> None:
    with pytest.raises(AddressError):
        parse_mailbox(text)


@pytest.mark.parametrize(
    ("text", "ascii_allowed"),
    [
        ("{}@b", string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~"),  # RFC 5321 4.1.2, RFC 5322 3.2.3: atext
        ('"{}"@b', " " + string.printable[:94].replace('"', "").replace("\\", "")),  # qtextSMTP
    ],
)
def test_which_characters_a_local_part_has(text: str, ascii_allowed: str) -> None:
    for point in (*range(0x180), 0xD7FF, 0xFFFD, 0x1F600, 0x10FFFF):
        try:
            taken = parse_mailbox(text.format(chr(point))).local == chr(point)
        except AddressError:
            taken = False
        assert taken == (chr(point) in ascii_allowed or point >= 0xA0), hex(point)


def test_what_strangers_send_cannot_fill_the_memory() -> None:
    short, long = "fe80::1%eth0", "fe80::1%" + "x" * 1_000_000
    assert parse_ip(short) is parse_ip(short)
    assert parse_ip(long) is not parse_ip(long)
    kept = canonical_name.cache_info().currsize
    for name in ("a" * 1_000_000, "ü" * 1_000_000, ".".join(["a" * 63] * 5)):
        with pytest.raises(AddressError):
            canonical_name(name)
    assert canonical_name.cache_info().currsize == kept


@given(st.text("0123456789abcdef:.%x", max_size=60) | st.ip_addresses().map(str))
@example("::ffff:192.0.2.1")
@example("0000:0000:0000:0000:0000:ffff:192.168.100.200")
@example("fe80::1%" + "x" * 100)
def test_an_ip_address_is_read_as_the_library_reads_it(text: str) -> None:
    try:
        expected = ip_address(text)
    except ValueError:
        for _ in range(2):
            with pytest.raises(ValueError):
                parse_ip(text)
        return
    assert [parse_ip(text), parse_ip(text)] == [expected, expected]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
    ],
)
def test_a_client_is_known_by_one_address(text: str, address: str) -> None:
    assert str(client_ip(text)) == address
