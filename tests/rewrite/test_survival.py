"""Which signatures survive what we do to a message: by the choice of fields, and as verification says afterwards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dkim.record import Signature
from forwarder.auth.dkim.verify import DkimStatus, verify
from forwarder.auth.incoming import Incoming
from forwarder.model.message import MemoryContent, StrippedContent
from forwarder.rewrite.survival import Change, named_by
from tests.auth.dkim.signer import MESSAGE, NAME, NOW, rsa_key, sign
from tests.fakes import FakeResolver
from tests.rewrite.judges import HEAD, received, run

FIELDS = (
    b"X-Forwarded-For: a@b.test\r\nSubject: above\r\nDelivered-To: a@b.test\r\nList-Id: <a>\r\nFrom: a@b.test\r\n"
    b"Subject: below\r\nTo: c@d.test\r\nDelivered-To: older@b.test\r\n"
)
MAIL = FIELDS + b"\r\nbody\r\n"


def signatures(made: Incoming) -> list[tuple[bytes, Signature]]:
    found = [(each.field.raw, each.signature) for each in made.signatures]
    return [(raw, signature) for raw, signature in found if isinstance(signature, Signature)]


def change(message: bytes, added: bytes, removed: list[tuple[int, int]]) -> tuple[list[bool], bytes]:
    """Give what is foretold of each signature, and the octets that leave."""
    made = received(message)
    assert made.header is not None
    made_change = Change(made.header, added, removed)
    left = b"".join(StrippedContent(MemoryContent(message), removed).chunks())
    return [made_change.keeps(raw, signature) for raw, signature in signatures(made)], added + left


def held(message: bytes) -> dict[str, bool]:
    """Say of each signature, by its beginning, whether it is good."""
    resolver = FakeResolver({(NAME, "TXT"): [rsa_key().record]})
    results = run(verify(resolver, received(message), NOW))
    return {result.signature_start[:8]: result.status is DkimStatus.PASS for result in results}


def place(message: bytes, field: bytes) -> tuple[int, int]:
    start = message.index(field)
    return start, start + len(field)


@pytest.mark.parametrize(
    ("names", "added", "removed", "expected"),
    [
        ("from:to:subject", HEAD, b"", True),
        ("from:from:to:subject", HEAD, b"", True),
        ("from:x-forwarded-for", HEAD, b"", True),
        ("from:x-forwarded-for:x-forwarded-for", HEAD, b"", False),
        ("from:x-forwarded-to", HEAD, b"", False),
        ("from:delivered-to:delivered-to", HEAD, b"", True),
        ("from:delivered-to:delivered-to:delivered-to", HEAD, b"", False),
        ("from:authentication-results", HEAD, b"", False),
        ("from:received", HEAD, b"", False),
        ("from", b"From: x@y.test\r\n", b"", True),  # the bottom one is chosen still
        ("from:from", b"From: x@y.test\r\n", b"", False),
        ("from", b"From: x@y.test\r\n", b"From: a@b.test\r\n", False),
        ("from", b"From: a@b.test\r\n", b"From: a@b.test\r\n", True),  # the same octets again
        ("from:subject", b"", b"Subject: above\r\n", True),
        ("from:subject:subject", b"", b"Subject: above\r\n", False),
        ("from:subject", b"", b"Subject: below\r\n", False),
        ("from:to", b"", b"Subject: below\r\nTo: c@d.test\r\n", False),
        ("from", b"", b"Subject: below\r\nTo: c@d.test\r\n", True),
        ("from:dkim-signature", b"DKIM-Signature: of ours\r\n", b"", False),
        ("from", b"", b"body\r\n", False),
    ],
)
def test_the_choice_of_fields(names: str, added: bytes, removed: bytes, expected: bool) -> None:
    message = sign(MAIL, h=names)
    foretold, left = change(message, added, [place(message, removed)] if removed else [])
    assert foretold == [expected]
    assert list(held(left).values())[-1:] == [expected]


def test_what_is_cut_out_but_no_whole_field_breaks_all() -> None:
    message = sign(MAIL, h="from")
    for cut in (b"\r\nDelivered-To: older@b.test", b"Delivered-To: older@b.test\r\n\r\nbo", b"y\r\n"):
        assert change(message, b"", [place(message, cut)])[0] == [False]


def test_a_signature_that_is_taken_out_does_not_survive() -> None:
    message = sign(MAIL)
    end = message.index(FIELDS)
    assert change(message, b"", [(0, end)])[0] == [False]
    assert change(sign(message, h="from"), b"", [(message.index(b"X-Forwarded"), len(message) - 8)])[0] == [False] * 2


def test_two_signatures_one_of_which_signs_the_other() -> None:
    message = sign(sign(MAIL), h="from:dkim-signature:dkim-signature")
    assert change(message, HEAD, []) == ([True, True], HEAD + message)
    assert change(message, b"DKIM-Signature: of ours\r\n" + HEAD, [])[0] == [False, True]


def test_the_header_that_goes_out() -> None:
    made = received(MAIL)
    assert made.header is not None
    ranges = [place(MAIL, b"Subject: above\r\n"), place(MAIL, b"From: a@b.test\r\nSubject: below\r\n")]
    after = Change(made.header, b"From: x@y.test\r\n", ranges).after
    names = [b"from", b"x-forwarded-for", b"delivered-to", b"list-id", b"to", b"delivered-to"]
    assert [field.name for field in after.fields] == names
    assert after.size == sum(len(field.raw) for field in after.fields)
    assert Change(made.header, b"").after.fields == made.header.fields


def test_names_to_keep_away_from() -> None:
    found = [
        signature for _, signature in signatures(received(sign(sign(MAIL, h="From:X-Forwarded-For"), h="from:to")))
    ]
    assert named_by(found) == {b"from", b"x-forwarded-for", b"to"}
    assert named_by(()) == frozenset()


NAMES = ["from", "to", "subject", "delivered-to", "x-forwarded-for", "list-id", "received", "dkim-signature"]
LINES = [line + b"\r\n" for line in (FIELDS + HEAD).replace(b"\r\n\t", b" ").split(b"\r\n") if line]


@given(
    st.lists(st.sampled_from(LINES), max_size=8).map(b"".join),
    st.lists(st.lists(st.sampled_from(NAMES), max_size=6), min_size=1, max_size=3),
    st.lists(st.sampled_from(LINES), max_size=4).map(b"".join),
    st.sets(st.integers(0, 12)),
    st.sampled_from(["relaxed/relaxed", "simple/simple"]),
)
def test_what_is_foretold_comes_true(
    fields: bytes, signed: list[list[str]], added: bytes, cut: set[int], canonical: str
) -> None:
    """Of the signatures that held, just those are good afterwards that are foretold to be."""
    message = b"From: a@b.test\r\n" + fields + b"\r\nbody\r\n"
    for n, names in enumerate(signed):  # the time tells them apart
        message = sign(message, h=":".join(["from", *names]), c=canonical, t=str(NOW - n))
    made = received(message)
    assert made.header is not None
    ranges, start = [], 0
    for n, field in enumerate(made.header.fields):
        if n in cut:
            ranges.append((start, start + len(field.raw)))
        start += len(field.raw)
    foretold, left = change(message, added, ranges)
    before, after = held(message), held(left)
    for (_, signature), expected in zip(signatures(made), foretold, strict=True):
        which = signature.text[:8]
        assert after.get(which, False) == expected or not before[which]


def test_messages_of_many_fields() -> None:
    message = sign(b"X: y\r\n" * 9_000 + MESSAGE)
    start = message.index(b"X: y")
    assert change(message, HEAD, [(start, start + 6 * 9_000)])[0] == [True]
