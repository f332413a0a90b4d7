"""From, written anew: golden octets, what has to stay, and nothing that an author could smuggle in."""

import re
from email.header import decode_header, make_header
from email.utils import getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dmarc.from_header import author_domain
from forwarder.model.address import Address
from forwarder.model.headers import Header, split_header
from forwarder.model.message import MemoryContent, StrippedContent
from forwarder.rewrite.author import MAX_OCTETS, Rewritten, Unwritable, rewrite_author
from forwarder.rewrite.mailboxes import names_somebody

ALIAS = Address("shop", "ours.example")
IDN = Address("shop", "xn--bcher-kva.example")
BODY = b"Subject: hello\r\n\r\nbody\r\n"


def header(value: str | bytes, more: bytes = b"") -> Header:
    octets = value.encode() if isinstance(value, str) else value
    return split_header(b"To: shop@ours.example\r\nFrom: " + octets + b"\r\n" + more + BODY)


def fields(value: str | bytes, alias: Address = ALIAS, more: bytes = b"") -> str:
    rewritten = rewrite_author(header(value, more), alias)
    assert isinstance(rewritten, Rewritten), rewritten
    return rewritten.fields.decode("ascii")


def shown(made: str | bytes, title: str) -> str:
    """Give a field as the standard library reads it for people."""
    text = made.decode("ascii") if isinstance(made, bytes) else made
    found = split_header(text.encode() + b"\r\n").all(title.encode())
    return str(make_header(decode_header(found[0].value.decode("ascii"))))


GOLDEN = [
    (
        "Alice <alice@example.org>",
        'From: "Alice via ours.example" <shop@ours.example>\r\n'
        'Reply-To: "Alice" <alice@example.org>\r\n'
        "X-Original-From: Alice <alice@example.org>\r\n",
    ),
    (
        "alice@example.org",
        'From: "alice at example.org via ours.example" <shop@ours.example>\r\n'
        "Reply-To: <alice@example.org>\r\n"
        "X-Original-From: alice@example.org\r\n",
    ),
    (  # words that share a letter between them, in two encodings
        "=?utf-8?q?J=C3?=\r\n =?utf-8?b?vHJnZW4=?= <j@example.org>",
        "From: =?utf-8?q?J=C3=BCrgen_via_ours=2Eexample?= <shop@ours.example>\r\n"
        "Reply-To: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\n"
        "X-Original-From: =?utf-8?q?J=C3?= =?utf-8?b?vHJnZW4=?= <j@example.org>\r\n",
    ),
    (
        '"Doe, \\"J\\" \\\\ D" <j@example.org>',
        'From: "Doe, \\"J\\" \\\\ D via ours.example" <shop@ours.example>\r\n'
        'Reply-To: "Doe, \\"J\\" \\\\ D" <j@example.org>\r\n'
        'X-Original-From: "Doe, \\"J\\" \\\\ D" <j@example.org>\r\n',
    ),
    (
        "j@example.org (John (the elder) Doe)",
        'From: "John (the elder) Doe via ours.example" <shop@ours.example>\r\n'
        'Reply-To: "John (the elder) Doe" <j@example.org>\r\n'
        "X-Original-From: j@example.org (John (the elder) Doe)\r\n",
    ),
    (
        "Staff: a@example.org, B <b@example.org>;, c@example.org",
        'From: "a at example.org and 2 others via ours.example" <shop@ours.example>\r\n'
        'Reply-To: <a@example.org>, "B" <b@example.org>, <c@example.org>\r\n'
        "X-Original-From: Staff: a@example.org, B <b@example.org>;, c@example.org\r\n",
    ),
    (
        "A <a@example.org>, B <b@example.org>",
        'From: "A and 1 other via ours.example" <shop@ours.example>\r\n'
        'Reply-To: "A" <a@example.org>, "B" <b@example.org>\r\n'
        "X-Original-From: A <a@example.org>, B <b@example.org>\r\n",
    ),
    (  # obsolete syntax: a route, blanks and comments within the address
        "J. R. (x) Doe <@relay.example,@b.example:j . r @ example (c) . org>",
        'From: "J. R. Doe via ours.example" <shop@ours.example>\r\n'
        'Reply-To: "J. R. Doe" <j.r@example.org>\r\n'
        "X-Original-From: J. R. (x) Doe <@relay.example,@b.example:j . r @ example (c)\r\n . org>\r\n",
    ),
    (
        '"very unusual"@example.org',
        'From: "very unusual at example.org via ours.example" <shop@ours.example>\r\n'
        'Reply-To: <"very unusual"@example.org>\r\n'
        'X-Original-From: "very unusual"@example.org\r\n',
    ),
    (  # a name that looks like an address, also when it is hidden
        '"=?utf-8?b?c2VydmljZUBiYW5rLmV4YW1wbGU=?=" <x@example.org>',
        'From: "service at bank.example via ours.example" <shop@ours.example>\r\n'
        'Reply-To: "service at bank.example" <x@example.org>\r\n'
        'X-Original-From: "=?utf-8?b?c2VydmljZUBiYW5rLmV4YW1wbGU=?=" <x@example.org>\r\n',
    ),
    (  # what looks encoded and is not stays as it reads
        "=?utf-7?q?x?= <a@example.org>",
        "From: =?utf-8?q?=3D=3Futf-7=3Fq=3Fx=3F=3D_via_ours=2Eexample?=\r\n <shop@ours.example>\r\n"
        "Reply-To: =?utf-8?q?=3D=3Futf-7=3Fq=3Fx=3F=3D?= <a@example.org>\r\n"
        "X-Original-From: =?utf-7?q?x?= <a@example.org>\r\n",
    ),
]


