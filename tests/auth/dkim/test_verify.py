"""Whole signatures: each status, each tag that decides, and who asked for what."""

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dkim.choice import CHECKED
from forwarder.auth.dkim.verify import CLOCK_SKEW, DkimResult, DkimStatus, verify
from forwarder.auth.incoming import Incoming
from forwarder.ports import Answer, DnsStatus
from tests.auth.answers import RandomResolver
from tests.auth.dkim.signer import (
    MESSAGE,
    NAME,
    NOW,
    Key,
    ed25519_key,
    incoming,
    result,
    results,
    rsa_key,
    sign,
)
from tests.auth.dkim.test_keys import modulus, record, wrapped
from tests.auth.dkim.test_record import anything, lists
from tests.fakes import FakeResolver

PASS, FAIL, PERMERROR = DkimStatus.PASS, DkimStatus.FAIL, DkimStatus.PERMERROR
HEADER_CHANGED = "the header was changed or the key is another"

# RFC 8463 A.2 and A.3.
RFC_8463_RECORDS = {
    "brisbane._domainkey.football.example.com": ["v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="],
    "test._domainkey.football.example.com": [
        "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J"
        "16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l"
        "/K4w3QIDAQAB"
    ],
}
RFC_8463 = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")


async def test_the_message_of_rfc_8463() -> None:
    edwards, rsa = await results(RFC_8463, RFC_8463_RECORDS, 1528637909)
    assert edwards == DkimResult(
        status=PASS,
        domain="football.example.com",
        selector="brisbane",
        identity="@football.example.com",
        algorithm="ed25519-sha256",
        signature_start="/gCrinpc",
    )
    assert (rsa.status, rsa.selector, rsa.algorithm, rsa.signature_start) == (PASS, "test", "rsa-sha256", "F45dVWDf")
    changed = await results(RFC_8463.replace(b"hungry", b"angry"), RFC_8463_RECORDS, 1528637909)
    assert [(each.status, each.reason) for each in changed] == [(FAIL, "the body was changed")] * 2


@pytest.mark.parametrize("make", [rsa_key, ed25519_key])
@pytest.mark.parametrize("c", [None, "simple", "relaxed", "simple/simple", "simple/relaxed", "relaxed/relaxed"])
async def test_what_may_change_and_what_may_not(make: Callable[[], Key], c: str | None) -> None:
    key = make()
    message = sign(key=key, c=c)
    header_relaxed, body_relaxed = (c or "").startswith("relaxed"), (c or "").endswith("/relaxed")

    async def status(changed: bytes) -> tuple[DkimStatus, str]:
        assert changed != message
        only = await result(changed, key.record)
        return only.status, only.reason

    good, body, header = (PASS, ""), (FAIL, "the body was changed"), (FAIL, HEADER_CHANGED)
    assert await status(b"X-New: 1\r\n" + message) == good
    assert await status(message + b"\r\n\r\n") == good
    assert await status(message.replace(b"Hello,  \t Bob \r\n", b"Hello, Bob\r\n")) == (good if body_relaxed else body)
    assert await status(message.replace(b"one\r\n\ttwo  three", b"one two three")) == (
        good if header_relaxed else header
    )
    assert await status(message.replace(b"\r\nTo: ", b"\r\ntO:")) == (good if header_relaxed else header)
    assert await status(message.replace(b"Bob", b"B ob")) == body
    assert await status(message.replace(b"three", b"thr ee")) == header
    assert await status(message.replace(b"From: Alice", b"From: Al1ce")) == header
    assert await status(message + b".") == body
    assert await status(message.replace(b" v=1;", b" v=1; n=x;")) == header


async def test_without_a_signature_there_is_no_result() -> None:
    assert await results(MESSAGE, {}) == ()


async def test_another_key() -> None:
    only = await result(sign(), rsa_key(2048, 1).record)
    assert (only.status, only.reason) == (FAIL, HEADER_CHANGED)


async def test_fields_that_may_not_be_added() -> None:
    over, plain = sign(h="from:from:to:subject"), sign(h="from:to:subject")
    second = b"From: eve@evil.test\r\n"
    assert (await result(over)).status is PASS  # RFC 6376 5.4.2: the second From is a null string
    assert (await result(second + over)).reason == HEADER_CHANGED
    # RFC 6376 5.4.2 takes the lowest; that there are two is for DMARC to mind.
    assert (await result(second + plain)).status is PASS
    assert (await result(plain.replace(b"To: ", b"From: eve@evil.test\r\nTo: "))).reason == HEADER_CHANGED


