"""A message while it arrives: what is kept, what is hashed, what is given up."""

import base64
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dkim.canonical import BodyHasher, BodyKey
from forwarder.auth.incoming import MAX_KEYS, Incoming
from forwarder.model.headers import MAX_FIELDS, split_header
from tests.auth.dkim.signer import MESSAGE, incoming, sign

RELAXED, SIMPLE = BodyKey(relaxed=True), BodyKey(relaxed=False)
SIGNATURE = b"DKIM-Signature: v=1; a=rsa-sha256; c=simple/%s; d=a.test; s=s; h=from; b=YQ==; bh=" + base64.b64encode(
    b"h" * 32
)


def dkim(body: bytes, rest: bytes = b"") -> bytes:
    return SIGNATURE % body + rest + b"\r\n"


def arc(instance: int, body: bytes, rest: bytes = b"") -> bytes:
    return dkim(body, rest).replace(b"DKIM-Signature: v=1;", b"ARC-Message-Signature: i=%d;" % instance)


def digest(body: bytes, key: BodyKey) -> bytes:
    hasher = BodyHasher(key)
    hasher.feed(body)
    return hasher.digest().digest


def hashed(header: bytes, *keys: BodyKey) -> list[bool]:
    message = incoming(header + b"\r\n" + b"body\r\n")
    return [message.body_digest(key) is not None for key in keys]


HEAD = dkim(b"relaxed") + dkim(b"simple", b"; l=3")


