"""Signed messages verify, and a change of one octet is seen."""

import pytest

from tests.corpus.signed import CANONICAL, make_key, sign, verifies


@pytest.mark.parametrize("canonical", CANONICAL)
@pytest.mark.parametrize("length", [False, True])
def test_signatures_hold_and_break(canonical: str, length: bool) -> None:
    key = make_key()
    octets = sign(key, canonical, length=length)
    assert verifies(key, b"Received: from a\r\n\tby b; x\r\n" + octets)
    assert not verifies(key, octets.replace(b"indented", b"Indented"))
    assert not verifies(key, octets.replace(b"Subject: odd", b"Subject: even"))
