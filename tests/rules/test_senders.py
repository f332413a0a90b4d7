import pytest

from forwarder.model.address import AddressError
from forwarder.rules.cases import sender_of
from forwarder.rules.senders import Senders, parse_sender


@pytest.mark.parametrize(
    ("pattern", "sender", "matches"),
    [
        ("bob@shop.com", "BOB@Shop.com", True),
        ("bob@shop.com", "bobby@shop.com", False),
        ("bob@shop.com", "bob@shop.com.evil.example", False),
        ("*@shop.com", "x@shop.com", True),
        ("*@shop.com", "x@mail.shop.com", False),
        ("*@shop.com", '"x@shop.com"@evil.example', False),
        ("*@*.shop.com", "x@mail.shop.com", True),
        ("*@*.shop.com", "x@a.b.shop.com", True),
        ("*@*.shop.com", "x@shop.com", False),
        ("*@*.shop.com", "x@evilshop.com", False),
        ("news-*@shop.com", "news-1@shop.com", True),
        ("news-*@shop.com", "news@shop.com", False),
        ("bob@*.com", '"bob@a.com"@evil.example', False),
        ("*@shop?.com", "x@shop1.com", True),
        ("*@*", "x@y.example", True),
        ("*@*", "<>", False),
        ("<>", "<>", True),
        ("<>", "x@y.example", False),
        ("*@bücher.example", "x@xn--bcher-kva.example", True),
        ("*@*.bücher.example", "x@m.xn--bcher-kva.example", True),
        ('"a b"@shop.com', '"A B"@shop.com', True),
        ("*@[192.0.2.1]", "x@[192.0.2.1]", True),
    ],
)
def test_which_senders_match(pattern: str, sender: str, matches: bool) -> None:
    assert Senders((parse_sender(pattern),)).matches(sender_of(sender)) is matches


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("shop.com", r"\*@shop.com"),
        ("@shop.com", r"\*@shop.com"),
        ("<a@b.com>", "without angle"),
        ("a@", "domain"),
        ("a b@c.com", "malformed"),
        ("*@sh(op*.com", "wildcards"),
        ("(*@shop.com", "malformed"),
        ("*@exa_mple..com", "malformed"),
    ],
)
def test_what_is_no_sender(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        parse_sender(text)


def test_spellings_of_one_sender_are_equal() -> None:
    assert parse_sender("Bob@SHOP.com") == parse_sender("bob@shop.com")
    assert parse_sender("*@Bücher.example") == parse_sender("*@xn--bcher-kva.example")
    assert parse_sender("*@*.com") != parse_sender("*@?.com")
