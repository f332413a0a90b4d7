"""Our header lines: one octet string per case, and nothing that a peer could inject."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.address import Address
from forwarder.model.envelope import Peer, Tls
from forwarder.model.headers import split_header
from forwarder.policy.content import marks
from forwarder.rewrite.headers import Hand, Trace, Way, delivered_to, forwarded_for, head, mark, received

WHEN = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PEER = Peer("192.0.2.1", 4321)
HAND = Hand(PEER, "mail.sender.example", "mail.sender.example", extended=True, smtputf8=False, tls=None)
TRACE = Trace("mx.ours.example", "ID123", WHEN, HAND)
ALIAS = Address("Shop", "ours.example")
WAY = Way(ALIAS, Address("Me", "inbox.example"))


def test_a_head_says_where_it_goes_for_whom_and_whence() -> None:
    assert head(TRACE, WAY, b"Authentication-Results: mx.ours.example; none\r\n") == (
        b"X-Forwarded-To: Me@inbox.example\r\n"
        b"X-Forwarded-For: Shop@ours.example Me@inbox.example\r\n"
        b"Delivered-To: shop@ours.example\r\n"
        b"Authentication-Results: mx.ours.example; none\r\n"
        b"Received: from mail.sender.example (mail.sender.example [192.0.2.1])\r\n"
        b"\tby mx.ours.example with ESMTP id ID123\r\n"
        b"\tfor <Shop@ours.example>;\r\n"
        b"\tSun, 22 Nov 2026 12:00:00 +0000\r\n"
    )


OPTIONAL = (b"x-forwarded-to", b"x-forwarded-for", b"delivered-to", b"authentication-results")


@given(st.sets(st.sampled_from([*OPTIONAL, b"received", b"subject"])))
def test_what_a_signature_names_is_left_out_but_for_the_trace(left_out: set[bytes]) -> None:
    block = head(TRACE, WAY, b"Authentication-Results: mx.ours.example; none\r\n", frozenset(left_out))
    names = [field.name for field in split_header(block + b"\r\n").fields]
    assert names == [name for name in (*OPTIONAL, b"received") if name not in left_out or name == b"received"]


def test_a_long_pair_of_addresses_is_folded() -> None:
    way = Way(Address("a" * 40, "ours.example"), Address("me", "inbox.example"))
    assert forwarded_for(way) == b"X-Forwarded-For: " + b"a" * 40 + b"@ours.example\r\n me@inbox.example\r\n"
    longest = Address("ü" * 120, "ours.example")
    assert max(map(len, head(TRACE, Way(longest, longest)).split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    ("extended", "smtputf8", "tls", "protocol"),
    [
        (False, False, False, b"with SMTP id"),
        (True, False, False, b"with ESMTP id"),
        (True, False, True, b"with ESMTPS (TLSv1.3 TLS_X) id"),
        (True, True, False, b"with UTF8SMTP id"),
        (True, True, True, b"with UTF8SMTPS (TLSv1.3 TLS_X) id"),
    ],
)
def test_protocols(extended: bool, smtputf8: bool, tls: bool, protocol: bytes) -> None:
    layer = Tls("TLSv1.3", "TLS_X") if tls else None
    hand = Hand(PEER, "h", "", extended=extended, smtputf8=smtputf8, tls=layer)
    assert protocol in received(Trace("mx.ours.example", "ID", WHEN, hand), ALIAS)


def test_an_unknown_name_and_an_ipv6_client() -> None:
    hand = Hand(Peer("2001:db8::1", 1), "[IPv6:2001:db8::1]", "", extended=True, smtputf8=False, tls=None)
    line = received(Trace("mx.ours.example", "ID", WHEN, hand), ALIAS)
    assert b"from [IPv6:2001:db8::1] (unknown [IPv6:2001:db8::1])" in line


def test_an_alias_beyond_ascii_keeps_the_header_ascii() -> None:
    block = head(TRACE, Way(Address("Jürgen", "ours.example"), Address("Jörg", "inbox.example")))
    assert block.startswith(
        b"X-Forwarded-To: J\\x{F6}rg@inbox.example\r\n"
        b"X-Forwarded-For: J\\x{FC}rgen@ours.example J\\x{F6}rg@inbox.example\r\n"
        b"Delivered-To: j\\x{fc}rgen@ours.example\r\n"
    )
    assert b"for <" not in block


def test_a_bare_postmaster_is_marked() -> None:
    assert delivered_to(Address("Postmaster", "")) == b"Delivered-To: postmaster\r\n"


@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20),
)
def test_nothing_can_be_injected(helo: str, name: str, local: str) -> None:
    """Whatever the names hold, the block is ASCII and splits into exactly our fields."""
    hand = Hand(PEER, helo, name, extended=True, smtputf8=True, tls=None)
    address = Address(local, "ours.example")
    block = head(Trace("mx.ours.example", "ID", WHEN, hand), Way(address, address))
    assert block.isascii()
    header = split_header(block + b"\r\n")
    assert [field.name for field in header.fields] == [*OPTIONAL[:3], b"received"]
    assert header.size == len(block)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20))
def test_a_mark_is_found_again(local: str) -> None:
    address = Address(local, "ours.example")
    assert mark(address) in marks(split_header(delivered_to(address) + b"\r\n"))
    assert mark(address) == mark(Address(local.swapcase(), "ours.example")) or not local.isascii()
