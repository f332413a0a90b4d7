"""Our DKIM signatures: what they cover, that everybody verifies them, and what breaks them."""

import re
from typing import Any

import dkim
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dkim import canonical
from forwarder.auth.dkim.record import MAX_NAMES, Signature, parse_signature
from forwarder.auth.dkim.verify import DkimStatus
from forwarder.model.headers import MAX_FIELDS, split_header
from forwarder.rewrite.sign import MAX_OF_A_NAME, OPEN, SINGLE, WIDTH, sign
from forwarder.rewrite.signing_key import load_key
from tests.auth.dkim.opendkim import LIBRARY
from tests.auth.dkim.signer import MESSAGE, NOW, rsa_key
from tests.auth.dkim.signer import sign as sign_before
from tests.corpus.collection import ODD
from tests.corpus.odd import Odd, arriving
from tests.rewrite.judges import DOMAIN, HEAD, dkimpy, ed25519, opendkim, ours, pem, prepared, rsa, signed

PASS, FAIL = DkimStatus.PASS, DkimStatus.FAIL
FULL = (
    b"Received: by somebody\r\nFrom: Alice <alice@sender.test>\r\nSender: alice@sender.test\r\n"
    b"Reply-To: alice@sender.test\r\nTo: bob@b.test\r\nCc: carol@c.test\r\nSubject: one\r\n two\r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@sender.test>\r\nIn-Reply-To: <0@b.test>\r\n"
    b"References: <0@b.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 7bit\r\n"
    b"Content-Disposition: inline\r\nContent-Description: a text\r\nContent-ID: <2@sender.test>\r\n"
    b"Resent-Date: Sun, 22 Nov 2026 11:00:00 +0000\r\nResent-From: a@b.test\r\nResent-Sender: a@b.test\r\n"
    b"Resent-To: c@d.test\r\nResent-Cc: e@f.test\r\nResent-Message-ID: <3@b.test>\r\nList-Id: <l.test>\r\n"
    b"List-Help: <mailto:h@l.test>\r\nList-Unsubscribe: <https://l.test/u>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nList-Subscribe: <mailto:s@l.test>\r\n"
    b"List-Post: <mailto:l@l.test>\r\nList-Owner: <mailto:o@l.test>\r\nList-Archive: <https://l.test/>\r\n"
    b"\r\nbody\r\n"
)
LARGE = 1_000_000  # dkimpy takes seconds for more


def signature(message: bytes, index: int = 0) -> Signature:
    return parse_signature(split_header(message).all(b"dkim-signature")[index].value)


def test_what_stands_in_the_field() -> None:
    found = signature(signed(MESSAGE))
    assert (found.domain, found.selector, found.algorithm) == ("ours.test", "r1", "rsa-sha256")
    assert (found.signed_at, found.expires, found.identity) == (NOW, None, "@ours.test")
    assert found.header_relaxed
    assert found.body.relaxed
    assert found.body.length is None
    tags = re.findall(rb"[; ]([a-z]+)=", signed(MESSAGE).partition(b"X-Forwarded")[0].replace(b"\r\n", b""))
    assert tags == [b"v", b"a", b"c", b"d", b"s", b"t", b"h", b"bh", b"b"]


def test_a_key_each() -> None:
    message = signed(MESSAGE, rsa(), ed25519())
    assert [signature(message, n).algorithm for n in range(2)] == ["rsa-sha256", "ed25519-sha256"]
    assert ours(message) == [PASS, PASS]
    assert dkimpy(message, 0)
    assert dkimpy(message, 1)
    assert sign((), prepared(MESSAGE)) == b""


def test_which_fields_are_signed() -> None:
    names = list(signature(signed(FULL)).names)
    there = [field.name for field in split_header(FULL).fields if field.name != b"received"]
    assert sorted(names) == sorted([*there, *SINGLE])
    assert set(there) == {*SINGLE, *OPEN}
    names = list(signature(signed(b"Subject: x\r\nsubject : y\r\nList-Id: z\r\nX-A: b\r\n\r\n")).names)
    assert sorted(names) == sorted([*SINGLE, b"subject", b"subject", b"list-id"])