@pytest.mark.parametrize(("value", "made"), GOLDEN, ids=[value for value, _ in GOLDEN])
def test_golden(value: str, made: str) -> None:
    assert fields(value) == made


def test_idn_and_raw_utf_8() -> None:
    made = fields("Jürgen <j@bücher.example>", IDN)
    assert made == (
        "From: =?utf-8?q?J=C3=BCrgen_via_b=C3=BCcher=2Eexample?=\r\n <shop@xn--bcher-kva.example>\r\n"
        "Reply-To: =?utf-8?q?J=C3=BCrgen?= <j@xn--bcher-kva.example>\r\n"
        "X-Original-From: =?utf-8?q?J=C3=BCrgen_=3Cj=40b=C3=BCcher=2Eexample=3E?=\r\n"
    )
    assert shown(made, "x-original-from") == "Jürgen <j@bücher.example>"


def test_raw_latin_1_is_read_as_what_was_meant() -> None:
    assert shown(fields("Jürgen <j@example.org>".encode("latin-1")), "from").startswith("Jürgen via ours.example")


def test_control_characters_do_not_come_through() -> None:
    made = fields('"a\x01b\x7f" <a@example.org>')
    assert made.startswith('From: "a b via ours.example" <shop@ours.example>\r\n')
    assert shown(made, "x-original-from") == '"a\ufffdb\ufffd" <a@example.org>'


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("evil\u202etxt", "evil txt"),
        ("a\x00b\x1bc", "a b c"),
        ("\u200bhidden\ufeff", "hidden"),
        ("me＠bank.example", "me at bank.example"),
        ("'quoted'", "quoted"),
        ("x" * 500, "x" * 99 + "…"),
        ("@", "at"),
        ("", "a at example.org"),
        ("日本語", "日本語"),
    ],
)
def test_names_are_cleaned(name: str, read: str) -> None:
    encoded = f"=?utf-8?q?{''.join(f'={octet:02X}' for octet in name.encode())}?=" if name else '""'
    made = shown(fields(f"{encoded} <a@example.org>"), "from")
    assert made.replace('"', "") == f"{read} via ours.example <shop@ours.example>"


def test_a_long_name_never_hides_via_whom() -> None:
    assert shown(fields(f"{'n' * 3000} <a@example.org>"), "from").endswith("… via ours.example <shop@ours.example>")


