"""OpenDKIM and we: what one signs the other verifies, and of a changed message both say the same.

Left out of what is generated: changes of the signature itself (`test_a_known_difference` says why), messages without
exactly one From or with what is no field, which OpenDKIM refuses to look at (RFC 5322 3.6), and those that
`test_differential` leaves out.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.auth.dkim.verify import DkimStatus
from tests.auth.dkim.opendkim import LIBRARY, OpenDkim
from tests.auth.dkim.signer import DOMAIN, MESSAGE, SELECTOR, result, rsa_key, sign
from tests.auth.dkim.test_differential import KEY, edited, edits, ours, understood_alike
from tests.corpus import signed

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="needs Debian's libopendkim")

MAIL = MESSAGE.replace(b"To:", b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nTo:", 1)


def opendkim() -> OpenDkim:
    assert LIBRARY is not None
    return OpenDkim(LIBRARY, KEY.private, KEY.record.encode())


def signed_by_opendkim(canonical: str) -> bytes:
    return opendkim().sign(MAIL, canonical, SELECTOR, DOMAIN)


@pytest.mark.parametrize("canonical", signed.CANONICAL)
def test_what_opendkim_signs_verifies(canonical: str) -> None:
    message = signed_by_opendkim(canonical)
    assert ours(message).status is DkimStatus.PASS
    assert ours(message + b"x\r\n").reason == "the body was changed"
    assert ours(message.replace(b"Alice", b"Mallory")).reason == "the header was changed or the key is another"


@pytest.mark.parametrize("canonical", signed.CANONICAL)
async def test_what_we_make_canonical_opendkim_verifies(canonical: str) -> None:
    for body in (b"", b"\r\n\r\n", b" \t\r\n", b"a\t b  \r\n\r\n c\r\n\r\n"):
        message = sign(MAIL.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body, c=canonical, t="1700000000")
        from_us = OpenDkim(opendkim().library, KEY.private, rsa_key().record.encode())
        assert (await result(message)).status is DkimStatus.PASS
        assert from_us.verifies(message)
        assert not from_us.verifies(message.replace(b"Alice", b"Mallory"))


@settings(max_examples=200)
@given(st.sampled_from(signed.CANONICAL), edits)
def test_the_same_answer_as_opendkim(canonical: str, changes: list[tuple[int, int, bytes]]) -> None:
    signature = signed_by_opendkim(canonical).removesuffix(MAIL)
    rest = edited(MAIL, changes)
    if b"\n" in rest.replace(b"\r\n", b"") or b"\r" in rest.replace(b"\r\n", b"") or not understood_alike(rest):
        return
    found = ours(signature + rest)
    assert (found.status is DkimStatus.PASS) == opendkim().verifies(signature + rest), found


def test_a_known_difference() -> None:
    """OpenDKIM passes over what is not base64 in b=; by RFC 6376 2.10 there may be white space only."""
    message = signed_by_opendkim("simple/simple").replace(b"b=", b"b=.").replace(b"bh=.", b"bh=")
    assert opendkim().verifies(message)
    assert ours(message).reason == "the signature cannot be read: b= is not base64"
