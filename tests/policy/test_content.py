"""Loops, and headers that nothing can be put in front of."""

import pytest

from forwarder.model.headers import split_header
from forwarder.policy.content import ContentLimits, marks, objection

LIMITS = ContentLimits(header_size=1000, hops=50)


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"Subject: x\r\n\r\nbody\r\n", 0),
        (b"", 0),
        (b"\r\nbody only\r\n", 0),
        (b"no header at all\r\n", 0),
        (b" folded\r\nSubject: x\r\n\r\n", 554),
        (b"\tfolded\r\n", 554),
        (b"X: " + b"y" * 1000 + b"\r\n\r\n", 552),
        ((b"X: " + b"y" * 2000 + b"\r\n\r\n")[:1001], 552),
        ((b"X: y\r\n" * 500)[:1001], 552),
        (b"X: y\r\n" * 100, 0),
        ((b"X: y\r\n\r\n" + b"z" * 2000)[:1001], 0),
        ((b"no header at all " * 200)[:1001], 0),
        (b"Received: x\r\n" * 50 + b"\r\n", 0),
        (b"Received: x\r\n" * 51 + b"\r\n", 554),
        (b"RECEIVED :\r\n x\r\n" * 51 + b"\r\n", 554),
        (b"Subject: x\r\n\r\n" + b"Received: x\r\n" * 60, 0),
    ],
)
def test_objection(octets: bytes, code: int) -> None:
    reply = objection(octets, split_header(octets), LIMITS)
    assert (reply.code if reply else 0) == code


def test_marks_are_read_without_case_and_folding() -> None:
    header = split_header(b"delivered-TO:\r\n\tMe@Ours.Example\r\nDelivered-To: b@x\r\n\r\nDelivered-To: body@x\r\n")
    assert marks(header) == {b"me@ours.example", b"b@x"}


@pytest.mark.parametrize(("count", "code"), [(10_000, 0), (10_001, 552), (100_000, 552)])
def test_row_50_the_number_of_fields_is_bounded(count: int, code: int) -> None:
    octets = b"a:\r\n" * count + b"\r\n"
    reply = objection(octets, split_header(octets), ContentLimits())
    assert (reply.code if reply else 0) == code


@pytest.mark.parametrize(
    ("octets", "limits", "text"),
    [
        (b"a:\r\n" * 5 + b"\r\n", ContentLimits(header_fields=5), ""),
        (b"a:\r\n" * 6 + b"\r\n", ContentLimits(header_fields=5), "The header section has more than 5 fields"),
        (b"a:\r\n" * 10_001, ContentLimits(header_fields=20_000), "The header section has more than 10000 fields"),
        (b"X: 5678\r\n\r\n", ContentLimits(field_size=9), ""),
        (b"X: 56789\r\n\r\n", ContentLimits(field_size=9), "A field of the header section is longer than 9 octets"),
        (b"X: 5\r\n 9\r\n\r\n", ContentLimits(field_size=9), "A field of the header section is longer than 9 octets"),
        (b"X: " + b"y" * 100_000 + b"\r\n\r\n", ContentLimits(), ""),
    ],
)
def test_sizes_that_the_operator_sets(octets: bytes, limits: ContentLimits, text: str) -> None:
    reply = objection(octets, split_header(octets), limits)
    assert (str(reply) if reply else "") == (f"552 5.3.4 {text}" if text else "")