@pytest.mark.parametrize(
    "name",
    [
        *(
            b"Received",
            b"Return-Path",
            b"Delivered-To",
            b"X-Forwarded-To",
            b"X-Forwarded-For",
            b"Authentication-Results",
        ),
        *(b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results", b"DKIM-Signature", b"X-Spam", b"Bcc"),
        *(b"Comments", b"Keywords"),
    ],
)
def test_what_hops_add_or_remove_is_not_signed(name: bytes) -> None:
    line = name + b": something\r\n"
    message = signed(line + FULL)
    assert name.lower() not in signature(message).names
    assert ours(line + message)[-1] is PASS
    assert ours(message.replace(line, b""))[-1] is PASS


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("base", [FULL, b"X: y\r\n\r\nbody\r\n"], ids=["there", "not there"])
def test_no_second_one_can_be_put_on_top(name: bytes, base: bytes) -> None:
    message = signed(base)
    added = name.title() + b": another\r\n"
    assert ours(message) == [PASS]
    assert ours(added + message) == ours(message.replace(HEAD, HEAD + added)) == [FAIL]
    assert not dkimpy(added + message)


@pytest.mark.parametrize("name", OPEN)
def test_the_next_list_may_add_its_own(name: bytes) -> None:
    assert ours(name + b": another\r\n" + signed(FULL)) == [PASS]


def test_every_signed_octet_counts() -> None:
    message = signed(FULL)
    start = message.index(FULL) + len(b"Received: by somebody\r\n")
    for place in range(start, len(message)):
        if message[place : place + 1].isalnum():
            changed = message[:place] + bytes([message[place] ^ 2]) + message[place + 1 :]
            assert ours(changed) == [FAIL], message[place - 20 : place + 5]
    assert ours(message.replace(b"by somebody", b"by anybody")) == [PASS]


def test_the_signature_itself_is_signed() -> None:
    message = signed(FULL)
    assert ours(message.replace(b"t=1790000000", b"t=1789999999", 1)) == [FAIL]
    assert ours(message.replace(b"s=r1", b"s=r2", 1).replace(b"d=ours.test", b"d=second.test", 1)) == [FAIL]
    assert ours(message.replace(b"h=from:from:", b"h=from:", 1)) == [FAIL]


def test_fields_of_ours_take_the_place_of_some() -> None:
    """From is rewritten: the new field is signed, the old one is not there any more."""
    start = MESSAGE.index(b"From:")
    end = MESSAGE.index(b"To:")
    added = b"From: Alice via ours.test <shop@ours.test>\r\nReply-To: alice@sender.test\r\n"
    top = sign((rsa(),), prepared(MESSAGE, added, [(start, end)]))
    message = top + added + HEAD + MESSAGE[:start] + MESSAGE[end:]
    assert ours(message) == [PASS]
    assert dkimpy(message)
    assert ours(message.replace(b"<shop@", b"<shoo@")) == [FAIL]
    assert ours(top + HEAD + MESSAGE) == [FAIL]


def test_a_field_that_is_there_ten_thousand_times() -> None:
    for name in (*SINGLE[:2], *OPEN[:1]):
        message = (name + b": a@b.test\r\n") * (MAX_FIELDS - 20) + MESSAGE
        octets = signed(message)
        assert signature(octets).names.count(name) == MAX_OF_A_NAME
        assert ours(octets) == [PASS]
    everything = b"".join((name + b": x\r\n") * 50 for name in (*SINGLE, *OPEN)) + b"\r\n"
    assert len(signature(signed(everything)).names) == MAX_OF_A_NAME * len((*SINGLE, *OPEN)) < MAX_NAMES
    assert ours(signed(everything)) == [PASS]


def test_lines_are_short() -> None:
    everything = b"".join((name + b": x\r\n") * 50 for name in (*SINGLE, *OPEN)) + b"\r\n"
    for message in (MESSAGE, FULL, everything):
        lines = sign((rsa(), ed25519()), prepared(message)).split(b"\r\n")
        assert max(map(len, lines)) <= WIDTH
        assert lines[-1] == b""
    domain = ".".join(["x" * 60, "y" * 60, "z" * 60, "test"])
    key = load_key(pem(rsa_key().private), domain, "s" * 50)
    assert max(map(len, sign((key,), prepared(MESSAGE)).split(b"\r\n"))) <= 300


NO_FIELD = frozenset(
    {
        *("no-header-only-text", "one-octet", "byte-order-mark-first", "dot-is-the-first-line", "mbox-from-line-first"),
        *("line-without-colon", "colon-first"),
    }
)
NO_AUTHOR = frozenset(
    {
        "nothing-at-all",
        "one-blank-line",
        "blank-line-first",
        "dot-is-the-first-octet",
        "no-from",
        "from-without-address",
    }
)
# Neither looks at a header with a line that is no field to it, whatever signatures it has.
DKIMPY_REFUSES = NO_FIELD | {"space-before-colon"}
OPENDKIM_REFUSES = NO_FIELD | NO_AUTHOR | {"space-before-colon"}


def judged(one: Odd) -> bytes:
    return signed(arriving(one.octets), rsa(), ed25519())


def parameters(refused: frozenset[str] = frozenset(), size: int = 1 << 30) -> list[Any]:
    accepted = [one for one in ODD if not one.refusal and one.name not in refused and len(one.octets) < size]
    return [pytest.param(one, id=one.name) for one in accepted]


@pytest.mark.parametrize("one", parameters())
def test_odd_messages(one: Odd) -> None:
    assert ours(judged(one))[:2] == [PASS, PASS]


@pytest.mark.parametrize("one", parameters(DKIMPY_REFUSES, LARGE))
def test_odd_messages_by_dkimpy(one: Odd) -> None:
    assert dkimpy(judged(one), 0)
    assert dkimpy(judged(one), 1)


@pytest.mark.skipif(LIBRARY is None, reason="needs Debian's libopendkim")
@pytest.mark.parametrize("one", parameters(OPENDKIM_REFUSES))
def test_odd_messages_by_opendkim(one: Odd) -> None:
    assert opendkim(judged(one), rsa())


fields = st.builds(
    lambda name, space, value, folded: name + space + b":" + value + b"\r\n" + folded,
    st.sampled_from(
        [b"From", b"fRoM", b"To", b"Subject", b"DATE", b"List-Id", b"X-Odd", b"Received", b"DKIM-Signature"]
    )
    | st.from_regex(rb"[!-9;-~]{1,12}", fullmatch=True),
    st.sampled_from([b"", b" ", b"\t "]),
    st.binary(max_size=20).map(lambda octets: octets.replace(b"\n", b"").replace(b"\r", b"")),
    st.sampled_from([b"", b" \r\n", b"\tfolded \t \r\n", b" \r\n \r\n"]),
)
bodies = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\xe9", b".", b"\r\n\r\n"]), max_size=12).map(b"".join)


@given(st.lists(fields, max_size=25).map(b"".join), st.sampled_from([b"", b"\r\n", b"no field\r\n"]), bodies)
def test_any_message_that_we_sign_verifies(header: bytes, between: bytes, body: bytes) -> None:
    """Whatever the fields and the body: for every message our verifier says pass to both our signatures."""
    message = header + between + body
    if message[:1] in (b" ", b"\t") or (not between and body[:1] in (b" ", b"\t", b"\r", b"a", b"\xe9", b".")):
        return  # refused at the door, or continues the last field
    assert ours(signed(message, rsa(), ed25519()))[:2] == [PASS, PASS]


@given(st.lists(fields, max_size=25).map(b"".join))
def test_any_message_of_dkimpys_kind(header: bytes) -> None:
    message = b"From: a@b.test\r\n" + header + b"\r\nbody\r\n"
    octets = signed(message)
    try:
        accepted = dkimpy(octets)
    except dkim.DKIMException:
        return
    names = [field.raw.partition(b":")[0] for field in split_header(message).fields]
    if all(name == name.rstrip() for name in names) and not re.search(rb"[\x0b\x0c]", message):
        assert accepted


def test_the_body_is_passed_over_once_on_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash for signing is the one that the sender's signature needs too; signing takes it as it is."""
    message = sign_before(FULL)
    seen = []
    give = canonical._Body.feed

    def counting(stream: canonical._Body, octets: bytes) -> None:
        seen.append(len(octets))
        give(stream, octets)

    monkeypatch.setattr(canonical._Body, "feed", counting)
    signed(message)
    assert sum(seen) == len(b"body\r\n")


def test_our_signature_beside_the_senders() -> None:
    message = signed(sign_before(FULL))
    assert ours(message) == [PASS]
    assert signature(message, 1).domain == "sender.test"
    assert DOMAIN in message.decode()
