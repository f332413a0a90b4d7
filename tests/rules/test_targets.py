import pytest

from forwarder.model.address import Address, AddressError
from forwarder.model.destination import Destination, parse_hop
from forwarder.rules.targets import Template, Values, fill, parse_target

VALUES = Values("News+Tag", "Tag", "example.org", ("one", None, "[10.0.0.1]", "a@evil.example"))


def filled(text: str, values: Values = VALUES) -> str:
    target = parse_target(text, None)
    assert isinstance(target, Template)
    return str(fill(target, values).address)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("*@other.example", "News+Tag@other.example"),
        ("me+${local}@gmail.com", "me+News+Tag@gmail.com"),
        ("me+${tag}@gmail.com", "me+Tag@gmail.com"),
        ("me@${domain}", "me@example.org"),
        ("me.${domain}@gmail.com", "me.example.org@gmail.com"),
        (r"\1@gmail.com", "one@gmail.com"),
        (r"x\2@gmail.com", "x@gmail.com"),  # a group that took no part
        (r"me@\1.sub.example.com", "me@one.sub.example.com"),
        (r"\1@GMAIL.com", "one@gmail.com"),
        (r"\1@bücher.example", "one@xn--bcher-kva.example"),
    ],
)
def test_what_templates_become(target: str, expected: str) -> None:
    assert filled(target) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [(r"\4@gmail.com", '"a@evil.example"@gmail.com'), (r"\4,x@gmail.com", '"a@evil.example,x"@gmail.com')],
)
def test_what_is_filled_in_stays_in_its_part(target: str, expected: str) -> None:
    made = Template((4, ",x"), ("gmail.com",), None) if "," in target else parse_target(target, None)
    assert isinstance(made, Template)
    address = fill(made, VALUES).address
    assert str(address) == expected
    assert address.domain == "gmail.com"


@pytest.mark.parametrize("target", [r"\2@gmail.com", r"me@\3.mail.example.com", r"me@\4.mail.example.com"])
def test_what_gives_no_address_is_an_error_and_nothing_else(target: str) -> None:
    with pytest.raises(AddressError):
        filled(target)


def test_an_address_literal_never_comes_out_of_a_capture() -> None:
    with pytest.raises(AddressError):
        fill(Template(("me",), (3,), None), VALUES)


@pytest.mark.parametrize(
    "target", [r"me@\1", r"me@\1.com", r"me@x\1", r"me@example.\1", r"\1@${local}", "me@x${domain}"]
)
def test_no_rule_lets_strangers_choose_the_domain(target: str) -> None:
    with pytest.raises(AddressError, match="two fixed labels"):
        parse_target(target, None)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("admin", "write admin@ and a domain"),
        ("<a@b.com>", "angle"),
        ("me@localhost", "full domain"),
        ("x*@gmail.com", "wildcards"),
        ("me+${locl}@gmail.com", r"did you mean \$\{local\}"),
        ("me+${zzz}@gmail.com", "there are"),
        (r"me+\x@gmail.com", "capture"),
        (r"me+\0@gmail.com", "capture"),
        ("me..${tag}@gmail.com", "malformed"),
        (r"me@\1..example.com", "malformed"),
        ("a@b@c.com", "malformed"),
        ("a" * 250 + "@gmail.com", "254"),
    ],
)
def test_bad_targets_say_what_to_write(target: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        parse_target(target, None)


def test_fixed_targets() -> None:
    hop = parse_hop("[192.0.2.7]:25")
    assert parse_target("Me@GMAIL.com", hop) == Destination(Address("Me", "gmail.com"), hop)
    assert parse_target('"a ${local}"@b.com', None) == Destination(Address("a ${local}", "b.com"))
    assert parse_target("me@[192.0.2.1]", None) == Destination(Address("me", "[192.0.2.1]"))
    assert parse_target("me@lan", hop) == Destination(Address("me", "lan"), hop)


def test_templates_are_written_as_they_were_read() -> None:
    assert str(parse_target(r"a\1${tag}@\2.x.${domain}.example.com", None)) == r"a\1${tag}@\2.x.${domain}.example.com"
