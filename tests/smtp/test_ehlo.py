"""What a next hop offers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.smtp.ehlo import NOTHING, Extension, Offer, parse_offer

GMAIL = "mx.google.com at your service\nSIZE 157286400\n8BITMIME\nSTARTTLS\nENHANCEDSTATUSCODES\nPIPELINING\nSMTPUTF8"


def test_a_real_one() -> None:
    offer = parse_offer(GMAIL)
    assert offer.size_limit == 157_286_400
    expected = {Extension.SIZE, Extension.EIGHT_BIT_MIME, Extension.STARTTLS, Extension.ENHANCED_STATUS_CODES}
    assert offer.extensions == expected | {Extension.PIPELINING, Extension.SMTPUTF8}
    assert Extension.DSN not in offer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hop", NOTHING),
        ("", NOTHING),
        ("PIPELINING DSN", NOTHING),  # the greeting is no keyword
        ("hop\nPIPELINING", Offer(frozenset({Extension.PIPELINING}))),
        ("hop\npipelining", Offer(frozenset({Extension.PIPELINING}))),
        ("hop\nXPIPELINING\nPIPELININGX\n\n ", NOTHING),
        ("hop\nSIZE", Offer(frozenset({Extension.SIZE}))),
        ("hop\nSIZE 0", Offer(frozenset({Extension.SIZE}))),
        ("hop\nSIZE 10", Offer(frozenset({Extension.SIZE}), 10)),
        ("hop\nSIZE ²", Offer(frozenset({Extension.SIZE}))),
        ("hop\nSIZE -5", Offer(frozenset({Extension.SIZE}))),
        ("hop\nSIZE " + "9" * 5000, Offer(frozenset({Extension.SIZE}))),
        ("hop\nAUTH PLAIN login", Offer(frozenset({Extension.AUTH}), 0, frozenset({"PLAIN", "LOGIN"}))),
        ("hop\nDSN\nDSN", Offer(frozenset({Extension.DSN}))),
    ],
)
def test_keywords(text: str, expected: Offer) -> None:
    assert parse_offer(text) == expected


@given(st.text())
def test_never_fails(text: str) -> None:
    assert parse_offer(text).size_limit >= 0
