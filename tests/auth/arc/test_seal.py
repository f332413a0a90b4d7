from hashlib import sha256

import pytest

from forwarder.auth.arc import seal as module
from forwarder.auth.arc.seal import SetFields, seal_digests
from forwarder.auth.dkim.canonical import header_relaxed

FIRST = SetFields(b"ARC-A:  one\t two \r\n", b"ARC-M: i=1;\r\n b=xx\r\n", b"ARC-S: i=1; b = ab\r\n cd ; cv=none\r\n")
SECOND = SetFields(b"arc-a : 2\r\n", b"ARC-M: i=2;\r\n", b"ARC-S: i=2; cv=pass;\r\n\tb=\r\n")


def test_the_order_and_the_form_of_what_is_sealed() -> None:
    below = b"arc-a:one two\r\narc-m:i=1; b=xx\r\n"
    first = below + b"arc-s:i=1; b =; cv=none"
    second = below + b"arc-s:i=1; b = ab cd ; cv=none\r\narc-a:2\r\narc-m:i=2;\r\narc-s:i=2; cv=pass; b="
    assert seal_digests([FIRST, SECOND]) == (sha256(first).digest(), sha256(second).digest())


def test_a_failed_chain_is_sealed_alone() -> None:
    octets = b"arc-a:2\r\narc-m:i=2;\r\narc-s:i=2; cv=pass; b="
    assert seal_digests([SECOND]) == (sha256(octets).digest(),)


def test_each_field_is_looked_at_a_fixed_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    def counting(raw: bytes) -> bytes:
        looked.append(raw)
        return header_relaxed(raw)

    monkeypatch.setattr(module, "header_relaxed", counting)
    assert len(seal_digests([FIRST] * 50)) == 50
    assert len(looked) == 50 * 4