async def test_a_signature_may_cover_another() -> None:
    inner = sign(s="inner")
    outer = sign(inner, h="from:dkim-signature")
    records = {NAME: [rsa_key().record], "inner._domainkey.sender.test": [rsa_key().record]}
    assert [each.status for each in await results(outer, records)] == [PASS, PASS]
    assert (await results(outer.replace(b"s=inner", b"S=inner"), records))[0].reason == HEADER_CHANGED


async def test_a_signature_does_not_cover_itself() -> None:
    message = sign(h="from:dkim-signature:dkim-signature")
    assert (await result(message)).status is PASS
    added = message.replace(b"From:", b"DKIM-Signature: x\r\nFrom:")
    assert (await results(added, {NAME: [rsa_key().record]}))[0].reason == HEADER_CHANGED


@pytest.mark.parametrize(
    ("tags", "now", "reason"),
    [
        ({"t": str(NOW)}, NOW, ""),
        ({"t": str(NOW + CLOCK_SKEW)}, NOW, ""),
        ({"t": str(NOW + CLOCK_SKEW + 1)}, NOW, "the signature was made in the future"),
        ({"t": None, "x": str(NOW)}, NOW + CLOCK_SKEW, ""),
        ({"t": None, "x": str(NOW)}, NOW + CLOCK_SKEW + 1, "the signature has expired"),
        ({"x": str(NOW - 61)}, NOW - 100, "the signature cannot be read: it expires before it was made"),
    ],
)
async def test_times(tags: dict[str, str | None], now: int, reason: str) -> None:
    only = await result(sign(MESSAGE, None, **tags), now=now)
    assert (only.status, only.reason) == (PERMERROR if reason else PASS, reason)


async def test_l_and_what_was_appended() -> None:
    body = b"Hello, Bob\r\n\r\n good bye\r\n"
    whole, part = sign(c="relaxed/relaxed", l=str(len(body))), sign(c="relaxed/relaxed", l="5")
    assert (await result(whole)).body_extended is False
    assert (await result(whole + b"buy this\r\n")).body_extended is True
    assert (await result(whole + b"buy this\r\n")).status is PASS
    assert (await result(part)).body_extended is True
    assert (await result(sign(l="0") + b"anything")).body_extended is True
    short = await result(whole.replace(b"good bye", b"good"))
    assert (short.status, short.reason) == (FAIL, "the body is shorter than l= says")
    longer = await result(sign(l=str(len(body) + 1)))
    assert (longer.status, longer.reason) == (FAIL, "the body is shorter than l= says")
    assert (await result(whole.replace(b"Hello", b"HellO") + b"x")).reason == "the body was changed"


@pytest.mark.parametrize(
    ("identity", "flags", "reason"),
    [
        ("me@sender.test", "t=s; ", ""),
        ("me@mail.sender.test", "", ""),
        ("me@mail.sender.test", "t=y:s; ", "the key is for d= itself, and i= is in a domain below it"),
    ],
)
async def test_identities(identity: str, flags: str, reason: str) -> None:
    only = await result(sign(i=identity), flags + "p=" + rsa_key().public)
    assert (only.status, only.reason, only.identity) == (PERMERROR if reason else PASS, reason, identity)


async def test_a_key_for_tests() -> None:
    testing = "t=y; p=" + rsa_key().public
    for message, status in ((sign(), PASS), (sign() + b"x", FAIL)):
        only = await result(message, testing)
        assert (only.status, only.testing) == (status, True)
    assert (await result(sign())).testing is False


async def test_several_keys_under_one_name() -> None:
    other, good = rsa_key(1024, 1).record, rsa_key().record
    assert (await result(sign(), other, good)).status is PASS
    assert (await result(sign(), other, ed25519_key().record, "v=spf1 -all", good)).status is PASS
    assert (await result(sign(), *(rsa_key(1024, n).record for n in range(3)), good)).reason == HEADER_CHANGED


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("v=DKIM1; p=", PERMERROR, "the key was revoked"),
        ("rubbish", PERMERROR, "the key record cannot be used: it has a part that is not name=value"),
        ("k=ed25519; p=EDWARDS", PERMERROR, "the key is for another algorithm than the signature's"),
        ("h=sha1; p=RSA", PERMERROR, "the key record cannot be used: its h= does not allow sha256"),
        ("s=tlsrpt; p=RSA", PERMERROR, "the key record cannot be used: its s= does not allow e-mail"),
        ("s=email:tlsrpt; h=sha1:sha256; p=RSA", PASS, ""),
    ],
)
async def test_key_records(text: str, status: DkimStatus, reason: str) -> None:
    text = text.replace("EDWARDS", ed25519_key().public).replace("p=RSA", "p=" + rsa_key().public)
    only = await result(sign(), text)
    assert (only.status, only.reason) == (status, reason)