def test_a_reply_to_is_kept() -> None:
    rewritten = rewrite_author(header("a@example.org", b"Reply-To: List <l@lists.example>\r\n"), ALIAS)
    assert isinstance(rewritten, Rewritten)
    assert b"Reply-To" not in rewritten.fields
    assert rewritten.removed == ((26 - 3, 26 - 3 + len("From: a@example.org\r\n")),)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"l@lists.example", True),
        (b"nobody@, List <l@lists.example>", True),
        (b"Lists: l@lists.example;", True),
        ("jürgen@lists.example".encode(), True),
        (b"nobody", False),
        (b"@", False),
        (b"nobody@", False),
        (b"<@lists.example>", False),
        (b'"l@lists.example', False),
        (b"(l@lists.example)", False),
        (b"l@lists.example (", False),
        (b"a@b@lists.example", False),
        (b"nobody:;", False),
        (b"l@lists.example" + b" " * MAX_OCTETS, False),
    ],
)
def test_a_reply_to_counts_only_if_somebody_is_there(value: bytes, kept: bool) -> None:
    field = b"Reply-To: " + value + b"\r\n"
    found = header("a@example.org", field)
    rewritten = rewrite_author(found, ALIAS)
    assert isinstance(rewritten, Rewritten)
    assert (b"Reply-To: <a@example.org>\r\n" in rewritten.fields) is not kept
    octets = b"".join(each.raw for each in found.fields)
    left = b"".join(StrippedContent(MemoryContent(octets), rewritten.removed).chunks())
    assert (field in left) is kept


def test_where_nobody_can_be_replied_to_it_is_not_rewritten() -> None:
    found = rewrite_author(header("jürgen@x.example", b"Reply-To: nobody@\r\n"), ALIAS)
    assert isinstance(found, Unwritable)


def test_the_rest_of_the_message_stays_as_it_is() -> None:
    octets = (
        b"DKIM-Signature: v=1; h=from\r\nReply-To:\r\nTo: x\r\nfrom :\r\n Alice\r\n <a@example.org>\r\n"
        b"Sender: s@example.org\r\nResent-From: r@other.example\r\nreply-to: nobody\r\n"
        b"List-Id: <l.example>\r\n\r\nFrom: b\r\n"
    )
    rewritten = rewrite_author(split_header(octets), ALIAS)
    assert isinstance(rewritten, Rewritten)
    content = StrippedContent(MemoryContent(octets), rewritten.removed)
    assert b"".join(content.chunks()) == (
        b"DKIM-Signature: v=1; h=from\r\nTo: x\r\nSender: s@example.org\r\nResent-From: r@other.example\r\n"
        b"List-Id: <l.example>\r\n\r\nFrom: b\r\n"
    )
    assert rewritten.fields == (
        b'From: "Alice via ours.example" <shop@ours.example>\r\nReply-To: "Alice" <a@example.org>\r\n'
        b"X-Original-From: Alice <a@example.org>\r\n"
    )


def test_an_alias_that_needs_smtputf8() -> None:
    beyond, bare, postmaster = (
        Address("jürgen", "ours.example"),
        Address("postmaster", ""),
        Address("p", "ours.example"),
    )
    for alias in (beyond, bare):
        assert rewrite_author(header("a@example.org"), alias) == Unwritable("our own address is beyond ASCII")
        rewritten = rewrite_author(header("a@example.org"), alias, postmaster)
        assert isinstance(rewritten, Rewritten)
        assert b"<p@ours.example>" in rewritten.fields
    assert isinstance(rewrite_author(header("a@example.org"), beyond, beyond), Unwritable)


def test_an_alias_that_needs_quotes() -> None:
    assert '<"a\\"b c"@ours.example>' in fields("a@example.org", Address('a"b c', "ours.example"))


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"Subject: x\r\n\r\n", "there is no From field"),
        (b"From: a@x.example\r\nFrom: b@x.example\r\n\r\n", "there are several From fields"),
        (b"From: a@x.example, b@y.example\r\n\r\n", "the From field names several domains: x.example, y.example"),
        (b"From: nobody\r\n\r\n", "the From field names no domain"),
        (b"From: undisclosed:;\r\n\r\n", "the From field names no domain"),
        (b"From: <a@x.example\r\n\r\n", "the From field is malformed: its angle brackets do not match"),
        (b'From: "a@x.example\r\n\r\n', "the From field is malformed: it has a character out of place"),
        (b"From: a@x.example, b@[192.0.2.1]\r\n\r\n", "the From field names no address that can be replied to"),
        (b'From: "a\x01"@x.example\r\n\r\n', "the From field cannot be read for certain: "),
        ("From: jürgen@x.example\r\n\r\n".encode(), "the author's address is beyond ASCII"),
        (b"From: x <a@x.example>" + b" " * MAX_OCTETS + b"\r\n\r\n", "the From field is longer than 8000 octets"),
        (b"From: a@x.example\r\nno field\r\nFrom: b@x.example\r\n\r\n", "a From field stands behind a line"),
    ],
)
def test_what_cannot_be_rewritten(octets: bytes, reason: str) -> None:
    found = rewrite_author(split_header(octets), ALIAS)
    assert isinstance(found, Unwritable)
    assert found.reason.startswith(reason)