@pytest.mark.parametrize(
    ("message", "header", "body"),
    [
        (HEAD + b"\r\nbody\r\n", HEAD, b"body\r\n"),
        (HEAD + b"\r\n", HEAD, b""),
        (HEAD, HEAD, b""),
        (HEAD + b"\r\n\r\n\r\nbody", HEAD, b"\r\n\r\nbody"),
        (HEAD + b"no field\r\nX: 1\r\n\r\nbody\r\n", HEAD, b"no field\r\nX: 1\r\n\r\nbody\r\n"),
        (HEAD + b"no line", HEAD, b"no line"),
        (b"\r\nX: 1\r\n\r\nbody", b"", b"X: 1\r\n\r\nbody"),
        (b"", b"", b""),
        (b"\r\n", b"", b""),
        (b"no field", b"", b"no field"),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
def test_where_the_body_begins(message: bytes, header: bytes, body: bytes, step: int) -> None:
    made = incoming(message, step)
    assert made.header is not None
    assert made.header.fields == split_header(header).fields
    assert made.header.size == len(header)
    if header:
        for key in (RELAXED, BodyKey(relaxed=False, length=3)):
            found = made.body_digest(key)
            assert found is not None
            assert found.digest == digest(body, key)


@given(st.lists(st.integers(0, len(HEAD) + 2), max_size=9))
def test_the_header_is_there_with_its_last_octet(cuts: list[int]) -> None:
    made, message = Incoming(), HEAD + b"\r\n"
    places = sorted({0, *cuts, len(message) - 1})
    for start, end in pairwise(places):
        made.feed(message[start : min(end, len(message) - 1)])
        assert made.header is None
    made.feed(message[-1:])
    assert made.header is not None


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_any_pieces(cuts: list[int]) -> None:
    message = sign() + b"more \r\n\r\n"
    made = Incoming()
    places = sorted({0, *(min(cut, len(message)) for cut in cuts), len(message)})
    for n, start in enumerate(places):
        made.feed(message[start : places[n + 1] if n + 1 < len(places) else len(message)])
    made.finish()
    whole = incoming(message)
    assert made.header == whole.header
    assert made.body_digest(RELAXED) == whole.body_digest(RELAXED) is not None


def test_only_what_signatures_need_is_hashed() -> None:
    assert hashed(b"From: a@b\r\n", RELAXED, SIMPLE) == [False, False]
    assert hashed(dkim(b"relaxed"), RELAXED, SIMPLE) == [True, False]
    assert hashed(dkim(b"simple"), RELAXED, SIMPLE) == [False, True]
    sha1 = (
        dkim(b"relaxed")
        .replace(b"rsa-sha256", b"rsa-sha1")
        .replace(base64.b64encode(b"h" * 32), b"aGFzaGhhc2hoYXNoaGFzaGhhc2g=")
    )
    assert hashed(sha1, RELAXED, SIMPLE) == [False, False]
    assert hashed(b"DKIM-Signature: rubbish\r\nARC-Message-Signature: rubbish\r\n", RELAXED, SIMPLE) == [False, False]


def test_what_somebody_asks_for_is_hashed_in_any_case() -> None:
    for header in (b"From: a@b\r\n", dkim(b"relaxed"), dkim(b"simple"), b""):
        made = Incoming(also=(RELAXED,))
        for octets in (header + b"\r", b"\nbo", b"dy \r\n\r\n"):
            made.feed(octets)
        made.finish()
        found = made.body_digest(RELAXED)
        assert found is not None
        assert found.digest == digest(b"body\r\n", RELAXED)
        assert (made.body_digest(SIMPLE) is not None) == (b"simple/simple" in header)
    overlong = Incoming(10, also=(RELAXED,))
    overlong.feed(b"X: " + b"x" * 20)
    overlong.finish()
    assert overlong.body_digest(RELAXED) is None


def test_the_newest_arc_set_counts_and_older_ones_where_they_are_cheap() -> None:
    assert hashed(arc(1, b"relaxed"), RELAXED, SIMPLE) == [True, False]
    assert hashed(arc(1, b"simple") + arc(2, b"relaxed"), RELAXED, SIMPLE) == [True, False]
    assert hashed(arc(2, b"simple") + arc(1, b"relaxed"), RELAXED, SIMPLE) == [False, True]
    assert hashed(dkim(b"simple") + arc(1, b"simple") + arc(2, b"relaxed"), RELAXED, SIMPLE) == [True, True]
    part = BodyKey(relaxed=True, length=7)
    assert hashed(arc(1, b"relaxed", b"; l=7") + arc(2, b"relaxed"), RELAXED, part) == [True, True]


def test_hashes_are_bounded() -> None:
    header = b"".join(dkim(b"relaxed", b"; l=%d" % n) for n in range(20))
    header += b"".join(arc(n, b"relaxed", b"; l=%d" % (100 + n)) for n in range(1, 51))
    asked = [BodyKey(relaxed=True, length=n) for n in range(200)]
    assert sum(hashed(header, *asked)) == MAX_KEYS
    assert hashed(header, asked[150], asked[149], asked[148], asked[9], asked[10]) == [True, True, False, True, False]


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_header_that_is_too_long_is_given_up(step: int) -> None:
    for message, limit, overlong in (
        (b"X: " + b"x" * 95 + b"\r\n\r\nbody", 100, False),
        (b"X: " + b"x" * 96 + b"\r\n\r\nbody", 100, True),
        (b"X: " + b"x" * 5000, 98, True),
        (b"\r\n" + b"x" * 5000, 98, False),
        (b"X: 1\r\nno field\r\n" + b"x" * 5000, 98, False),
        (b"X: 1\r\n" * 20 + b"no field\r\n" + b"x" * 5000, 98, True),
        (b"X: 1\r\n" + b" 1\r\n" * 5000, 98, True),
        (b"X: 1\r\n" * 17 + b"\x80" * 5000, 102, False),
        (b"X: 1\r\n" * 17 + b"\x80" * 5000, 101, True),
    ):
        made = Incoming(limit)
        for start in range(0, len(message), step):
            made.feed(message[start : start + step])
        made.finish()
        assert (made.overlong, made.header is None) == (overlong, overlong)


def test_a_header_of_too_many_fields_is_given_up() -> None:
    for count, overlong in ((MAX_FIELDS, False), (MAX_FIELDS + 1, True)):
        made = incoming(b"X: 1\r\n" * count + b"\r\nbody")
        assert (made.overlong, made.header is None, bytes(made._buffer)) == (overlong, overlong, b"")


def test_what_is_given_up_is_not_kept() -> None:
    made = Incoming(100)
    for _ in range(1000):
        made.feed(b"x" * 1000)
    assert not made._buffer
    made.finish()
    assert made.signatures == ()
    assert made.body_digest(RELAXED) is None


def test_the_body_is_not_kept() -> None:
    made = Incoming()
    made.feed(MESSAGE)
    assert not made._buffer
    made.feed(b"x" * 100_000)
    assert not made._buffer


@pytest.mark.timeout(60)  # were each octet's arrival to cost a look at all octets, this would take hours
def test_a_long_header_octet_by_octet() -> None:
    assert incoming(b"X: " + b"x\r\n " * 200_000 + b"\r\n\r\nbody", 1).header is not None
