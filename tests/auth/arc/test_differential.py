"""Held against dkimpy: chains that it makes, as they are and with octets changed, mean the same to both.

It signs its own ARC-Authentication-Results, which the RFC forbids and everybody accepts.
"""

import binascii
import re
from functools import cache

import dkim
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.arc.verify import ArcResult, ArcStatus, verify
from tests.auth.arc.sealer import chain, resolver, seal
from tests.auth.dkim.signer import MESSAGE, NOW, incoming, rsa_key

HOPS = (("one", "first.test", rsa_key()), ("two", "second.test", rsa_key(1024)))
RECORDS = {f"{selector}._domainkey.{domain}": key.record for selector, domain, key in HOPS}
SIGNED = [b"from", b"to", b"subject"]


@cache
def theirs(sets: int) -> bytes:
    """Give a message with sets that dkimpy made, in turn by one and the other."""
    if not sets:
        return MESSAGE
    message = theirs(sets - 1)
    selector, domain, key = HOPS[sets % 2]
    before = "arc=pass; " if sets > 1 else ""
    message = f"Authentication-Results: mx{sets}.{domain}; {before}spf=pass smtp.mailfrom=a.test\r\n".encode() + message
    pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    made = dkim.arc_sign(
        message,
        selector.encode(),
        domain.encode(),
        pem,
        f"mx{sets}.{domain}".encode(),
        include_headers=SIGNED,
        timestamp=NOW,
    )
    return b"".join(made) + message


def judged_by_them(message: bytes, records: dict[str, str]) -> ArcStatus:
    """Give dkimpy's answer; a chain that had failed before is a failed one."""
    found = {name.encode(): record.encode() for name, record in records.items()}
    status, _, _ = dkim.arc_verify(message, dnsfunc=lambda name, timeout=5: found.get(name.rstrip(b"."), b""))
    return ArcStatus((status or b"fail").decode())


async def judged_by_us(message: bytes, records: dict[str, str]) -> ArcResult:
    return await verify(resolver(records), incoming(message), NOW)


@pytest.mark.parametrize("sets", range(6))
async def test_their_chains(sets: int) -> None:
    answer = await judged_by_us(theirs(sets), RECORDS)
    assert answer.status is (ArcStatus.PASS if sets else ArcStatus.NONE), answer
    assert answer.sealers == tuple((n, HOPS[n % 2][1]) for n in range(sets, 0, -1))
    assert judged_by_them(theirs(sets), RECORDS) is answer.status


@pytest.mark.parametrize("sets", range(1, 6))
def test_our_chains(sets: int) -> None:
    """What a seal signs is the same to them."""
    assert judged_by_them(chain(sets), {"arc._domainkey.relay.test": rsa_key().record}) is ArcStatus.PASS


async def test_chains_of_both() -> None:
    message = seal(
        theirs(2), rsa_key(1024), signature={"d": "second.test", "s": "two"}, cover={"d": "first.test", "s": "one"}
    )
    records = {**RECORDS, "one._domainkey.first.test": rsa_key(1024).record}
    assert judged_by_them(message, records) is (await judged_by_us(message, records)).status
    message = seal(theirs(2), signature={"d": "first.test", "s": "one"}, cover={"d": "first.test", "s": "one"})
    assert judged_by_them(message, RECORDS) is ArcStatus.PASS
    assert (await judged_by_us(message, RECORDS)).status is ArcStatus.PASS


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A chain with a small change within a line, behind the field's name: lines and names they split otherwise."""
    message = theirs(draw(st.integers(1, 3)))
    places = [
        match.span(1) for match in re.finditer(rb"(?:^[A-Za-z-]+:|^[ \t]|^(?=[A-Z]))(.+)\r\n", message, re.MULTILINE)
    ]
    first, last = draw(st.sampled_from(places))
    start = draw(st.integers(first, last - 1))
    end = min(last, start + draw(st.integers(0, 4)))
    return message[:start] + draw(st.text("ab19=;: ", max_size=3)).encode() + message[end:]


@given(changed())
async def test_their_chains_changed(message: bytes) -> None:
    answer = await judged_by_us(message, RECORDS)
    try:
        expected = judged_by_them(message, RECORDS)
    except IndexError:  # it finds no message signature in which " i=n;" stands just so
        return
    except binascii.Error:  # it meets base64 that is none
        assert answer.status is ArcStatus.FAIL
        return
    assert answer.status is expected, answer
