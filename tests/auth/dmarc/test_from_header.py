"""The author's domain, in fair and foul From fields."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.auth.dmarc.from_header import MAX_ADDRESSES, MAX_OCTETS, Author, author_domain
from forwarder.model.address import canonical_name
from forwarder.model.headers import split_header


def author(*values: bytes) -> Author:
    return author_domain(split_header(b"".join(b"From: " + value + b"\r\n" for value in values) + b"\r\n"))


@pytest.mark.parametrize(
    "value",
    [
        b"a@b.example",
        b"<a@b.example>",
        b"A@B.EXAMPLE",
        b"Jane Doe <a@b.example>",
        b'"Doe, Jane" <a@b.example>',
        b'"evil@evil.example" <a@b.example>',
        b'"a \\" <evil@evil.example>" <a@b.example>',
        b"(evil@evil.example) a@b.example (x (y) \\) z)",
        b"a (c) @ (d) b (e) . (f) example",
        b"a\r\n @b.example",
        b"=?utf-8?q?evil=40evil=2Eexample?= <a@b.example>",
        b"=?utf-8?b?ZXZpbEBldmlsLmV4YW1wbGU=?= <a@b.example>",
        b"Doe, Jane <a@b.example>",
        b"J. R. Doe <a@b.example>",
        b"[List] Jane <a@b.example>",
        b"Jane @ Work <a@b.example>",
        b"Jane @ -.- <a@b.example>",
        b"J\xe9r\xf4me <a@b.example>",
        "Jérôme <jérôme@b.example>".encode(),
        b'"quoted local"@b.example',
        b'"a@evil.example"@b.example',
        b"a..b.@b.example",
        b".a@b.example",
        b"a@b.example.",
        b"<@r.example,@s.example:a@b.example>",
        b"Group: a@b.example, Jane <c@b.example>;",
        b"a@b.example, <c@B.example>",
        b",a@b.example,,",
        b"a@b.example <a@b.example>",
        b"bob@other.example <a@b.example>",
        b"Jane bob@other.example now <a@b.example>",
        b"@other.example <a@b.example>",
        b"bob@other.example@x <a@b.example>",
    ],
)
def test_one_domain(value: bytes) -> None:
    assert author(value) == Author("b.example")


def test_an_internationalised_domain_becomes_a_labels() -> None:
    assert author("a@Bücher.example".encode()).domain == "xn--bcher-kva.example"
    assert author("a@xn--bcher-kva.example, b@bücher.example".encode()).domain == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (b"a@good.example, b@evil.example", "good.example, evil.example"),
        (b"Group: a@good.example; b@evil.example", "good.example, evil.example"),
        (b"a@good.example: b@evil.example;", "good.example, evil.example"),
        (b"a@good.example; b@evil.example", "good.example, evil.example"),
        (b"a@sub.b.example, a@b.example", "sub.b.example, b.example"),
        (b"a@a.a, a@b.b, a@c.c, a@d.d, a@e.e", "a.a, b.b, c.c, d.d"),
    ],
)
def test_several_domains(value: bytes, named: str) -> None:
    found = author(value)
    assert (found.domain, found.reason) == ("", f"the From field names several domains: {named}")
    assert found.named == (() if value.count(b"@") > 4 else tuple(named.split(", ")))


@pytest.mark.parametrize(
    "value", [b"", b" ", b"root", b"undisclosed-recipients:;", b"Jane Doe", b"(a@b.example)", b","]
)
def test_no_domain(value: bytes) -> None:
    assert author(value) == Author("", "the From field names no domain", claimed=False)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"a@b@c.example", "exactly one @"),
        (b"a@b.example(x)@evil.example", "exactly one @"),
        (b"<>", "exactly one @"),
        (b"Jane <a>", "exactly one @"),
        (b"<a@b.example", "brackets"),
        (b"a@b.example>", "brackets"),
        (b"<<a@b.example>>", "brackets"),
        (b"<a@b.example> <c@d.example>", "brackets"),
        (b"<a@b.example> c@d.example", "follows"),
        (b'<a@b.example> "x"', "follows"),
        (b"@b.example", "before an @"),
        (b"[a]@b.example", "before an @"),
        (b"..@b.example", "before an @"),
        (b"a b@b.example", "before an @"),
        (b'"a" b@b.example', "before an @"),
        (b"a@", "empty"),
        (b"a@b example", "domain of an address is malformed"),
        (b'a@"b.example"', "domain of an address is malformed"),
        (b"a@-.example", "malformed"),
        (b"a@b..example", "malformed"),
        (b"a@.example", "malformed"),
        (b"a@=?utf-8?q?b=2Eexample?=", "malformed"),
        ("a@b。example".encode(), "internationalised"),
        (b"a@\xff.example", "internationalised"),
        (b"a@" + b"x" * 64 + b".example", "malformed"),
        (b"a@b.[192.0.2.1]", "the domain of an address is malformed"),
        (b'"a@b.example', "out of place"),
        (b"a@b.example (", "comment is not closed"),
        (b"a@b.example )", "out of place"),
        (b"a\\@b.example", "out of place"),
        (b"a@b.example\x1b[0m", "out of place"),
        (b"a\x00@b.example", "out of place"),
        (b"<a:b@b.example>", "colon"),
        (b"<@r.example:@s.example:a@b.example>", "colon"),
        (b"a@b.example" + b" " * MAX_OCTETS + b"x", "longer than"),
        (b"a@b.example," * (MAX_ADDRESSES + 1), "more than 50 addresses"),
        (b"." * 6000 + b"a@b.example", "more than 5000 words"),
    ],
)
def test_malformed(value: bytes, why: str) -> None:
    found = author(value)
    assert found.domain == ""
    assert found.reason.startswith("the From field is malformed: ") and why in found.reason


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (b'"Joe <a@b.example>', ("b.example",)),
        (b"Joe) <a@b.example>", ("b.example",)),
        (b"<mailto:a@b.example>", ("b.example",)),
        (b"<a@b.example> (x) y", ("b.example",)),
        (b"a b@c.example", ("c.example",)),
        (b"<a@b.example <c@D.example.>", ("b.example", "d.example")),
        (b"a@b..example", ()),
        (b'a@(x)b.example "', ("b.example",)),
        (b"a@b.(x (y))example, c <", ("b", "b.example")),
        (b"a @ b . example <", ("b", "b.example")),
    ],
)
def test_of_a_malformed_field_whatever_looks_like_a_domain_is_named(value: bytes, named: tuple[str, ...]) -> None:
    found = author(value)
    assert (found.domain, found.named, found.claimed, found.certain) == ("", named, bool(named), False)


@pytest.mark.parametrize("value", [b"root@[192.0.2.1]", b"<root@[IPv6:2001:db8::1]>"])
def test_an_address_literal_is_nobodys_domain(value: bytes) -> None:
    assert author(value) == Author("", "the From field names no domain", claimed=False)


def test_as_many_addresses_as_are_read() -> None:
    assert author(b"a@b.example," * MAX_ADDRESSES) == Author("b.example")


def test_a_field_behind_a_line_that_is_none_is_a_claim() -> None:
    hidden = author_domain(split_header(b"Junk line\r\nFrom: a@b.example\r\n\r\nFrom: c@d.example\r\n"))
    assert (hidden.domain, hidden.claimed, hidden.named) == ("", True, ("b.example",))
    second = author_domain(split_header(b"From: a@b.example\r\nJunk\r\nFROM : c@d.example\r\n\r\n"))
    assert (second.domain, second.named) == ("", ("b.example", "d.example"))
    plain = author_domain(split_header(b"From: a@b.example\r\nJunk\r\nSubject: From: x@y\r\n\r\n"))
    assert plain == Author("b.example")


def test_exactly_one_field() -> None:
    assert author() == Author("", "there is no From field", claimed=False)
    twice = Author("", "there are several From fields", named=("b.example",))
    assert author(b"a@b.example", b"a@b.example") == twice
    header = split_header(b"fRoM \t: a@b.example\r\nFROM: c@d.example\r\n\r\n")
    assert author_domain(header).reason == "there are several From fields"
    other = split_header(b"Sender: x@y.example\r\nResent-From: x@z.example\r\nFrom: a@b.example\r\n\r\n")
    assert author_domain(other) == Author("b.example")


@pytest.mark.parametrize(
    ("value", "claimed"), [(b"<>", False), (b"Jane <a>", False), (b"a@b@c.example", True), (b"<a@b.example", True)]
)
def test_a_malformed_field_without_an_at_pretends_nothing(value: bytes, claimed: bool) -> None:
    assert author(value).claimed is claimed


PIECES = st.sampled_from(
    [
        "a@b.example",
        "@",
        "<",
        ">",
        ",",
        ":",
        ";",
        ".",
        "(",
        ")",
        '"',
        "\\",
        "[",
        "]",
        "x",
        " ",
        "\r\n ",
        "ü",
        "=?u?q?=40?=",
    ]
)


@settings(deadline=None)  # the first IDN loads its library
@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=25).map("".join)).map(str.encode) | st.binary())
def test_any_field_has_one_canonical_domain_or_a_printable_reason(value: bytes) -> None:
    found = author(value)
    if found.domain:
        assert found == Author(canonical_name(found.domain))
    else:
        assert found.reason.isascii() and found.reason.isprintable() and len(found.reason) < 1100


@given(st.sampled_from(["evil.example", "EVIL.example"]), st.lists(PIECES, max_size=8).map("".join))
def test_no_second_address_is_hidden(evil: str, between: str) -> None:
    """Whatever stands between two bare addresses, the first alone is never the author."""
    found = author(f"a@good.example,{between},b@{evil}".encode())
    assert found.domain != "good.example" or any(mark in between for mark in '("')


@pytest.mark.parametrize(
    "piece", [b"(", b"()", b'"', b'"\\', b"\\", b"<", b"<>", b"@", b",", b"a ", b".", b"[", b"a@b.c,", b" "]
)
def test_work_grows_no_faster_than_the_field(piece: bytes) -> None:
    """Counts steps, as a clock would count other programs' too."""
    import sys

    def steps(size: int) -> int:
        count = 0

        def trace(frame: object, event: str, argument: object) -> object:
            nonlocal count
            count += event == "line"
            return trace

        header = split_header(b"From: " + piece * (size // len(piece)) + b"\r\n\r\n")
        before = sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            author_domain(header)
        finally:
            sys.settrace(before)
        return count

    assert steps(4000) <= 2.2 * steps(2000) + 200
