"""Nothing that a peer sent adds a field, a part or a line of its own; what is written is 7-bit and bounded.

Strategies give what a peer can send, and also what the session should have refused.
"""

import quopri

from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.bounce.compose import MAX_SIZE, compose
from forwarder.bounce.mime import is_seven_bit, quoted_printable
from forwarder.bounce.notice import MAX_SIZE as MAX_NOTICE
from forwarder.bounce.notice import Item, Notice, compose_notice
from forwarder.bounce.report import Action, Report, Told
from forwarder.bounce.suppress import silence
from forwarder.model.address import Address
from forwarder.model.envelope import RcptOptions
from forwarder.model.headers import split_header
from forwarder.model.message import MemoryContent
from tests.bounce import grammar
from tests.bounce.samples import ARRIVED, EXPIRES, INFO, NOW, SENDER, TRIED, report

BREAKS = st.sampled_from(
    ["\r\n", "\n", "\r", "\r\n\r\n", "\0", "\x85", "\u2028", "\u202e", "\ud800", "\t", " ", "é", "😀", "=", "\\", '"']
)
FORGED = st.sampled_from(
    [
        *("Bcc: evil@evil.example", "X-Evil: 1", "Action: delivered", "Status: 2.0.0", "Content-Type: text/html"),
        *("Final-Recipient: rfc822; evil@evil.example", "--=_4f3a01_", "--=_4f3a01--", "+0D+0A", "<a@b>", "(", ")"),
        *("550 5.1.1 no", "rfc822;", "utf-8;", "\\x{41}", "=0D=0A", "?= :;", "a" * 1100),
    ]
)
HOSTILE = st.lists(BREAKS | FORGED | st.text(max_size=20), max_size=8).map("".join)
LOCALS = HOSTILE.map(lambda text: text[:250] or "x")
ADDRESSES = st.builds(Address, LOCALS, st.sampled_from(["ours.example", "[192.0.2.1]", ""]))
MOMENTS = st.none() | st.just(TRIED)
TOLD = st.builds(
    Told,
    alias=ADDRESSES,
    reply=HOSTILE | HOSTILE.map(lambda text: "550 5.1.1 " + text),
    options=st.builds(RcptOptions, st.just(frozenset[str]()), HOSTILE | HOSTILE.map(lambda text: "rfc822;" + text)),
    status=HOSTILE,
    relay=HOSTILE | HOSTILE.map(lambda text: text + "[192.0.2.1]:25"),
    when=MOMENTS,
)
REPORTS = st.builds(
    Report,
    action=st.sampled_from(Action),
    hostname=st.just("mx.ours.example"),
    id=st.just("4f3a01"),
    to=ADDRESSES,
    now=st.just(NOW),
    arrived=st.just(ARRIVED),
    recipients=st.lists(TOLD, min_size=1, max_size=3).map(tuple),
    envid=HOSTILE,
    ret=st.sampled_from(["", "FULL", "HDRS"]),
    expires=st.none() | st.just(EXPIRES),
)
OCTETS = HOSTILE.map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=200)
HEADERS = st.lists(
    st.tuples(st.sampled_from([b"Message-ID: ", b"Subject: ", b"X: ", b""]), OCTETS).map(
        lambda pair: b"".join(pair) + b"\r\n"
    ),
    max_size=4,
).map(b"".join)
ORIGINALS = st.builds(lambda header, body: header + b"\r\n" + body, HEADERS, OCTETS) | OCTETS


@given(REPORTS, ORIGINALS)
def test_a_dsn_has_only_what_we_put_into_it(sample: Report, original: bytes) -> None:
    octets = compose(sample, MemoryContent(original))
    dsn = grammar.read(octets)
    assert dsn.header["From"] == "Mail Delivery System <postmaster@mx.ours.example>"
    assert {fields["Action"] for fields in dsn.recipients} == {sample.action.value}
    assert len(dsn.recipients) == len({told.alias.key for told in sample.recipients})
    assert len(octets) <= MAX_SIZE
    _, groups, _ = grammar.by_stdlib(octets)  # and the other parser sees the same groups
    assert [len(group) for group in groups] == [len(dsn.message), *map(len, dsn.recipients)]


@given(ORIGINALS, st.sampled_from(["FULL", ""]))
def test_what_is_returned_is_the_original(original: bytes, ret: str) -> None:
    dsn = grammar.read(compose(report(ret=ret), MemoryContent(original)))
    header = b"".join(field.raw for field in split_header(original).fields)
    if dsn.third is None:
        assert not header
        return
    fields, body = dsn.third
    if fields["Content-Transfer-Encoding"] == "quoted-printable":
        body = quopri.decodestring(body)
    assert body == (original if fields["Content-Type"] == "message/rfc822" else header)


@given(OCTETS)
def test_quoted_printable_is_seven_bit_and_read_back_the_same(octets: bytes) -> None:
    encoded = quoted_printable(octets)
    assert is_seven_bit(encoded)
    assert all(len(line) <= 76 for line in encoded.split(b"\r\n"))
    assert not any(line.endswith((b" ", b"\t")) for line in encoded.split(b"\r\n"))
    assert quopri.decodestring(encoded) == octets


@given(st.none() | ADDRESSES, ORIGINALS)
def test_silence_never_fails(sender: Address | None, original: bytes) -> None:
    assert isinstance(silence(sender, split_header(original)), str)


@given(
    st.lists(HOSTILE, max_size=3).map(
        lambda names: b"".join(b"Auto-Submitted: %b\r\n" % n.encode("utf-8", "replace") for n in names)
    )
)
def test_whatever_stands_in_auto_submitted_is_silence_unless_it_is_no(header: bytes) -> None:
    split = split_header(header + b"\r\n")
    assert bool(silence(SENDER, split)) == any(field.name == b"auto-submitted" for field in split.fields)


ITEMS = st.builds(
    Item,
    letter=st.just("1a2b"),
    received=st.just(ARRIVED),
    sender=st.none() | ADDRESSES,
    alias=ADDRESSES,
    destination=ADDRESSES,
    reason=HOSTILE,
    author=HOSTILE,
    message_id=HOSTILE,
    until=MOMENTS,
)


@settings(max_examples=25)  # each is tens of kilobytes
@given(st.lists(ITEMS, max_size=5).map(lambda items: items * 15))
def test_a_notice_has_only_what_we_put_into_it(items: list[Item]) -> None:
    octets = compose_notice(Notice("mx.ours.example", "9c", INFO, NOW, tuple(items), 3))
    head, body = grammar.split(grammar.lines_of(octets))
    known = (
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version"),
        *("Content-Type", "Content-Transfer-Encoding"),
    )
    fields = grammar.fields_of(head, known)
    assert list(fields) == list(known)
    assert len(octets) <= MAX_NOTICE
    text = b"\r\n".join(body)
    if fields["Content-Transfer-Encoding"] == "quoted-printable":
        text = quopri.decodestring(text)
    lines = text.decode().split("\r\n")
    listed = lines.count("    1a2b")  # hostile text stands behind a word of ours, or alone as a reason
    assert listed <= len(items)
    assert f"and {len(items) + 3 - listed} more: `forwarder queue list --state held`" in lines
