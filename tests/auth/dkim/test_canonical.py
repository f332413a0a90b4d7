"""Canonical forms against the RFC's examples, against a plain reference and against dkimpy."""

import re
from hashlib import sha256
from itertools import pairwise

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dkim.canonical import (
    BodyDigest,
    BodyHasher,
    BodyHashes,
    BodyKey,
    header_relaxed,
    header_simple,
    select,
    signed_octets,
    without_signature,
)
from forwarder.model.headers import split_header

WAYS = [False, True]
pieces_of_text = st.sampled_from([b" ", b"\t", b"\r\n", b"\r\n\r\n", b"a", b"\xe9", b" \r\n", b"\r", b"\n", b" " * 17])
bodies = st.lists(pieces_of_text, max_size=30).map(b"".join)


def plain_body(body: bytes, *, relaxed: bool) -> bytes:
    """RFC 6376 3.4.3 and 3.4.4 line by line."""
    lines = body.split(b"\r\n")
    if relaxed:
        lines = [re.sub(rb"[ \t]+", b" ", line.rstrip(b" \t")) for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines) or (b"" if relaxed else b"\r\n")


def plain_digest(body: bytes, key: BodyKey) -> BodyDigest:
    canonical = plain_body(body, relaxed=key.relaxed)
    counted = canonical if key.length is None else canonical[: key.length]
    return BodyDigest(sha256(counted).digest(), len(canonical), cut=len(counted) < len(canonical))


def digest(body: bytes, key: BodyKey, cuts: list[int] | None = None) -> BodyDigest:
    hasher = BodyHasher(key)
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts or []), len(body)]
    for start, end in pairwise(places):
        hasher.feed(body[start:end])
    return hasher.digest()


# RFC 6376 3.4.5, and what the sections before it say in words.
@pytest.mark.parametrize(
    ("body", "simple", "relaxed"),
    [
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", b" C\r\nD E\r\n"),
        (b"", b"\r\n", b""),
        (b"\r\n", b"\r\n", b""),
        (b"\r\n\r\n\r\n", b"\r\n", b""),
        (b" \t\r\n", b" \t\r\n", b""),
        (b"a\r\n \r\n", b"a\r\n \r\n", b"a\r\n"),
        (b"a", b"a\r\n", b"a\r\n"),
        (b"a \t", b"a \t\r\n", b"a\r\n"),
        (b"\r\n\r\na\r\n\r\nb\r\n", b"\r\n\r\na\r\n\r\nb\r\n", b"\r\n\r\na\r\n\r\nb\r\n"),
        (b"a\t\t b", b"a\t\t b\r\n", b"a b\r\n"),
        (b"a\r", b"a\r\r\n", b"a\r\r\n"),
        (b"a\n\r\n\r\n", b"a\n\r\n", b"a\n\r\n"),
        (b"a\xa0 \xc2\xa0\x0b\r\n", b"a\xa0 \xc2\xa0\x0b\r\n", b"a\xa0 \xc2\xa0\x0b\r\n"),
    ],
)
def test_bodies(body: bytes, simple: bytes, relaxed: bytes) -> None:
    for way, canonical in ((False, simple), (True, relaxed)):
        expected = BodyDigest(sha256(canonical).digest(), len(canonical), cut=False)
        assert digest(body, BodyKey(way)) == expected
        assert digest(body, BodyKey(way), list(range(len(body)))) == expected


@given(bodies, st.booleans(), st.none() | st.integers(0, 40), st.lists(st.integers(0, 200), max_size=30))
def test_any_body_in_any_pieces(body: bytes, relaxed: bool, length: int | None, cuts: list[int]) -> None:
    key = BodyKey(relaxed, "sha256", length)
    assert digest(body, key, cuts) == plain_digest(body, key)


@given(bodies, st.sets(st.none() | st.integers(0, 40), max_size=6), st.lists(st.integers(0, 200), max_size=9))
def test_many_hashes_of_one_body(body: bytes, lengths: set[int | None], cuts: list[int]) -> None:
    keys = [BodyKey(way, "sha256", length) for way in WAYS for length in lengths]
    hashes = BodyHashes(keys)
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(places):
        hashes.feed(body[start:end])
    hashes.finish()
    assert [hashes.digest(key) for key in keys] == [plain_digest(body, key) for key in keys]
    assert hashes.digest(BodyKey(relaxed=True, length=77)) is None


# dkimpy takes white space at the very end for the middle of a line, so whole lines only; and its input has no bare CR.
@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"\xe9", b"  b"]), max_size=30).map(b"".join))
def test_bodies_as_dkimpy_makes_them(lines: bytes) -> None:
    body = lines + b"\r\n"
    assert digest(body, BodyKey(relaxed=False)).digest == sha256(Simple.canonicalize_body(body)).digest()
    assert digest(body, BodyKey(relaxed=True)).digest == sha256(Relaxed.canonicalize_body(body)).digest()