def test_an_author_beyond_ascii_can_be_rewritten_where_a_reply_to_is() -> None:
    made = fields("jürgen@x.example", more=b"Reply-To: j@x.example\r\n")
    assert shown(made, "from") == "jürgen at x.example via ours.example <shop@ours.example>"


def sound(rewritten: Rewritten | Unwritable) -> None:
    """Hold a result to what is promised of every one: 7 bits, whole fields, one From with our address alone."""
    if isinstance(rewritten, Unwritable):
        assert rewritten.reason and rewritten.reason.isascii() and rewritten.reason.isprintable()
        return
    made = rewritten.fields
    assert not re.search(rb"[^ -~\r\n]|\r(?!\n)|(?<!\r)\n", made)
    assert all(len(line) <= 998 and line.strip() for line in made.removesuffix(b"\r\n").split(b"\r\n"))
    again = split_header(made + b"\r\n")
    assert again.size == len(made)
    names = [field.name for field in again.fields]
    assert names in ([b"from", b"reply-to", b"x-original-from"], [b"from", b"x-original-from"])
    assert author_domain(again).domain == "ours.example"
    value = again.fields[0].value.decode("ascii")
    assert [address for _, address in getaddresses([value])] == ["shop@ours.example"]
    assert "@" not in re.sub(r"<shop@ours.example>\Z", "", shown(made, "from"))


PIECES = [
    *(
        "a@example.org",
        "<",
        ">",
        ",",
        ":",
        ";",
        '"',
        "\\",
        "(",
        ")",
        "@",
        ".",
        "example.org",
        "Alice",
        "\r\n ",
        "\t",
        " ",
    ),
    *("=?utf-8?q?", "=40", "=0D=0A", "?=", "=?utf-8?b?QEBA?=", "=?idna?q?x?=", "ü", "\u202e", "\x00", "\x7f", "<a@b>"),
]


@given(
    st.binary(max_size=100) | st.lists(st.sampled_from(PIECES), max_size=15).map(lambda some: "".join(some).encode())
)
def test_any_reply_to(value: bytes) -> None:
    """Whatever Reply-To holds, it stays or the author takes its place: there is a place to reply to."""
    found = header("a@example.org", b"Reply-To: " + value + b"\r\n")
    rewritten = rewrite_author(found, ALIAS)
    sound(rewritten)
    assert isinstance(rewritten, Rewritten)
    assert b"Reply-To: <a@example.org>" in rewritten.fields or names_somebody(found.all(b"reply-to")[0].value)


@given(st.lists(st.sampled_from(PIECES), max_size=15).map("".join), st.booleans())
def test_nothing_can_be_injected(value: str, replies: bool) -> None:
    """Whatever From holds, what is made is sound."""
    sound(rewrite_author(header(value, b"Reply-To: r@example.org\r\n" * replies), ALIAS))


@given(st.text(max_size=300), st.sampled_from(["utf-8", "utf-16", "koi8-r", "iso-2022-jp", "shift_jis"]))
def test_any_name(name: str, charset: str) -> None:
    """A name that is encoded in any way gives a sound From, which is always made."""
    octets = name.encode(charset, "replace")
    encoded = "".join(f"={octet:02X}" for octet in octets)
    rewritten = rewrite_author(header(f"=?{charset}?q?{encoded}?= <a@example.org>"), ALIAS)
    assert isinstance(rewritten, Rewritten)
    sound(rewritten)


@given(st.binary(max_size=200))
def test_any_octets(value: bytes) -> None:
    """Anything after the colon, whole lines or not, gives something sound."""
    sound(rewrite_author(header(value), ALIAS))


@pytest.mark.parametrize(
    "piece", ["(", '"', "=?utf-8?q?", "=?", "a@b.example,", "<", "\\", "é", "a:", "=?utf-8?q?é?= "]
)
def test_long_fields_take_linear_time(piece: str) -> None:
    sound(rewrite_author(header(piece * (MAX_OCTETS // len(piece.encode()))), ALIAS))
