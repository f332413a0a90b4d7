"""What the operator demands of a header section."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.headers import split_header
from forwarder.policy.content import ContentLimits, objection
from forwarder.policy.demands import Author, Demand, Demands, unmet

FROM = b"From: a@x.example\r\n"
ALL = Demands(Author.ADDRESS, Demand.VALID, Demand.VALID, singletons=True)
GOOD = FROM + b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@x.example>\r\nTo: b@y.example\r\n"


def said(octets: bytes, demands: Demands) -> str:
    return unmet(split_header(octets + b"\r\nbody\r\n"), demands)


NO_FROM, SEVERAL, NO_ADDRESS, MANY = (
    "there is no From field",
    "there are several From fields",
    "there is no address in its From field",
    "there are several addresses in its From field",
)


@pytest.mark.parametrize(
    ("octets", "one_field", "one_address"),
    [
        (FROM, "", ""),
        (b"FROM :\r\n A <a@x.example>\r\n", "", ""),
        (b"Subject: x\r\n", NO_FROM, NO_FROM),
        (FROM + FROM, SEVERAL, SEVERAL),
        (FROM + b"no field\r\n" + FROM, SEVERAL, SEVERAL),
        (b"From a@x.example Sun Nov 22\r\n" + FROM, "", ""),
        (b"From: \r\n", NO_ADDRESS, NO_ADDRESS),
        (b"From: nobody <>\r\n", NO_ADDRESS, NO_ADDRESS),
        (b'From: "a@x.example" (b@x.example)\r\n', NO_ADDRESS, NO_ADDRESS),
        (b'From: "a@b, \\" c@d" (e@f) <g@x.example>\r\n', "", ""),
        (b"From: <@relay.example,@b.example:a@x.example>\r\n", "", ""),
        (b"From: a@[192.0.2.1]\r\n", "", ""),
        (b"From: a@x.example, B <b@x.example>\r\n", "", MANY),
        (b"From: Staff: a@x.example, b@y.example;\r\n", "", MANY),
        ("From: Jürgen <jürgen@x.example>\r\n".encode(), "", ""),
    ],
)
def test_from(octets: bytes, one_field: str, one_address: str) -> None:
    assert said(octets, Demands()) == ""
    assert said(octets, Demands(Author.FIELD)) == one_field
    assert said(octets, Demands(Author.ADDRESS)) == one_address


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((name, name) for name in ("Date", "Sender", "Reply-To", "To", "Cc", "Bcc", "In-Reply-To", "Subject")),
        ("References", "References"),
        ("Message-ID", "Message-Id"),
        *((name, "") for name in ("Received", "Comments", "Keywords", "Resent-To", "X-Any", "DKIM-Signature")),
        *((name, "") for name in ("Content-Type", "MIME-Version", "Delivered-To")),
    ],
)
def test_what_may_be_there_once(name: str, told: str) -> None:
    octets = f"{name}: x\r\nX-Between: y\r\n{name.upper()}: x\r\n".encode()
    assert said(octets, Demands()) == ""
    assert said(octets, Demands(singletons=True)) == (f"there are several {told} fields" if told else "")
    assert said(octets.split(b"X-Between")[0], Demands(singletons=True)) == ""


@pytest.mark.parametrize(
    ("date", "valid"),
    [
        ("Sun, 22 Nov 2026 12:00:00 +0000", True),
        ("22 Nov 2026 12:00 +0100", True),
        ("sun , 2 nov 26 9:05:60 GMT (a (nested) comment)", False),
        ("sun , 2 nov 26 9:05:60 GMT (comment)", True),
        ("Sun, 22 Nov\r\n 2026 12:00:00\t-0000", True),
        ("Sun, 29 Feb 2026 12:00:00 +0000", False),
        ("Thu, 29 Feb 2024 12:00:00 +0000", True),
        ("Sun, 22 Nov 2026 24:00:00 +0000", False),
        ("Sun, 22 Nov 2026 12:00:61 +0000", False),
        ("Sun, 22 Nov 2026 12:00:00", False),
        ("Sun, 22 Foo 2026 12:00:00 +0000", False),
        ("2026-11-22T12:00:00Z", False),
        ("Sun, 22 Nov 126 12:00:00 +0000", True),
        ("0 Nov 2026 12:00:00 +0000", False),
        ("yesterday", False),
        ("", False),
        ("22 Nov 2026 12:00 +0100" + " " * 500 + "(x)", False),
    ],
)
def test_dates(date: str, valid: bool) -> None:
    octets = f"Date: {date}\r\n".encode()
    assert said(octets, Demands(date=Demand.VALID)) == ("" if valid else "its Date field is malformed")
    assert said(octets, Demands(date=Demand.PRESENT)) == ""
    assert said(FROM, Demands(date=Demand.PRESENT)) == "there is no Date field"
    assert said(FROM, Demands(date=Demand.VALID)) == "there is no Date field"


@pytest.mark.parametrize(
    ("identifier", "valid"),
    [
        ("<1@x.example>", True),
        ("\r\n <a.b$c=d@[192.0.2.1]>", True),
        ('<"a b"@x.example>', True),
        ("<1>", False),
        ("1@x.example", False),
        ("<a@b@c>", False),
        ("<1@x.example> <2@x.example>", False),
        ("<a b@x.example>", False),
        ("", False),
    ],
)
def test_message_ids(identifier: str, valid: bool) -> None:
    octets = f"Message-ID: {identifier}\r\n".encode()
    assert said(octets, Demands(message_id=Demand.VALID)) == ("" if valid else "its Message-ID field is malformed")
    assert said(octets, Demands(message_id=Demand.PRESENT)) == ""
    assert said(FROM, Demands(message_id=Demand.PRESENT)) == "there is no Message-ID field"


def test_the_reply_names_what_is_wrong() -> None:
    assert objection(GOOD, split_header(GOOD + b"\r\n"), ContentLimits(demands=ALL)) is None
    octets = b"Subject: x\r\n\r\n"
    reply = objection(octets, split_header(octets), ContentLimits(demands=ALL))
    assert str(reply) == "550 5.7.1 The message is not as RFC 5322 3.6 wants it: there is no From field"


@given(st.binary(max_size=300))
def test_a_verdict_on_anything(octets: bytes) -> None:
    """Whatever stands in a header section, there is an answer in printable ASCII, and no demand is met by refusing."""
    reason = said(octets, ALL)
    assert reason.isascii() and (not reason or reason.isprintable())
    assert said(octets, Demands()) == ""


@pytest.mark.parametrize("piece", [b'\\"', b'"', b"[", b"(", b"(\\", b"<@", b"<@:", b"@", b"\\", b"<a", b'"\\'])
def test_hostile_fields_take_linear_time(piece: bytes) -> None:
    octets = b"From: " + piece * (400_000 // len(piece)) + b"\r\nMessage-ID: " + piece * 100_000 + b"\r\n"
    said(octets, Demands(Author.ADDRESS))
    said(octets, Demands(message_id=Demand.VALID))