@pytest.mark.parametrize("octets", [b" ", b"\t", b" \t", b"\r\n", b"\r", b"\n", b"\r\r\n", b" \r\n", b"a  b\t\r\n"])
@pytest.mark.timeout(60)  # anything worse than linear takes hours
def test_hostile_bodies(octets: bytes) -> None:
    body = octets * 1_000_000 + b"."
    for relaxed in WAYS:
        assert digest(body, BodyKey(relaxed)) == plain_digest(body, BodyKey(relaxed))


def test_a_piece_at_a_time_of_empty_lines_costs_no_memory_and_comes_back() -> None:
    hasher = BodyHasher(BodyKey(relaxed=True))
    for _ in range(100):
        hasher.feed(b"\r\n" * 5000)
    hasher.feed(b"end")
    assert hasher.digest() == BodyDigest(sha256(b"\r\n" * 500_000 + b"end\r\n").digest(), 1_000_005, cut=False)


@pytest.mark.parametrize(
    ("raw", "relaxed"),
    [
        (b"A: X\r\n", b"a:X\r\n"),  # RFC 6376 3.4.5
        (b"B : Y\t\r\n\tZ  \r\n", b"b:Y Z\r\n"),
        (b"Subject:\r\n", b"subject:\r\n"),
        (b"Subject: \t\r\n \r\n", b"subject:\r\n"),
        (b"X \t:a:b\r\n", b"x:a:b\r\n"),
        (b"X: \xc3\xa9\x0b \x0b\r\n", b"x:\xc3\xa9\x0b \x0b\r\n"),
        (b"X: a" + b" \t" * 100 + b"b\r\n", b"x:a b\r\n"),
    ],
)
def test_headers(raw: bytes, relaxed: bytes) -> None:
    assert header_relaxed(raw) == relaxed
    assert header_simple(raw) == raw


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"a", b":", b"\xe9", b" " * 33]), max_size=30))
def test_headers_as_dkimpy_makes_them(pieces: list[bytes]) -> None:
    value = b"".join(pieces) + b"\r\n"
    ((name, theirs),) = Relaxed.canonicalize_headers([(b"Subject", value)])
    assert header_relaxed(b"Subject:" + value) == name + b":" + theirs


@pytest.mark.timeout(60)
def test_a_header_of_white_space() -> None:
    for white in (b" ", b" \t", b"\r\n "):
        assert header_relaxed(b"X: a" + white * 5_000_000 + b"b\r\n") == b"x:a b\r\n"


@pytest.mark.parametrize(
    ("value", "without"),
    [
        (b" v=1; b=abc=", b" v=1; b="),
        (b" v=1;\r\n\tb=ab\r\n c= ;\r\n d=x", b" v=1;\r\n\tb=;\r\n d=x"),
        (b" v=1; b = abc ;bh=b=", b" v=1; b =;bh=b="),
        (b"b=;v=1", b"b=;v=1"),
        (b" bh=abc; B=c", b" bh=abc; B=c"),
        (b" v=1; \r\n b\r\n =x; b=y", b" v=1; \r\n b\r\n =; b=y"),
    ],
)
def test_deleting_the_signature(value: bytes, without: bytes) -> None:
    assert without_signature(b"DKIM-Signature:" + value) == b"DKIM-Signature:" + without


HEADER = b"A: 1\r\nB: 2\r\na: 3\r\nC: 4\r\nA : 5\r\n"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ("a", "5"),  # RFC 6376 5.4.2: from the bottom up
        ("a b a a", "5231"),
        ("a a a a a b", "5312"),  # with none left, a null string
        ("x c x", "4"),
        ("", ""),
    ],
)
def test_choosing_fields(names: str, chosen: str) -> None:
    fields = select(split_header(HEADER), [name.encode() for name in names.split()])
    assert "".join(raw.decode()[-3] for raw in fields) == chosen


def test_a_signature_covers_others_but_not_itself() -> None:
    header = split_header(b"S: 1\r\nS: 2\r\nS: 3\r\n")
    for n, others in enumerate(([b"3", b"2"], [b"3", b"1"], [b"2", b"1"])):
        assert [raw[3:4] for raw in select(header, [b"s"] * 4, header.fields[n].raw)] == others


def test_the_input_of_the_header_hash() -> None:
    header = split_header(b"X-Sig: b=abc; c\r\n =d \r\n" + HEADER)
    own = header.fields[0].raw
    assert signed_octets(header, [b"c", b"b"], own, relaxed=False) == b"C: 4\r\nB: 2\r\nX-Sig: b=; c\r\n =d "
    assert signed_octets(header, [b"c", b"b"], own, relaxed=True) == b"c:4\r\nb:2\r\nx-sig:b=; c =d"