async def test_a_weak_key() -> None:
    weak = record(wrapped(modulus(512), 65537)).decode()  # RFC 8301 3.2
    only = await result(sign(), weak)
    assert (only.status, only.reason) == (DkimStatus.POLICY, "the key has 512 bits, not 1024 to 4096")


async def test_algorithms_that_need_no_key() -> None:
    resolver = FakeResolver({(NAME, "TXT"): [rsa_key().record]})
    sha1 = sign(a="rsa-sha1", bh=base64.b64encode(b"h" * 20).decode())
    for message, status, word in (
        (sha1, DkimStatus.POLICY, "rsa-sha1"),
        (sign(a="x"), DkimStatus.NEUTRAL, "algorithm"),
    ):
        (only,) = await verify(resolver, incoming(message), NOW)
        assert only.status is status
        assert word in only.reason
        assert only.domain == "sender.test"
    assert resolver.asked == []


async def test_dns_does_not_answer() -> None:
    resolver = FakeResolver({(NAME, "TXT"): [rsa_key().record]}, frozenset({NAME}))
    (only,) = await verify(resolver, incoming(sign()), NOW)
    assert only.status is DkimStatus.TEMPERROR
    assert only.reason == "its key could not be looked up: the name server did not answer"


async def test_no_key() -> None:
    (only,) = await results(sign(), {})
    assert (only.status, only.reason) == (PERMERROR, f"there is no key at {NAME}")
    assert (only.domain, only.selector, only.signature_start) == ("sender.test", "lab", only.signature_start[:8])


async def test_a_signature_that_cannot_be_read() -> None:
    only = await result(sign(v="2"))
    assert only == DkimResult(PERMERROR, reason="the signature cannot be read: its version is not 1")


async def test_international_signatures() -> None:
    message = sign(d="bücher.example", s="schlüssel", i="jörg@bücher.example")
    name = "xn--schlssel-95a._domainkey.xn--bcher-kva.example"
    (only,) = await results(message, {name: [rsa_key().record]})
    assert (only.status, only.domain) == (PASS, "xn--bcher-kva.example")


async def test_many_signatures_are_bounded() -> None:
    message = sign()
    for n in range(128):  # row 44
        message = sign(message, d=f"d{n}.test", b="c2ln")
    resolver = FakeResolver({(NAME, "TXT"): [rsa_key().record]})
    found = await verify(resolver, incoming(message), NOW)
    assert len(found) == len(resolver.asked) == CHECKED
    assert (found[0].domain, found[0].status) == ("sender.test", PASS)
    assert [each.domain for each in found[1:]] == [f"d{n}.test" for n in range(127, 118, -1)]


async def test_beginnings_of_b_tell_signatures_apart() -> None:
    message = sign(sign(sign(b="AAAAAAAAAAAABBBB"), b="AAAAAAAAAAAACCCC"), b="AAAAAAAAAAAABBBB")
    starts = [each.signature_start for each in await results(message, {})]
    assert starts == ["AAAAAAAAAAAABBBB", "AAAAAAAAAAAACCCC", "AAAAAAAAAAAABBBB"]  # RFC 6008 4
    assert [each.signature_start for each in await results(sign(b="A AA\r\n AAAAAAAAA"), {})] == ["AAAAAAAA"]


async def test_a_header_that_is_too_long_is_not_taken_for_unsigned() -> None:
    message = Incoming(header_limit=100)
    message.feed(sign())
    message.finish()
    (only,) = await verify(FakeResolver(), message, NOW)
    assert (only.status, only.reason) == (PERMERROR, "the header section is too long to be checked")


def now_or_never(message: bytes, records: list[bytes], status: DnsStatus) -> tuple[DkimResult, ...]:
    """Verify without a loop: nothing here waits."""
    resolver = RandomResolver(lambda name, kind: Answer(status, tuple(records), "no answer"))
    running = verify(resolver, incoming(message), NOW)
    try:
        running.send(None)
    except StopIteration as done:
        found: tuple[DkimResult, ...] = done.value
        return found
    raise AssertionError("something waited")


@given(
    st.lists(st.one_of(anything, lists), max_size=4),
    st.binary(max_size=20),
    st.lists(st.one_of(anything, st.just(rsa_key().record.encode())), min_size=1, max_size=3),
    st.sampled_from(DnsStatus),
)
def test_a_result_whatever_comes(fields: list[bytes], body: bytes, records: list[bytes], status: DnsStatus) -> None:
    message = b"".join(b"DKIM-Signature: " + field + b"\r\n" for field in fields) + MESSAGE + body
    for each in now_or_never(message, records if status is DnsStatus.FOUND else [], status):
        assert each.status is not PASS
        assert each.reason.isprintable()
        assert each.reason
